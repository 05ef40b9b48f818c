"""The header parser accepts what is whole, refuses the rest with HeaderError alone, and is never laxer than the
reference.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapshots.errors import HeaderError
from snapshots.safetensors_header import BITS, LONGEST_HEADER, header_length, parse

WHOLE_BYTES = sorted(dtype for dtype, bits in BITS.items() if bits % 8 == 0)


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def check(document: dict[str, Any] | bytes, data: int) -> Any:
    header = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse(header, 8 + len(header) + data)


@st.composite
def whole_headers(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """Tensors side by side, in any order of names, and how many bytes of data they have."""
    document: dict[str, Any] = draw(st.sampled_from([{}, {"__metadata__": {"format": "pt"}}]))
    document, reached = dict(document), 0
    for name in draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), unique=True, max_size=5)):
        if name == "__metadata__":
            continue
        dtype, shape = draw(st.sampled_from(WHOLE_BYTES)), draw(st.lists(st.integers(0, 5), max_size=3))
        size = BITS[dtype] // 8
        for dimension in shape:
            size *= dimension
        document[name] = tensor(dtype, shape, reached, reached + size)
        reached += size
    return document, reached


@given(whole_headers())
def test_whole_headers_are_accepted_and_cover_the_file(made: tuple[dict[str, Any], int]) -> None:
    document, data = made
    header = check(document, data)
    assert {each.name for each in header.tensors} == document.keys() - {"__metadata__"}
    reached = header.data_begin
    for each in header.tensors:
        assert each.begin == reached
        reached = each.end
    assert reached - header.data_begin == data


A = tensor("F32", [2], 0, 8)


@pytest.mark.parametrize(
    ("document", "data", "says"),
    [
        ({"a": A}, 12, "data of no tensor"),
        ({"a": A}, 4, "cut short"),
        ({"a": A, "b": tensor("F32", [2], 4, 12)}, 12, "overlaps"),
        ({"a": A, "b": A}, 8, "overlaps"),
        ({"a": A, "b": tensor("F32", [1], 12, 16)}, 16, "hole of 4 bytes"),
        ({"a": tensor("F32", [1], 4, 8)}, 8, "hole of 4 bytes"),
        ({"a": tensor("F31", [2], 0, 8)}, 8, "unknown dtype"),
        ({"a": tensor("F32", [3], 0, 8)}, 8, "has 8 bytes, its dtype and shape say 12"),
        ({"a": tensor("F32", [2], 8, 0)}, 0, "has -8 bytes"),
        ({"a": tensor("F32", [2**40, 2**40, 0], 0, 0)}, 0, "overflows"),
        ({"a": tensor("U8", [2**64], 0, 0)}, 0, "whole numbers"),
        ({"a": tensor("F4", [3], 0, 1)}, 1, "end on a byte"),
        ({"a": tensor("F32", [-2], 0, 8)}, 8, "whole numbers"),
        ({"a": tensor("F32", [True, 2], 0, 8)}, 8, "whole numbers"),
        ({"a": {**A, "data_offsets": [0.0, 8]}}, 8, "whole numbers"),
        ({"a": {**A, "data_offsets": [0, 8, 8]}}, 8, "whole numbers"),
        ({"a": {**A, "more": 1}}, 8, "exactly dtype, shape and data_offsets"),
        ({"a": 1}, 0, "exactly dtype"),
        ({"__metadata__": {"a": 1}}, 0, "table of text"),
        (b'{"a":1,"a":1}', 0, "a name twice"),
        (b"[]", 0, "begin with"),
        (b" {}", 0, "begin with"),
        (b"{}{}", 0, "is not JSON"),
        (b'{"a":NaN}', 0, "is not JSON"),
        (b'{"\xff":1}', 0, "is not JSON"),
        (b'{"a":' + b"[" * 100_000, 0, "is not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", 0, "is not JSON"),
        (b"{" * 2_000_001, 0, "too many parts"),
        (b"{" + b"," * 16_000_001, 0, "too many parts"),
    ],
)
def test_lies_are_refused_by_name(document: dict[str, Any] | bytes, data: int, says: str) -> None:
    with pytest.raises(HeaderError, match=says):
        check(document, data)


def test_trailing_spaces_pad_a_header() -> None:
    assert check(json.dumps({"a": A}).encode() + b"   ", 8).tensors[0].shape == (2,)


@pytest.mark.parametrize(
    ("prefix", "size", "says"),
    [
        (b"", 0, "is not a safetensors"),
        ((LONGEST_HEADER + 1).to_bytes(8, "little"), 2**40, "more than"),
        ((9).to_bytes(8, "little"), 16, "cut short"),
    ],
)
def test_lengths_are_checked_before_reading(prefix: bytes, size: int, says: str) -> None:
    with pytest.raises(HeaderError, match=says):
        header_length(prefix, size)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


tables = st.dictionaries(st.text(max_size=2), json_values, max_size=3)


@given(
    st.binary(max_size=64) | (json_values | tables).map(lambda value: json.dumps(value).encode()), st.integers(0, 64)
)
@example(b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', 0)
def test_any_bytes_at_all_are_parsed_or_refused(header: bytes, data: int) -> None:
    try:
        parsed = check(header, data)
    except HeaderError:
        return
    assert sum(each.end - each.begin for each in parsed.tensors) == data
    assert all(each.name.encode() is not None for each in parsed.tensors)


@given(whole_headers(), st.data())
def test_never_laxer_than_the_reference(made: tuple[dict[str, Any], int], data: st.DataObject) -> None:
    """Change one number or letter of a whole file: what we accept, the Rust implementation accepts."""
    reference = pytest.importorskip("safetensors")
    document, size = made
    header = bytearray(json.dumps(document).encode())
    where = data.draw(st.integers(0, len(header) - 1))
    header[where] = data.draw(st.sampled_from(b'0123456789,[]{}"FB ') | st.integers(0, 255))
    file_size = size + data.draw(st.sampled_from([0, 0, 0, 1, 8]))
    try:
        check(bytes(header), file_size)
    except HeaderError:
        return
    reference.deserialize(len(header).to_bytes(8, "little") + bytes(header) + bytes(file_size))
