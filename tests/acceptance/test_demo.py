"""`make demo`, interrupted at bad moments: nothing may be left running. To its end it goes in `test_wheel.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "pilotlight.cli.main", "demo"]
TEMPORARY = Path("/tmp")


def leftovers(before: set[str]) -> dict[str, object]:
    """Processes, folders and shared memory of a demo: everything it starts carries its folder in its environment."""
    processes = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"PILOTLIGHT_STATE_DIR=/tmp/pilotlight-" in environ:
                processes[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
    folders = sorted(str(path) for path in TEMPORARY.glob("pilotlight-*") if str(path) not in before)
    memory = sorted(name for name in os.listdir("/dev/shm") if name.startswith("plr"))
    return {"processes": processes, "folders": folders, "shared memory": memory}


def folders_now() -> set[str]:
    return {str(path) for path in TEMPORARY.glob("pilotlight-*")}


@pytest.mark.parametrize("shown", ["starting Postgres", "rehearsing", "deployed at", "phase by phase", "nobody calls"])
def test_ctrl_c_leaves_nothing_behind(shown: str) -> None:
    before = folders_now()
    process = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if shown in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    begin = time.monotonic()
    output += process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert time.monotonic() - begin < 20
    assert not any(leftovers(before).values()), leftovers(before)
