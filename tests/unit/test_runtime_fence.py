"""Commands of a leader that was replaced are refused, by the next agent too."""

from __future__ import annotations

from pathlib import Path

from runtime.fence import Fence


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
