"""Logs that do not fill the disk: under `pilotlight up` each has a largest size, and so have all of them together.

Processes hold their log open by a descriptor, replicas one of their endpoint: a renamed file would go on growing. So
the content of a file is copied to NAME.log.1, after NAME.log.1 has become NAME.log.2, and so on. Then the file is cut
to nothing in place; all processes append, so the next line is its first. A line written between the copy and the cut,
microseconds, is lost. The failure to survive is a disk too full for the copy: the log stays, and is looked at again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from pilotlight.cli.exit_codes import explain_os_error, say
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
        try:
            bound((paths.logs, paths.endpoint_logs), settings.total_bytes)
        except OSError as error:
            say(f"pilotlight: logs are not kept below logs.total_bytes: {explain_os_error(error)}")


def bound(folders: Iterable[Path], most: int) -> list[Path]:
    """Keep all logs together below `most` bytes. Returns what was removed or cut. Raises OSError."""
    found = [file for folder in folders for file in folder.iterdir() if ".log" in file.suffixes and file.is_file()]
    states = {file: file.stat() for file in found}
    chosen = too_many([(file, state.st_size, state.st_mtime) for file, state in states.items()], most)
    for file in chosen:
        if file.suffix == ".log":
            os.truncate(file, 0)  # its process holds it
        else:
            file.unlink()
    return chosen


def too_many(logs: Iterable[tuple[Path, int, float]], most: int) -> list[Path]:
    """Of logs with their sizes and times, what must go: the oldest of those that are kept beside, then the largest of
    the others. Pure.
    """
    logs = list(logs)
    total = sum(size for _, size, _ in logs)
    kept = sorted((log for log in logs if log[0].suffix != ".log"), key=lambda log: log[2])
    written = sorted((log for log in logs if log[0].suffix == ".log"), key=lambda log: -log[1])
    chosen = []
    for file, size, _ in (*kept, *written):
        if total <= most:
            break
        chosen.append(file)
        total -= size
    return chosen


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
