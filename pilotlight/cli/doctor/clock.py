"""What `doctor` can tell of this machine's clock: certificates, the expiry of keys, and bills go by it.

No clock is right by itself, so it is compared with what there is:

    1. what was written on this disk before now, which is not later than now
    2. the clock of a Postgres of the operator's, by which keys expire
    3. the kernel's word on whether something keeps the clock in time

A container without a Postgres elsewhere may have none of these. Then that is said, and nothing is wrong.
"""

from __future__ import annotations

import asyncio
import ctypes
import time
from pathlib import Path

import pilotlight
from pilotlight.cli.findings import Finding
from pilotlight.settings import Paths, Settings

SLACK_SECONDS = 60.0  # a file system's clock may run ahead of ours for a moment
APART_SECONDS = 5.0
TIME_ERROR = 5  # of adjtimex(2): not synchronised
REMEDY = (
    "set the clock and keep it in time (timedatectl set-ntp true, or chrony): certificates, keys and bills go by it"
)
# where systemd runs the machine, it can be told to keep the clock; in a container it cannot
BOOTED = Path("/run/systemd/system")


def clock(settings: Settings) -> Finding:
    now = time.time()
    shown = f"it says {_written(now)}"
    moment, file = newest_file(settings.paths)
    if now < moment - SLACK_SECONDS:  # 1
        return Finding(False, f"{shown}, but {file} was written at {_written(moment)}", REMEDY)
    if (ahead := _ahead_of_postgres(settings)) is not None and abs(ahead) > APART_SECONDS:  # 2
        text = f"{shown}, {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the clock of Postgres"
        return Finding(False, text, f"{REMEDY}; on both machines")
    agrees = "" if ahead is None else ", as Postgres' does"
    state = kernel_state()  # 3
    if state == TIME_ERROR and BOOTED.is_dir():
        return Finding(False, f"{shown}{agrees}, and nothing keeps it in time as far as the kernel knows", REMEDY)
    if state in (TIME_ERROR, -1):
        return Finding(
            True,
            f"{shown}{agrees}; whether anything keeps it in time cannot be seen from here: the host's clock counts",
        )
    return Finding(True, f"{shown}{agrees}, kept in time as the kernel says")


def newest_file(paths: Paths) -> tuple[float, Path]:
    """(when, which) of what was written last, of our programs and in the state folder: Unix seconds."""
    files = [*Path(pilotlight.__file__).parent.glob("*.py"), paths.client, paths.policy]
    files += [file for folder in (paths.logs, paths.spool) if folder.is_dir() for file in folder.iterdir()]
    return max((file.stat().st_mtime, file) for file in files if file.exists())


def kernel_state() -> int:
    """What adjtimex(2) returns, -1 where it is not allowed. Nothing is set."""
    timex = (ctypes.c_byte * 512)()  # struct timex, which is smaller; modes 0
    try:
        return int(ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)))
    except (OSError, AttributeError):
        return -1


def _ahead_of_postgres(settings: Settings) -> float | None:
    """Seconds our clock is ahead; None where there is none but ours, or it does not answer: that is another check's
    finding.
    """
    return asyncio.run(_ask(settings.database_url)) if settings.database_url else None


async def _ask(dsn: str) -> float | None:
    from pilotlight.database.connect import REFUSALS, connect
    from pilotlight.database.errors import DatabaseError

    try:
        connection = await connect(dsn, application="doctor", timeout=5)
        before = time.time()
        theirs = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
        after = time.time()
        await connection.close()
    except (*REFUSALS, DatabaseError):
        return None
    return (before + after) / 2 - theirs


def _written(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
