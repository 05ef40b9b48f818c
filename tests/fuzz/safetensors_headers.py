"""The header of a safetensors file: whatever bytes it is, what is accepted has tensors that lie side by side to the
file's end.
"""

from __future__ import annotations

import json

from snapshots.errors import HeaderError
from snapshots.safetensors_header import LENGTH_BYTES, header_length, parse

_ENTRY = {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]}


def _file(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


SEEDS = (
    _file({"a": _ENTRY}, bytes(4)),
    _file(
        {"__metadata__": {"format": "pt"}, "a": _ENTRY, "b": {"dtype": "F4", "shape": [2], "data_offsets": [4, 5]}},
        bytes(5),
    ),
    _file({"a": {"dtype": "U8", "shape": [2**40, 2**40], "data_offsets": [0, 1]}}, b"x"),
    _file({}, b""),
    (2**63).to_bytes(8, "little"),
)


def target(data: bytes) -> None:
    try:
        length = header_length(data[:LENGTH_BYTES], len(data))
        header = parse(data[LENGTH_BYTES : LENGTH_BYTES + length], len(data))
    except HeaderError as error:
        assert len(str(error)) < 1000, len(str(error))
        return
    reached = LENGTH_BYTES + length
    for tensor in header.tensors:
        assert tensor.begin == reached <= tensor.end, tensor
        reached = tensor.end
    assert reached == len(data)
