"""Commands of a leader that was replaced are refused, by the next agent too."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.epoch_file import HALF, keep
from runtime.node.fence import Fence
from tests.small_disks import fill, small_disk


def test_lower_is_refused_and_equal_is_not(tmp_path: Path) -> None:
    fence = Fence(tmp_path / "fence")
    assert fence.admit((2, 5)) and fence.admit((2, 5)) and fence.admit((2, 6))
    assert not fence.admit((2, 5)) and not fence.admit((1, 99))
    assert fence.highest == (2, 6)


def test_an_epoch_outlives_the_agent(tmp_path: Path) -> None:
    Fence(tmp_path / "fence").admit((3, 7))
    again = Fence(tmp_path / "fence")
    assert not again.admit((2, 99))
    assert again.admit((3, 1))


def test_a_file_that_cannot_be_read_is_no_fence(tmp_path: Path) -> None:
    (tmp_path / "fence").write_text("rubbish")
    assert Fence(tmp_path / "fence").admit((1, 1))


def broken(file: Path, epoch: int) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with small_disk(tmp_path / "small", 256 << 10) as folder:
        yield folder


def test_a_new_epoch_is_kept_on_a_full_disk(small: Path) -> None:
    fence = Fence(small / "fence")
    fill(small)
    for epoch in range(1, 9):
        assert fence.admit((epoch, 1))
        assert Fence(small / "fence").highest == (epoch, 0)
    assert not Fence(small / "fence").admit((7, 99))


def test_a_fence_of_the_release_before_counts_where_there_is_no_room_for_ours(small: Path) -> None:
    (small / "fence").write_text("5 0")
    fill(small)
    fence = Fence(small / "fence")
    assert not fence.admit((4, 9)) and fence.admit((6, 1)) and not fence.admit((5, 9))
    (small / "fill").unlink()
    fence.retry()
    assert not Fence(small / "fence").admit((5, 99)) and Fence(small / "fence").admit((6, 1))


def test_a_disk_that_takes_nothing_costs_no_command_and_is_written_when_it_does(tmp_path: Path) -> None:
    Fence(tmp_path / "fence").admit((3, 1))
    writes = [broken, broken, broken, keep]
    fence = Fence(tmp_path / "fence", write=lambda file, epoch: writes.pop(0)(file, epoch))
    assert fence.admit((4, 1)) and not fence.admit((3, 9))
    assert Fence(tmp_path / "fence").highest == (3, 0)
    for _ in range(3):
        fence.retry()
    assert Fence(tmp_path / "fence").highest == (4, 0) and not writes


@pytest.mark.parametrize("cut", [0, 1, 7, 20, HALF])
def test_a_write_that_was_cut_off_leaves_the_epoch_before(tmp_path: Path, cut: int) -> None:
    fence = Fence(tmp_path / "fence")
    for epoch in (8, 9):
        fence.admit((epoch, 1))
    before, _ = (tmp_path / "fence").read_bytes(), fence.admit((10, 1))
    after = (tmp_path / "fence").read_bytes()
    begin = next(at for at in (0, HALF) if before[at : at + HALF] != after[at : at + HALF])
    torn = before[:begin] + after[begin : begin + cut] + before[begin + cut :]
    (tmp_path / "fence").write_bytes(torn)
    assert Fence(tmp_path / "fence").highest[0] in ((9, 10) if cut >= len(b"epoch 10 01234567\n") else (9,))
