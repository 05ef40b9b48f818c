"""Baked copies: a model's weights as the engine wants them after fusing, laid out to be mapped. Step 9, phase `load`.

A copy is written at a revision's first boot beside the snapshot, under a key of everything that decides whether the
bytes fit an engine. It is still valid safetensors. Planning is pure: names, order, offsets and sizes come from shapes
alone. The data begins on a page, every tensor on 64 bytes, without holes, which the format forbids. What is not a
multiple of 64 goes last.

The engine's own loaders write each weight where it will be mapped from (`Baking`), so nothing is copied twice. A copy
is complete or absent. It is written aside and renamed when every weight is in it. Its space is taken from the disk
first, so that a full disk is an error and not a signal. It is remembered with its inode, size and times: one that was
touched since is not used. Nobody waits for its sync. Until `seal` it is trusted only while this boot of the machine
lasts, which kill -9 does not end and power loss does. A full disk costs the copy, not the boot.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pilotlight.files import populate, sync_folder, write_atomic
from pilotlight.parsed import json_of
from pilotlight.processes import boot_id
from snapshots.singleflight import alone

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
    """Where each parameter lies in a baked copy. Offsets and sizes in bytes."""

    header: bytes  # length, JSON and padding: all that comes before the data
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(piece.size for piece in self.pieces)


class BakeError(ValueError):
    """A baked copy does not hold exactly what the model needs; the text names the difference."""


def plan(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> Layout:
    """Lay out (name, dtype, shape, bytes) in the order given, which is the order of use; sizes off the alignment go
    last.
    """
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


def key(parts: Mapping[str, str | int], layout: Layout) -> str:
    """The compatibility key: engine version, architecture, dtype, parallelism, device kind, CPU instruction set, and
    every tensor's name, type and shape, as 16 hex digits.
    """
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode() + layout.header).hexdigest()[:16]


class Baking:
    """A copy being written. Nobody else may write the same one (`lock_of`)."""

    def __init__(self, file: Path, layout: Layout) -> None:
        """Take its space. Raises OSError (a full disk), after which nothing is left."""
        self._file, self._temporary = file, file.with_suffix(".new")
        try:
            with self._temporary.open("w+b") as out:
                os.posix_fallocate(out.fileno(), 0, layout.size)
                out.write(layout.header)
                out.flush()
                self.map = mmap.mmap(out.fileno(), layout.size)
                populate(self.map, 0, layout.size)
        except OSError:
            self.drop()
            raise

    def finish(self) -> None:
        """Every weight is in it: from now on it is usable, for as long as this boot lasts. Raises OSError."""
        self._temporary.replace(self._file)
        stamp = stamp_of(self._file)
        fresh = stamp.with_suffix(".stamp.new")
        fresh.write_text(f"{state_of(self._file)} {boot_id()}")
        fresh.replace(stamp)

    def drop(self) -> None:
        self._temporary.unlink(missing_ok=True)


def lock_of(file: Path) -> Path:
    """Of all who want this copy and do not find it, one bakes and the others wait (`snapshots/singleflight.py`)."""
    return file.with_suffix(".lock")


def seal(file: Path) -> None:
    """Make a copy durable, and then trusted for ever. Raises OSError."""
    with alone(lock_of(file)):
        if sealed(file) or not usable(file):
            return  # somebody else was faster, or it is gone
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        sync_folder(file.parent)
        write_atomic(stamp_of(file), state_of(file).encode())


def usable(file: Path) -> bool:
    """Is there a copy, in the state it was written in?"""
    try:
        return stamp_of(file).read_text() in (state := state_of(file), f"{state} {boot_id()}")
    except FileNotFoundError:
        return False


def sealed(file: Path) -> bool:
    """Is it durable too?"""
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
        table = json_of(text)
        start = LENGTH_BYTES + length
        found = [
            (name, entry["dtype"], tuple(entry["shape"]), entry["data_offsets"])
            for name, entry in table.items()
            if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise BakeError(f"{file.name} is not a baked copy: {error}") from error
    pieces = tuple(Piece(name, dtype, shape, start + begin, end - begin) for name, dtype, shape, (begin, end) in found)
    layout = Layout(LENGTH_BYTES * b"\0" + text, pieces)
    if layout.size != file.stat().st_size:
        raise BakeError(f"{file.name} has {file.stat().st_size} bytes, its header says {layout.size}")
    return layout


def match(layout: Layout, wanted: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Piece]:
    """The piece of each wanted (dtype, shape), by name. Raises BakeError for what is missing, left over, or of another
    shape.
    """
    found = {piece.name: piece for piece in layout.pieces}
    if missing := sorted(set(wanted) - set(found)):
        raise BakeError(f"the baked copy lacks {', '.join(missing[:3])} and {max(0, len(missing) - 3)} more")
    if left := sorted(set(found) - set(wanted)):
        raise BakeError(
            f"the baked copy has {', '.join(left[:3])} and {max(0, len(left) - 3)} more, which the model has not"
        )
    for name, (dtype, shape) in wanted.items():
        if (found[name].dtype, found[name].shape) != (dtype, shape):
            raise BakeError(
                f"{name} is {found[name].dtype} {found[name].shape} in the baked copy, {dtype} {shape} in the model"
            )
    return found
