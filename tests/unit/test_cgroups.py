"""What a process may use: limits of both kinds of cgroups, wherever in the tree they stand, laid out as kernels and
containers show them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotlight import cgroups
from pilotlight.cgroups import Limits, limits, usable_cores

GB = 1 << 30


def lay(folder: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    """A folder of /proc and the trees it speaks of, below `folder`; `@` in the mounts is that."""
    proc = folder / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(mounts.replace("@", str(folder)))
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return proc


TWO = "35 24 0:30 / @/cg rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
ONE = (
    "40 32 0:35 / @/cg/memory rw shared:16 - cgroup cgroup rw,memory\n"
    "41 32 0:36 / @/cg/cpu rw shared:17 - cgroup cgroup rw,cpu,cpuacct\n"
    "42 32 0:37 / @/cg/unified rw - cgroup2 cgroup2 rw\n"
)
NONE = str(0x7FFFFFFFFFFFF000)

CASES = {
    "systemd unit, MemoryMax and CPUQuota": (
        "0::/system.slice/pilotlight.service\n",
        TWO,
        {
            "cg/system.slice/memory.max": "max\n",
            "cg/system.slice/pilotlight.service/memory.max": f"{4 * GB}\n",
            "cg/system.slice/pilotlight.service/memory.current": f"{3 * GB}\n",
            "cg/system.slice/pilotlight.service/memory.stat": f"anon 5\ninactive_file {GB}\n",
            "cg/system.slice/pilotlight.service/cpu.max": "150000 100000\n",
        },
        Limits(4 * GB, 2 * GB, 1.5),
    ),
    "only a parent is limited": (
        "0::/user.slice/user-1000.slice/session-3.scope\n",
        TWO,
        {
            "cg/user.slice/user-1000.slice/memory.max": f"{2 * GB}\n",
            "cg/user.slice/user-1000.slice/memory.high": f"{GB}\n",
            "cg/user.slice/user-1000.slice/session-3.scope/memory.max": f"{8 * GB}\n",
            "cg/user.slice/cpu.max": "max 100000\n",
        },
        Limits(GB, None, None),
    ),
    "a container with a namespace of its own": (
        "0::/\n",
        TWO,
        {"cg/memory.max": f"{GB}\n", "cg/cpu.max": "50000 100000\n", "cg/memory.current": "5\n"},
        Limits(GB, 5, 0.5),
    ),
    "a container without one, version 1": (
        "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
        ONE.replace(" / ", " /docker/abc "),
        {
            "cg/memory/memory.limit_in_bytes": f"{3 * GB}\n",
            "cg/memory/memory.usage_in_bytes": f"{2 * GB}\n",
            "cg/memory/memory.stat": f"total_inactive_file {GB}\n",
            "cg/cpu/cpu.cfs_quota_us": "200000\n",
            "cg/cpu/cpu.cfs_period_us": "100000\n",
        },
        Limits(3 * GB, GB, 2.0),
    ),
    "version 1, nothing limited": (
        "5:memory:/\n4:cpu,cpuacct:/\n0::/\n",
        ONE,
        {
            "cg/memory/memory.limit_in_bytes": f"{NONE}\n",
            "cg/cpu/cpu.cfs_quota_us": "-1\n",
            "cg/cpu/cpu.cfs_period_us": "100000\n",
        },
        Limits(None, None, None),
    ),
    "a group outside of what is mounted": (
        "0::/../other\n",
        TWO.replace(" / ", " /mine "),
        {"cg/memory.max": f"{GB}\n"},
        Limits(GB, None, None),
    ),
    "a mount point with a blank": (
        "0::/a\n",
        TWO.replace("@/cg", "@/c\\040g"),
        {"c g/a/memory.max": "7\n"},
        Limits(7, None, None),
    ),
    "no cgroups": ("", "", {}, Limits(None, None, None)),
    "nonsense": (
        "nonsense\n\n:::\n",
        "x - cgroup2\n1 2 3 / @/cg - cgroup2 a b\n",
        {"cg/cpu.max": "1\n", "cg/memory.max": "\n"},
        Limits(None, None, None),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_narrowest_holds(tmp_path: Path, name: str) -> None:
    cgroup, mounts, files, wanted = CASES[name]
    assert limits(lay(tmp_path, cgroup, mounts, files)) == wanted


@pytest.mark.parametrize(
    ("allowed", "quota", "threads"),
    [(8, None, 8), (1, None, 1), (8, 2.0, 2), (8, 1.5, 1), (8, 0.25, 1), (2, 64.0, 2), (4, 2.9999, 3)],
)
def test_as_many_threads_as_can_run(allowed: int, quota: float | None, threads: int) -> None:
    assert usable_cores(allowed, quota) == threads


def test_this_machine_answers() -> None:
    assert cgroups.memory_bytes() > 1 << 20
    assert cgroups.cores() >= 1
