"""`make demo`, interrupted at bad moments: nothing may be left running. To its end it goes in `test_wheel.py`."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from loadtests.bench.inventory import family, shared_memory
from tests.integration.system import OF_A_REPLICA, wait_until

FOLDER = re.compile(r"pilotlight-[a-z0-9_]{8}")
DEMO = [sys.executable, "-m", "pilotlight.cli.main", "demo"]


class Begun:
    """One demo. Every process that it starts has its USER, by which it is told from others on this machine."""

    def __init__(
        self, command: Sequence[str] = DEMO, *, environ: Mapping[str, str] = os.environ, folder: Path | None = None
    ) -> None:
        self.before = traces()
        self.user = f"demo-{secrets.token_hex(4)}"
        self.process = subprocess.Popen(
            command,
            env={**environ, "USER": self.user},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def processes(self) -> dict[int, str]:
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environ = (entry / "environ").read_bytes()
                    if f"USER={self.user}".encode() in environ.split(b"\0"):
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
                except OSError:
                    continue
        return found

    def leaves_nothing(self) -> None:
        """Another demo's traces are nobody's for a moment, at its begin and its end: ours would stay."""
        assert not self.processes(), self.processes()
        wait_until(lambda: not traces() - self.before, 30, "no folder and no shared memory is left")


def traces() -> set[str]:
    """Folders of demos that no living process names, and shared memory of replicas that none has."""
    folders = {str(path) for path in Path("/tmp").iterdir() if FOLDER.fullmatch(path.name) and not family(path)}
    return folders | {name for name in shared_memory(()) if OF_A_REPLICA.match(name)}


@pytest.mark.parametrize("shown", ["starting Postgres", "rehearsing", "deployed at", "phase by phase", "nobody calls"])
def test_ctrl_c_leaves_nothing_behind(shown: str) -> None:
    demo = Begun()
    assert demo.process.stdout is not None
    output = ""
    for line in demo.process.stdout:
        output += line
        if shown in line:
            os.killpg(demo.process.pid, signal.SIGINT)
            break
    output += demo.process.communicate(timeout=120)[0]
    assert demo.process.returncode == 130, output
    demo.leaves_nothing()
