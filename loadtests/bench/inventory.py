"""What an installation holds of the machine: its processes, their descriptors and memory, its sockets, its shared memory.

Taken twice, the difference is what was left between. Memory is the proportional set (PSS) and the private pages of
`smaps_rollup`: PSS shares a page among those that map it, so that a sum counts it once.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROLES = (  # the first that is in the command line
    ("runtime.standby", "standby"),
    ("-m runtime", "agent"),
    ("-m activator", "activator"),
    ("-m router.ledger", "ledger"),
    ("-m router.admin", "admin"),
    ("-m router.worker", "router worker"),
    ("-m router", "router"),
    ("pilotlight.cli.up", "up"),  # what `pilotlight up` becomes
    ("postgres", "postgres"),
)
UNSTEADY = ("postgres", "up")  # connections come and go in its pools; and where we are `up` ourselves, we count nobody


class Memory(NamedTuple):
    """In bytes."""

    pss: int
    private: int


@dataclass(frozen=True)
class Inventory:
    processes: Counter[str]  # by role; "other": replicas
    descriptors: Counter[str]  # by role
    sockets: frozenset[str]
    shared_memory: frozenset[str]  # names of ours in /dev/shm
    standby: Memory

    def left_since(self, before: Inventory) -> dict[str, object]:
        """What there is now and was not then, by kind; empty where nothing was left."""
        grown = {
            "processes": dict(self.processes - before.processes),
            "descriptors": dict(self.descriptors - before.descriptors),
            "sockets": sorted(self.sockets - before.sockets),
            "shared memory": sorted(self.shared_memory - before.shared_memory),
        }
        return {kind: found for kind, found in grown.items() if found}


def take(state: Path, roots: Iterable[int] = ()) -> Inventory:
    """Of the installation on this state folder; `roots`: processes whose descendants are counted beside those that name it."""
    processes: Counter[str] = Counter()
    descriptors: Counter[str] = Counter()
    standby = Memory(0, 0)
    for pid, role in family(state, roots):
        try:
            if role not in UNSTEADY:
                processes[role] += 1
                descriptors[role] += len(os.listdir(f"/proc/{pid}/fd"))
            if role == "standby":
                standby = Memory(*map(sum, zip(standby, memory_of(pid), strict=True)))
        except OSError:
            continue  # it ended meanwhile
    sockets = frozenset(str(path.relative_to(state)) for path in state.rglob("*") if path.is_socket())
    return Inventory(processes, descriptors, sockets, frozenset(name for name in os.listdir("/dev/shm") if name.startswith("pl")), standby)


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
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
    return next((role for words, role in ROLES if words in line), "other") if line else ""


def memory_of(pid: int) -> Memory:
    """Raises OSError where the process is gone."""
    found: Counter[str] = Counter()
    for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = row.split()
        found[name.rstrip(":")] = int(value) << 10
    return Memory(found["Pss"], found["Private_Clean"] + found["Private_Dirty"])
