"""Before step 1: a worker that served a flood is as small afterwards as before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from router.edge.freed import FLOOD, Ebb

AS_A_FLOOD = """
import ctypes, sys
from pathlib import Path
from router.edge import freed

def private():
    return sum(int(line.split()[1]) << 10 for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if "Private_Dirty" in line)

assert sys.argv[1] == "as it is" or freed.give_back()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.free(libc.malloc(256 << 10))  # somebody was here before
before, blocks = private(), []
for _ in range(100):
    blocks.append(libc.malloc(256 << 10))
    ctypes.memset(blocks[-1], 1, 256 << 10)
    libc.malloc(3000)  # which outlives them
assert private() > before + (20 << 20)
for block in blocks:
    libc.free(block)
print(private() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_blocks_of_closed_connections_go_back_to_the_machine() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", AS_A_FLOOD, how], capture_output=True, check=True).stdout)
        for how in ("as it is", "given back")
    )
    assert given_back < 2 << 20
    assert kept > 20 << 20, "glibc does so by itself now: router/edge/freed.py has nothing left to do"


HOLES = """
import ctypes
from pathlib import Path
from router.edge import freed

def private():
    return sum(int(line.split()[1]) << 10 for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if "Private_Dirty" in line)

freed.give_back()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
before, blocks = private(), []
for _ in range(500):
    blocks.append(libc.malloc(40 << 10))
    ctypes.memset(blocks[-1], 1, 40 << 10)
    libc.malloc(3000)  # which outlives them
for block in blocks:
    libc.free(block)
kept = private() - before
assert freed.give_back_holes()
print(kept, private() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_holes_go_back_too() -> None:
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, check=True)
    kept, given_back = map(int, run.stdout.split())
    assert kept > 10 << 20 and given_back < kept // 2


def test_holes_are_looked_for_once_when_most_have_left() -> None:
    ebb = Ebb()
    found = [
        ebb.has_come(connections)
        for connections in (5, 4 * FLOOD, 3 * FLOOD, 2 * FLOOD, 2 * FLOOD, FLOOD, FLOOD, 0, 0, FLOOD - 1, 0)
    ]
    assert found == [False, False, False, False, True, False, True, False, True, False, False]
