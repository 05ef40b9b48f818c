"""What replicas take of a node's memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from runtime.node.sizing import held_bytes, held_in, needed, node_memory, own_bytes, packed_bytes


def test_what_counts_is_what_the_kernel_cannot_take() -> None:
    rollup = "Shared_Clean: 300 kB\nShared_Dirty: 20 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 90 kB\nAnonymous: 30 kB\nPrivate_Hugetlb: 4 kB\n"
    assert held_in(rollup) == 14 << 10, "neither clean pages of files nor such as the disk does not have yet"


def test_a_cache_counts_once_touched_or_not() -> None:
    assert needed(first=100, now=100, kv_cache_bytes=50, to_pack=0) == 150, "not touched yet"
    assert needed(first=100, now=140, kv_cache_bytes=50, to_pack=0) == 150, "partly"
    assert needed(first=100, now=170, kv_cache_bytes=50, to_pack=0) == 170, "it took more than that"


def test_mapped_weights_count_once_packed_or_not(tmp_path: Path) -> None:
    assert packed_bytes(tmp_path) == packed_bytes(tmp_path / "none") == 0, "nothing is mapped"
    for name, size in (("a.safetensors", 30), ("of-another-version.safetensors", 20), ("b.lock", 99)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert packed_bytes(tmp_path) == 30
    before, after = (needed(first=100, now=now, kv_cache_bytes=50, to_pack=30) for now in (100, 130))
    assert before == after == 180


CODE = """
import mmap, os, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
assert sum(mapped[::4096]) >= 0
held = bytearray(os.urandom(1)) * (32 << 20)
if os.fork() == 0:
    held[: 16 << 20] = bytes(16 << 20)
print(1, flush=True)
sys.stdin.read()
"""


def test_all_processes_of_a_session_are_weighed_together_and_a_forks_parent_with_what_they_share(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mapped"
    file.write_bytes(bytes(64 << 20))
    child = subprocess.Popen(
        [sys.executable, "-c", CODE, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin and child.stdout
    with child:
        assert child.stdout.readline() + child.stdout.readline() == b"1\n1\n"
        held, own = held_bytes([child.pid, 2**31]), own_bytes([child.pid, 2**31])
        child.stdin.close()
    assert 32 << 20 <= held[child.pid] < 64 << 20, "16 MiB each, and no page of the file"
    assert held[2**31] == 0 and own.keys() == {child.pid}
    assert 32 << 20 <= own[child.pid] < 64 << 20, "with the 16 MiB its fork has not written to"


def test_the_memory_of_a_node_is_at_most_the_machines() -> None:
    assert 1 << 20 < node_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
