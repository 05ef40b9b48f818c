"""Logs that do not fill the disk: under `pilotlight up` every log file is kept below a size, with some older ones beside it.

Processes hold their log open by a descriptor, replicas one of their endpoint: a renamed file would go on growing. So what
a file holds is copied to NAME.log.1 (NAME.log.1 having become NAME.log.2, and so on), and it is cut to nothing in place;
all of them append, so the next line is its first. A line written between the copy and the cut, microseconds, is lost.
The failure to survive is a disk too full for the copy: the log stays as it is, and is looked at again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import NoReturn

from pilotlight.cli.exits import explain_os_error, say
from pilotlight.settings import LogSettings, Paths

LOOK_SECONDS = 30.0


async def rotate_logs(paths: Paths, settings: LogSettings) -> NoReturn:
    """Of our processes, of Postgres and of all endpoints, as long as we live."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        for folder in (paths.logs, paths.endpoint_logs):
            for log in folder.glob("*.log"):
                try:
                    rotate(log, settings)
                except OSError as error:
                    say(f"pilotlight: {log} is not rotated: {explain_os_error(error)}")


def rotate(log: Path, settings: LogSettings) -> bool:
    """Whether it was time. Only the newest `max_bytes` are copied, from a whole line on. Raises OSError."""
    if log.stat().st_size <= settings.max_bytes:
        return False
    names = [log, *(log.with_name(f"{log.name}.{number}") for number in range(1, settings.old_files + 1))]
    for older, newer in zip(reversed(names[2:]), reversed(names[1:-1]), strict=True):
        with contextlib.suppress(FileNotFoundError):
            newer.replace(older)
    if settings.old_files:
        _copy(log, names[1], settings.max_bytes)
    os.truncate(log, 0)
    return True


def _copy(log: Path, target: Path, most: int) -> None:
    with log.open("rb") as source:
        if (size := os.fstat(source.fileno()).st_size) > most:
            source.seek(size - most)
            source.readline(1 << 16)
        try:
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as copy:
                shutil.copyfileobj(source, copy)
        except OSError:
            target.unlink(missing_ok=True)
            raise
