"""`pilotlight logs`: the log of an endpoint's replicas, or of one of our processes, from a moment on, and followed.

Times come from the lines. Ours are JSON with `time`. vLLM's lines have month, day and local time; the latest year that
is not in the future is meant. Postgres' have an ISO date in UTC. A line without a time belongs to the line before it.

Nothing announces what another process appends, so following looks again every FOLLOW_SECONDS. A file that shrank begins
anew. What was cut off a log (`rotation.py`) is shown before it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pilotlight.cli.options import stop
from pilotlight.settings import Paths, Settings
from runtime.serving.log_marks import of_replica, replicas_in

FOLLOW_SECONDS = 0.2
MOST_NAMED = 10  # replicas, where the one asked for is not there
CLOCK_SKEW = 86_400.0  # seconds a line may seem to be from the future before last year is meant

_JSON = re.compile(rb'"time": ?"([^"]+)"')
_ISO = re.compile(rb"^(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?)")
_VLLM = re.compile(rb"(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) (\d\d)-(\d\d) (\d\d):(\d\d):(\d\d) ")


def show_log(
    settings: Settings, name: str, *, process: bool, follow: bool, since: float | None, replica: str = ""
) -> None:
    """Of the endpoint of that name, else of the process; `process`: of that in any case. `replica`: how the id of those
    meant begins.
    """
    file = file_of(settings.paths, name, process=process)
    with contextlib.ExitStack() as opened:
        parts = [opened.enter_context(part.open("rb")) for part in parts_of(file)]
        if replica:
            _need(replica, itertools.chain.from_iterable(parts), file)
            for part in parts:
                part.seek(0)
        lines: Iterator[bytes] = itertools.chain(
            itertools.chain.from_iterable(parts), _followed(parts[-1]) if follow else ()
        )
        for line in since_moment(of_replica(lines, replica) if replica else lines, since):
            sys.stdout.buffer.write(line)
            if follow:
                sys.stdout.buffer.flush()
        sys.stdout.buffer.flush()


def _need(replica: str, lines: Iterator[bytes], file: Path) -> None:
    """Stops where no replica of that id has written there."""
    there = replicas_in(lines)
    if not any(each.startswith(replica) for each in there):
        newest = ", ".join(there[: -MOST_NAMED - 1 : -1])
        stop(f"no replica {replica} in {file}: " + (f"there are {newest}" if there else "no replica has written there"))


def since_moment(
    lines: Iterator[bytes] | BinaryIO, since: float | None, *, now: float | None = None
) -> Iterator[bytes]:
    """The lines from the first one written at that moment or later. Pure but for the default `now`."""
    shown = since is None
    for line in lines:
        if not shown and since is not None:
            moment = time_of(line, now=time.time() if now is None else now)
            shown = moment is not None and moment >= int(since)  # vLLM tells whole seconds
        if shown:
            yield line


def time_of(line: bytes, *, now: float) -> float | None:
    """Unix seconds of one line; None where it does not say."""
    if found := _VLLM.search(line):
        return _of_this_year(*(int(part) for part in found.groups()), now=now)
    if found := _JSON.search(line) or _ISO.search(line):
        try:
            moment = datetime.fromisoformat(found[1].decode())
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def _of_this_year(month: int, day: int, hour: int, minute: int, second: int, *, now: float) -> float | None:
    year = datetime.fromtimestamp(now).year
    for candidate in (year + 1, year, year - 1):
        try:
            moment = datetime(candidate, month, day, hour, minute, second).timestamp()
        except ValueError:  # 29 February
            continue
        if moment <= now + CLOCK_SKEW:
            return moment
    return None


def file_of(paths: Paths, name: str, *, process: bool) -> Path:
    folders = [paths.logs] if process else [paths.endpoint_logs, paths.logs]
    found = [folder / f"{name}.log" for folder in folders if (folder / f"{name}.log").is_file()]
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or not found:
        there = ", ".join(path.stem for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.log")))
        rest = f"there are {there}; an endpoint has a log after its first start" if there else "nothing has run yet"
        stop(f"no log of {name} in {paths.logs}: {rest}")
    return found[0]


def parts_of(file: Path) -> list[Path]:
    """The log with what was cut off it, oldest first: NAME.log.2, NAME.log.1, NAME.log."""
    numbered = [part for part in file.parent.glob(f"{file.name}.*") if part.suffix[1:].isdecimal()]
    return [*sorted(numbered, key=lambda part: -int(part.suffix[1:])), file]


def _followed(log: BinaryIO) -> Iterator[bytes]:
    """What is written from now on, as lines, each once it is whole or nothing follows it for a moment. For ever."""
    begun = b""
    while True:
        if piece := log.readline():
            begun += piece
            if begun.endswith(b"\n"):
                yield begun
                begun = b""
            continue
        if begun:
            yield begun
            begun = b""
        time.sleep(FOLLOW_SECONDS)
        if os.fstat(log.fileno()).st_size < log.tell():
            log.seek(0)
