"""A file is the old one or the new one, never a part, and no temporary stays."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilotlight.files import write_atomic, write_once


def test_replaced_with_the_mode_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomic(file, b"one")
    assert file.stat().st_mode & 0o777 == 0o600
    before = os.umask(0o077)
    try:
        write_atomic(file, b"two", mode=0o644)
    finally:
        os.umask(before)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"two", 0o644)
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_keeps_the_old(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "folder", b"x")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_of_many_who_make_it_one_wins(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with ThreadPoolExecutor(8) as threads:
        got = set(threads.map(lambda number: write_once(file, b"%d" % number), range(32)))
    assert got == {file.read_bytes()}
    assert list(tmp_path.iterdir()) == [file]
