"""Baked copies: a model's weights as the engine wants them after fusing, laid out to be mapped. Step 9, phase `load`.

Written at a revision's first boot beside the snapshot, still valid safetensors, under a key of everything that decides
whether the bytes fit an engine. Planning is pure: names, order, offsets and sizes come from shapes alone. The data begins on
a page, every tensor on 64 bytes, without holes (the format forbids them): what is no multiple of 64 goes last. A copy is
whole or absent (written aside, synced, renamed), and remembered with its inode, size and times: one that was touched since
is not used. A full disk costs the copy, not the boot.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096  # bytes
ALIGNMENT = 64  # bytes
LENGTH_BYTES = 8  # of the header's length, little-endian, before the header


@dataclass(frozen=True)
class Piece:
    """One tensor in the file: `begin` in bytes from the start of the file."""

    name: str
    dtype: str  # safetensors' name: "BF16"
    shape: tuple[int, ...]
    begin: int
    size: int


@dataclass(frozen=True)
class Layout:
    header: bytes  # length, JSON and padding: all that comes before the data
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(piece.size for piece in self.pieces)


class BakeError(ValueError):
    """A baked copy does not hold exactly what the model needs; the text names the difference."""


def plan(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> Layout:
    """Lay out (name, dtype, shape, bytes) in the order given, which is the order of use; sizes off the alignment go last."""
    asked = list(tensors)
    ordered = [item for item in asked if item[3] % ALIGNMENT == 0] + [item for item in asked if item[3] % ALIGNMENT]
    table: dict[str, object] = {"__metadata__": {"format": "pt", "pilotlight": "baked"}}
    offset = 0
    for name, dtype, shape, size in ordered:
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(table, separators=(",", ":")).encode()
    padding = -(LENGTH_BYTES + len(text)) % PAGE
    header = (len(text) + padding).to_bytes(LENGTH_BYTES, "little") + text + b" " * padding
    pieces, begin = [], len(header)
    for name, dtype, shape, size in ordered:
        pieces.append(Piece(name, dtype, shape, begin, size))
        begin += size
    return Layout(header, tuple(pieces))


def key(parts: Mapping[str, str | int]) -> str:
    """The compatibility key: engine version, architecture, dtype, parallelism, device kind, CPU instruction set, as 16 hex digits."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()[:16]


def write(file: Path, layout: Layout, data: Iterable[memoryview]) -> None:
    """Write a copy, `data` in the layout's order. Raises OSError (a full disk), after which nothing is left."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        with temporary.open("wb") as out:
            out.write(layout.header)
            for piece, view in zip(layout.pieces, data, strict=True):
                if view.nbytes != piece.size:
                    raise BakeError(f"{piece.name} has {view.nbytes} bytes, planned were {piece.size}")
                out.write(view)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    stamp_of(file).write_text(state_of(file))


def usable(file: Path) -> bool:
    """Is there a copy, in the state it was written in?"""
    try:
        return stamp_of(file).read_text() == state_of(file)
    except FileNotFoundError:
        return False


def stamp_of(file: Path) -> Path:
    return file.with_suffix(".stamp")


def state_of(file: Path) -> str:
    status = file.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def read_layout(file: Path) -> Layout:
    """The layout a file says it has. Raises BakeError where it is not one of ours."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(LENGTH_BYTES), "little")
        if length > 100 << 20:
            raise BakeError(f"{file.name} has a header of {length} bytes")
        text = opened.read(length)
    try:
        table = json.loads(text)
        start = LENGTH_BYTES + length
        found = [
            (name, entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]) for name, entry in table.items() if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise BakeError(f"{file.name} is no baked copy: {error}") from error
    pieces = tuple(Piece(name, dtype, shape, start + begin, end - begin) for name, dtype, shape, (begin, end) in found)
    layout = Layout(LENGTH_BYTES * b"\0" + text, pieces)
    if layout.size != file.stat().st_size:
        raise BakeError(f"{file.name} has {file.stat().st_size} bytes, its header says {layout.size}")
    return layout


def match(layout: Layout, wanted: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Piece]:
    """The piece of each wanted (dtype, shape), by name. Raises BakeError for what is missing, left over, or of another shape."""
    found = {piece.name: piece for piece in layout.pieces}
    if missing := sorted(set(wanted) - set(found)):
        raise BakeError(f"the baked copy lacks {', '.join(missing[:3])} and {max(0, len(missing) - 3)} more")
    if left := sorted(set(found) - set(wanted)):
        raise BakeError(f"the baked copy has {', '.join(left[:3])} and {max(0, len(left) - 3)} more, which the model has not")
    for name, (dtype, shape) in wanted.items():
        if (found[name].dtype, found[name].shape) != (dtype, shape):
            raise BakeError(f"{name} is {found[name].dtype} {found[name].shape} in the baked copy, {dtype} {shape} in the model")
    return found
