"""`make setup` and `make demo` in a fresh clone with an empty package cache, as a newcomer has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def measure() -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="pl-fresh-", dir="/tmp"))
    folder.chmod(0o755)
    clone = folder / "pilotlight"
    environ = os.environ | {"UV_CACHE_DIR": str(folder / "cache"), "PIP_NO_CACHE_DIR": "1"}
    try:
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        return {
            "set-up with an empty cache, s": _timed("setup", clone, environ),
            "set-up again, s": _timed("setup", clone, environ),
            "make demo, s": _timed("demo", clone, environ),
            "make demo again, s": _timed("demo", clone, environ),
            "processes left": len(_processes(clone)),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _timed(verb: str, clone: Path, environ: dict[str, str]) -> float:
    """Seconds one make verb takes. Raises CalledProcessError when it fails."""
    begin = time.monotonic()
    subprocess.run(["make", "-s", verb], cwd=clone, env=environ, check=True, stdout=subprocess.DEVNULL)
    return round(time.monotonic() - begin, 2)


def _processes(clone: Path) -> list[str]:
    """What still runs from the clone's own environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(clone).encode() in line:
                found.append(line.decode())
    return found
