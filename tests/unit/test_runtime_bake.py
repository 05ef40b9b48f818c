"""Baked copies: a plan without holes, a file that is whole or absent, and no copy taken for what it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.loader import bake
from snapshots.safetensors_header import read_header
from tests.model_folders import no_file_larger_than

shapes = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12)


def tensors(sizes: list[tuple[int, int]]) -> list[tuple[str, str, tuple[int, ...], int]]:
    return [(f"layer.{number}.weight", "BF16", size, size[0] * size[1] * 2) for number, size in enumerate(sizes)]


@given(sizes=shapes)
def test_a_plan_has_no_holes_and_aligns_what_it_can(sizes: list[tuple[int, int]]) -> None:
    layout = bake.plan(tensors(sizes))
    assert len(layout.header) % bake.PAGE == 0
    begin = len(layout.header)
    for piece in layout.pieces:
        assert piece.begin == begin
        begin += piece.size
    assert layout.size == begin
    assert sorted(piece.name for piece in layout.pieces) == sorted(name for name, *_ in tensors(sizes))
    assert all(piece.begin % bake.ALIGNMENT == 0 for piece in layout.pieces if piece.size % bake.ALIGNMENT == 0)


def baked(folder: Path, sizes: list[tuple[int, int]]) -> tuple[Path, bake.Layout]:
    layout, file = bake.plan(tensors(sizes)), folder / "c" / "key.safetensors"
    file.parent.mkdir()
    baking = bake.Baking(file, layout)
    for number, piece in enumerate(layout.pieces):
        baking.map[piece.begin : piece.begin + piece.size] = bytes([number % 251]) * piece.size
    assert not bake.usable(file)
    baking.finish()
    return file, layout


def test_what_is_written_is_valid_safetensors_and_reads_back(tmp_path: Path) -> None:
    file, layout = baked(tmp_path, [(3, 5), (8, 8), (1, 1)])
    assert bake.usable(file)
    assert bake.read_layout(file).pieces == layout.pieces
    assert {tensor.name: (tensor.begin, tensor.end) for tensor in read_header(file).tensors} == {
        piece.name: (piece.begin, piece.begin + piece.size) for piece in layout.pieces
    }


def test_a_touched_copy_is_not_used(tmp_path: Path) -> None:
    file, _ = baked(tmp_path, [(8, 8)])
    with file.open("r+b") as opened:
        opened.seek(-1, 2)
        opened.write(b"\xff")
    assert not bake.usable(file)


def test_a_copy_is_trusted_while_this_boot_lasts_and_once_sealed_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = baked(tmp_path, [(8, 8)])
    monkeypatch.setattr(bake, "boot_id", lambda: "another boot")
    assert not bake.usable(file)
    bake.seal(file)  # what another boot wrote is not made good by syncing it
    assert not bake.usable(file)
    monkeypatch.undo()
    bake.seal(file)
    monkeypatch.setattr(bake, "boot_id", lambda: "another boot")
    assert bake.usable(file) and bake.sealed(file)
    assert sorted(entry.suffix for entry in file.parent.iterdir()) == [".safetensors", ".stamp"]


def test_a_copy_without_room_or_given_up_leaves_nothing(tmp_path: Path) -> None:
    layout = bake.plan(tensors([(800, 800), (4, 4)]))
    file = tmp_path / "key.safetensors"
    with no_file_larger_than(layout.size - 1), pytest.raises(OSError, match="large"):
        bake.Baking(file, layout)
    assert list(tmp_path.iterdir()) == []
    bake.Baking(file, layout).drop()
    assert list(tmp_path.iterdir()) == []
    assert not bake.usable(file)


def test_missing_left_over_and_misshapen_are_errors(tmp_path: Path) -> None:
    _, layout = baked(tmp_path, [(3, 5), (8, 8)])
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "layer.0.weight": ("BF16", (3, 5)),
        "layer.1.weight": ("BF16", (8, 8)),
    }
    assert set(bake.match(layout, wanted)) == set(wanted)
    with pytest.raises(bake.BakeError, match="lacks other"):
        bake.match(layout, wanted | {"other": ("BF16", (1,))})
    with pytest.raises(bake.BakeError, match=r"layer\.1\.weight.*which the model has not"):
        bake.match(layout, {"layer.0.weight": ("BF16", (3, 5))})
    with pytest.raises(bake.BakeError, match=r"layer\.0\.weight is BF16 \(3, 5\)"):
        bake.match(layout, wanted | {"layer.0.weight": ("BF16", (5, 3))})


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 16, (20).to_bytes(8, "little") + json.dumps({"a": {"dtype": "BF16"}}).encode()]
)
def test_what_is_no_copy_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(bake.BakeError):
        bake.read_layout(file)


def test_the_key_depends_on_every_part() -> None:
    parts: dict[str, str | int] = {"engine": "0.32.0", "dtype": "bf16", "rank": 0}
    layout = bake.plan(tensors([(3, 5), (8, 8)]))
    keys = {bake.key(parts, layout), *(bake.key(parts | {name: "other"}, layout) for name in parts)}
    assert len(keys) == 4
    headless, reshaped = bake.plan(tensors([(3, 5)])), bake.plan(tensors([(5, 3), (8, 8)]))
    assert len({bake.key(parts, other) for other in (layout, headless, reshaped)}) == 3
    assert bake.key(parts, bake.plan(tensors([(3, 5), (8, 8)]))) == bake.key(parts, layout)
