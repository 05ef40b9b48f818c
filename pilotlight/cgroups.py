"""What this process may use of its machine: the limits of its cgroups, old and new, and the cores it may run on.

A container, a systemd unit or a `taskset` has less than the machine, and the usual questions to the kernel do not show
it. Memory over the limit is taken by killing, time over the quota by standing still. The failures to survive: version
1, version 2 and both at once, a limit that only a parent has, and files that are not there. A container may also see
its own part of the tree as the root.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What the cgroups of this process allow; None where they set no limit."""

    memory_bytes: int | None  # None: no cgroup limits it
    used_bytes: int | None  # of that, without what the kernel can take back
    cores: float | None  # processor seconds a second


def limits(proc: Path = Path("/proc/self")) -> Limits:
    """The narrowest of all that hold for a process. `proc`: its folder in /proc."""
    memory: list[tuple[int, Path]] = []
    cores: list[float] = []
    for folder in _folders(proc):
        memory += [(size, folder) for size in _memory(folder)]
        cores += _cores(folder)
    least = min(memory, default=None)
    return Limits(least and least[0], _used(least[1]) if least else None, min(cores, default=None))


def memory_bytes() -> int:
    """Of the machine, or of what we may use of it where that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, limits().memory_bytes or machine)


def cores() -> int:
    """Threads that can compute at once: at least one. A quota of one and a half lets two threads stand still for a
    quarter of the time.
    """
    return usable_cores(len(os.sched_getaffinity(0)), limits().cores)


def usable_cores(allowed: int, quota: float | None) -> int:
    """Pure."""
    return max(1, min(allowed, math.floor(quota + 0.01) if quota is not None else allowed))


def _folders(proc: Path) -> Iterator[Path]:
    """The folder of our cgroup in every tree that is mounted, and those above it."""
    ours = _ours(proc)
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _source, options = [*after.split(" "), "", ""][:3]
        if kind not in ("cgroup", "cgroup2") or len(before.split(" ")) < 5:
            continue
        root, point = (field.replace("\\040", " ") for field in before.split(" ")[3:5])
        names = [""] if kind == "cgroup2" else [name for name in options.split(",") if name in ("memory", "cpu")]
        for name in names:
            if name in ours:
                yield from _upwards(Path(point), ours[name], root)


def _ours(proc: Path) -> dict[str, str]:
    """Our path by controller; of the new tree under ""."""
    found: dict[str, str] = {}
    for line in _lines(proc / "cgroup"):
        _number, controllers, path = [*line.split(":", 2), "", ""][:3]
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _upwards(point: Path, path: str, root: str) -> Iterator[Path]:
    """A mount may show a part of the tree only: then what is above cannot be seen, and the mount itself is what holds
    for us.
    """
    below = path.removeprefix(root.rstrip("/")) if path == root or path.startswith(root.rstrip("/") + "/") else ""
    parts = [part for part in below.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield point.joinpath(*parts[:length])


def _memory(folder: Path) -> list[int]:
    """Limits of memory that stand in a folder, in bytes. Above a quarter of all addresses a number says: none."""
    found = [_number(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    return [size for size in found if size is not None and size < 1 << 62]


def _cores(folder: Path) -> list[float]:
    quota, period = [*(_lines(folder / "cpu.max") or [""])[0].split(), "", ""][:2]
    if not period:
        quota, period = (str(_number(folder / f"cpu.cfs_{name}_us") or "") for name in ("quota", "period"))
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return []  # "max", -1, or no such files
    return [int(quota) / int(period)]


def _used(folder: Path) -> int | None:
    used = _number(folder / "memory.current")
    used = used if used is not None else _number(folder / "memory.usage_in_bytes")
    if used is None:
        return None
    counted = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat") if " " in line)
    return max(0, used - int(counted.get("total_inactive_file", counted.get("inactive_file", "0"))))


def _number(file: Path) -> int | None:
    lines = _lines(file)
    try:
        return int(lines[0])
    except (IndexError, ValueError):  # no such file, or "max"
        return None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
