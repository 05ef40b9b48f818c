"""Which replica wrote a line of its endpoint's log, by marks that each of its processes writes first.

All replicas of an endpoint write to one file, one after the other and side by side; vLLM begins its lines with
`(EngineCore pid=7)`. So a first line `{"event": "replica process", "replica_id": …, "pid": 7}` is enough to tell them
apart (`pilotlight logs --replica`). The failure to survive is a log on a full disk: then this line is missing, and the
replica starts all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from pilotlight.parsed import json_of

EVENT = "replica process"
_PID = re.compile(rb"\bpid=(\d+)\)")


def say(replica_id: str, process: str) -> None:
    """On stdout, by the process itself."""
    mark = {
        "time": datetime.now(UTC).isoformat(),
        "event": EVENT,
        "process": process,
        "replica_id": replica_id,
        "pid": os.getpid(),
    }
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(mark).encode() + b"\n")


def of_replica(lines: Iterable[bytes], beginning: str) -> Iterator[bytes]:
    """The lines of replicas whose id begins so. One that names no process belongs to the line before it. Pure."""
    owners: dict[int, str] = {}
    owner = ""
    for line in lines:
        if said := _mark_of(line):
            owner = owners[said[0]] = said[1]
        elif found := _PID.search(line):
            owner = owners.get(int(found[1]), "")
        if owner.startswith(beginning) and owner:
            yield line


def replicas_in(lines: Iterable[bytes]) -> list[str]:
    """All that say so in a log, the newest last. Pure."""
    return list(dict.fromkeys(said[1] for line in lines if (said := _mark_of(line))))


def _mark_of(line: bytes) -> tuple[int, str] | None:
    """The pid and the replica that a first line names."""
    if not line.startswith(b"{") or EVENT.encode() not in line:
        return None
    try:
        mark = json_of(line)
        return (int(mark["pid"]), str(mark["replica_id"])) if mark["event"] == EVENT else None
    except (ValueError, KeyError, TypeError):
        return None
