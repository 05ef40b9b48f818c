"""Servers nobody owns any more: what a kill -9 left at work in a data folder is ended before a new one starts there.

A process belongs to a data folder when it is a `postgres` and that is its working folder. A pid file alone could name a
stranger who got the number since. A backend orphaned by the death of its postmaster counts too: it could still write.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import structlog

from pilotlight.database.errors import EmbeddedError

log = structlog.get_logger()


async def end_leftovers(data: Path) -> None:
    """Shut down the postmaster of `data`, if any, then whatever remains. Raises EmbeddedError when something will not
    go.
    """
    for number, seconds in ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        pids = _processes_in(data)
        if not pids:
            return
        log.warning(
            "ending a Postgres that was left behind", action="end_leftover", pids=sorted(pids), signal=number.name
        )
        # A fast shutdown is asked of the postmaster alone; to a backend the same signal only cancels a query.
        await asyncio.gather(
            *(_end(pid, number, seconds) for pid in pids if number != signal.SIGINT or pid == _postmaster(data))
        )
    if pids := _processes_in(data):
        raise EmbeddedError(
            f"processes {sorted(pids)} still use {data} and cannot be ended: end them, or choose another state folder (--state)"
        )


async def gone(watch: int, seconds: float | None = None) -> bool:
    """Wait until the process behind a pidfd has ended, at most `seconds`; tells whether it has."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    copy = os.dup(watch)  # the loop knows one reader a descriptor, and two may wait
    loop.add_reader(copy, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), seconds)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(copy)
        os.close(copy)
    return True


async def _end(pid: int, number: signal.Signals, seconds: float) -> None:
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(watch, number)
        await gone(watch, seconds)
    except ProcessLookupError:
        pass
    finally:
        os.close(watch)


def _postmaster(data: Path) -> int:
    try:
        return int((data / "postmaster.pid").read_text().split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return 0


def _processes_in(data: Path) -> set[int]:
    target, found = data.stat(), set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            folder = (entry / "cwd").stat()
            if (folder.st_dev, folder.st_ino) == (target.st_dev, target.st_ino) and (
                entry / "comm"
            ).read_text().strip() == "postgres":
                found.add(int(entry.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found
