"""What an installation holds of the machine: its processes, their descriptors and memory, its sockets, its shared
memory.

Taken twice, the difference is what was left between. Shared memory is all there is but what processes of others have
open, by whatever name, since what was left behind belongs to nobody. Of Postgres its own processes count, and backends
beyond those that our pools may open and close as they like. A standby that was replaced is a difference: it would start
small again. Memory is the proportional set (PSS) and the private pages of `smaps_rollup`. PSS shares a page among those
that map it, so a sum counts it once.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runtime.reap import Identity

ROLES = (  # the first that is in the command line
    ("runtime.fork.standby", "standby"),
    ("-m runtime", "agent"),
    ("-m activator", "activator"),
    ("-m router.ledger", "ledger"),
    ("-m router.admin", "admin"),
    ("-m router.worker", "router worker"),
    ("-m router", "router"),
    ("pilotlight.cli.up.installation", "up"),  # what `pilotlight up` becomes
    ("postgres", "postgres"),
)
POSTGRES_BACKEND, POSTGRES_WORKER = "postgres backend", "postgres worker"
POOLED_BACKENDS = (
    15  # connections that the pools of activator, ledger and admin, and their listeners, may have at a time
)
SHARED_MEMORY = Path("/dev/shm")
# a line of `maps`, and what a descriptor leads to
IN_SHARED_MEMORY = re.compile(rf"(?: |^){SHARED_MEMORY}/(.+)$", re.MULTILINE)


class Memory(NamedTuple):
    """In bytes."""

    pss: int
    private: int


@dataclass(frozen=True)
class Inventory:
    processes: Counter[str]  # by role; "other": replicas
    descriptors: Counter[str]  # by role
    sockets: frozenset[str]
    shared_memory: frozenset[str]  # names in /dev/shm that nobody else has open or mapped
    standby: Memory
    standbys: frozenset[Identity] = frozenset()

    def left_since(self, before: Inventory) -> dict[str, object]:
        """What there is now and was not then, by kind; empty where nothing was left, and the standbys are still the
        same.
        """
        grown: dict[str, object] = {
            "processes": dict(self.processes - before.processes),
            "descriptors": dict(self.descriptors - before.descriptors),
            "sockets": sorted(self.sockets - before.sockets),
            "shared memory": sorted(self.shared_memory - before.shared_memory),
            "standbys that come or go": sorted(standby.pid for standby in self.standbys ^ before.standbys),
        }
        return {kind: found for kind, found in grown.items() if found}


def inventory_of(state: Path, roots: Iterable[int] = ()) -> Inventory:
    """Of the installation on this state folder; `roots`: processes whose descendants are counted beside those that name
    it.
    """
    processes: Counter[str] = Counter()
    descriptors: Counter[str] = Counter()
    standby, standbys = Memory(0, 0), set[Identity]()
    ours = [
        (pid, role if role != "postgres" else postgres_role(pid))
        for pid, role in family(state, {*roots, *_postmaster(state)})
    ]
    for pid, role in ours:
        try:
            if role in (POSTGRES_WORKER, ""):
                continue
            processes[role] += 1
            if not role.startswith("postgres "):  # those open and close the files of tables
                descriptors[role] += len(os.listdir(f"/proc/{pid}/fd"))
            if role == "standby" and (identity := Identity.of(pid)):
                standby = Memory(*map(sum, zip(standby, memory_of(pid), strict=True)))
                standbys.add(identity)
        except OSError:
            continue  # it ended meanwhile
    if not processes["up"]:
        descriptors["up"] = len(os.listdir("/proc/self/fd"))  # that are we
    processes[POSTGRES_BACKEND] = max(processes[POSTGRES_BACKEND], POOLED_BACKENDS)
    sockets = frozenset(str(path.relative_to(state)) for path in state.rglob("*") if path.is_socket())
    return Inventory(
        processes, descriptors, sockets, shared_memory({pid for pid, _ in ours}), standby, frozenset(standbys)
    )


def shared_memory(ours: Container[int]) -> frozenset[str]:
    """Names in /dev/shm that no living process but these and this one has open or mapped."""
    found = {str(path.relative_to(SHARED_MEMORY)) for path in SHARED_MEMORY.rglob("*") if not path.is_dir()}
    theirs: set[str] = set()
    for entry in Path("/proc").iterdir() if found else ():
        if entry.name.isdigit() and int(entry.name) not in ours and int(entry.name) != os.getpid():
            with suppress(OSError):  # it ended meanwhile, or is none of our business
                opened = [str(link.readlink()) for link in (entry / "fd").iterdir()]
                theirs.update(
                    IN_SHARED_MEMORY.findall("\n".join([(entry / "maps").read_text(errors="replace"), *opened]))
                )
    return frozenset(name for name in found - theirs if (SHARED_MEMORY / name).exists())


def _postmaster(state: Path) -> list[int]:
    """The embedded one, where it runs: a child of `up`, that may be this process, and of an environment of its own."""
    try:
        pid = int((state / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return []
    return [pid] if role_of(pid) == "postgres" else []


def postgres_role(pid: int) -> str:
    """By the title it gives itself: the postmaster, one of its own, a connection's, or a worker, which comes and goes
    by itself.
    """
    title = _command_line(pid)
    if not title.startswith("postgres: "):
        return "postgres" if title else ""
    if " worker" in title:
        return POSTGRES_WORKER
    return POSTGRES_BACKEND if re.search(r"\[local\]|\(\d+\)", title) else "postgres process"


def family(state: Path, roots: Iterable[int] = ()) -> list[tuple[int, str]]:
    """(pid, role) of the roots, of all whose environment names the state folder, and of all that descend from these."""
    parents: dict[int, int] = {}
    ours = set(roots)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat[stat.rindex(")") + 2 :].split()[1])
                if f"PILOTLIGHT_STATE_DIR={state}\0".encode() in (entry / "environ").read_bytes():
                    ours.add(int(entry.name))
            except OSError:
                continue
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return [(pid, role) for pid in sorted(ours - {os.getpid()}) if (role := role_of(pid))]


def role_of(pid: int) -> str:
    """Empty where the process is gone."""
    line = _command_line(pid)
    return next((role for words, role in ROLES if words in line), "other") if line else ""


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def memory_of(pid: int) -> Memory:
    """Raises OSError where the process is gone."""
    found: Counter[str] = Counter()
    for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = row.split()
        found[name.rstrip(":")] = int(value) << 10
    return Memory(found["Pss"], found["Private_Clean"] + found["Private_Dirty"])
