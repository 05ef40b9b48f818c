"""The header of a safetensors file, read by distrust: what it claims is checked against itself and the file's size.

Everything that maps, copies or hashes weights relies on it (steps 8 and 9). It must survive any bytes at all. Whatever
it accepts has tensors that lie inside the file, side by side, without gap or overlap. Each is exactly as large as its
dtype and shape say. Refusing costs bounded memory. It is stricter than the reference in two points: a name given twice,
and more than MOST_TENSORS tensors, are refused.

Format: 8 bytes length of the header, little-endian; the header, JSON; the data. Offsets count from the data's begin.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from snapshots.errors import HeaderError

LENGTH_BYTES = 8  # of the header's length
LONGEST_HEADER = 100_000_000  # bytes, as in the reference
MOST_TENSORS = 1_000_000
MOST_COMMAS = 16 * MOST_TENSORS  # bounds what a header without tensors may make JSON allocate
LARGEST = 2**64 - 1  # what sizes are counted in
BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the header. Offsets are bytes from the data's begin."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int  # bytes from the begin of the file
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """Tensors in the order of their data; the first begins at `data_begin`, the last ends with the file."""

    data_begin: int
    tensors: tuple[Tensor, ...]
    metadata: dict[str, str]


def read_header(file: Path) -> Header:
    """Read and check one file's header. Raises HeaderError, which names the file, and OSError."""
    with file.open("rb") as stream:
        size = file.stat().st_size
        prefix = stream.read(8)
        try:
            return parse(stream.read(header_length(prefix, size)), size)
        except HeaderError as error:
            raise HeaderError(f"{file}: {error}; get the file anew from where it came from") from None


def header_length(prefix: bytes, file_size: int) -> int:
    """How long the header is, from the file's first 8 bytes. Raises HeaderError."""
    if len(prefix) < 8:
        raise HeaderError(f"a file of {len(prefix)} bytes is not a safetensors file")
    length = int.from_bytes(prefix, "little")
    if length > LONGEST_HEADER:
        raise HeaderError(
            f"its header claims {length} bytes, more than the {LONGEST_HEADER} allowed: it is not a safetensors file"
        )
    if 8 + length > file_size:
        raise HeaderError(f"its header claims {length} bytes, the file has {file_size}: cut short")
    return length


def parse(header: bytes, file_size: int) -> Header:
    """Check a header against itself and the size of the whole file. Raises HeaderError and nothing else."""
    document = _json(header)
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderError("__metadata__ is not a table of text")
    if len(document) > MOST_TENSORS:
        raise HeaderError(f"it claims {len(document)} tensors, more than the {MOST_TENSORS} allowed")
    data_begin = 8 + len(header)
    tensors = sorted(
        (_tensor(name, entry, data_begin) for name, entry in document.items()),
        key=lambda tensor: (tensor.begin, tensor.end),
    )
    reached = data_begin
    for tensor in tensors:
        if tensor.begin != reached:
            wrong = (
                "overlaps the one before it"
                if tensor.begin < reached
                else f"leaves a hole of {tensor.begin - reached} bytes before it"
            )
            raise HeaderError(f"tensor {tensor.name[:100]!r} {wrong}")
        reached = tensor.end
    if reached != file_size:
        raise HeaderError(
            f"its tensors end at byte {reached}, the file at {file_size}: "
            + ("cut short" if reached > file_size else "data of no tensor")
        )
    return Header(data_begin, tuple(tensors), metadata)


def _json(header: bytes) -> dict[str, Any]:
    if not header.startswith(b"{"):
        raise HeaderError("its header does not begin with {")
    if header.count(b",") > MOST_COMMAS or header.count(b"{") > 2 * MOST_TENSORS:
        raise HeaderError(f"its header has too many parts for {MOST_TENSORS} tensors")
    try:
        document = json.loads(header.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"its header is not JSON ({str(error)[:200]})") from None
    if not isinstance(document, dict):
        raise HeaderError("its header is not a JSON object")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    for text in (*table, *table.values()):
        if isinstance(text, str):
            text.encode()  # half a character, spelt \ud800, is no text: ValueError
    if len(table) != len(pairs):
        raise HeaderError("its header gives a name twice")
    return table


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _tensor(name: str, entry: Any, data_begin: int) -> Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"tensor {name[:100]!r} is not described by exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise HeaderError(f"tensor {name[:100]!r} has the unknown dtype {str(dtype)[:40]!r}")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise HeaderError(f"tensor {name[:100]!r} has a shape or offsets that are not whole numbers")
    begin, end = offsets
    claimed = _bytes_of(name, dtype, shape)
    if end - begin != claimed:
        raise HeaderError(f"tensor {name[:100]!r} has {end - begin} bytes, its dtype and shape say {claimed}")
    return Tensor(name, dtype, tuple(shape), data_begin + begin, data_begin + end)


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= LARGEST for value in values)


def _bytes_of(name: str, dtype: str, shape: list[int]) -> int:
    """Bytes of a tensor; a product too large to count is refused even where a later 0 would make it small, as in the
    reference.
    """
    bits = 1
    for factor in (*shape, BITS[dtype]):
        bits *= factor
        if bits > LARGEST:
            raise HeaderError(f"tensor {name[:100]!r} has a shape whose size overflows")
    if bits % 8:
        raise HeaderError(f"tensor {name[:100]!r} does not end on a byte")
    return bits // 8
