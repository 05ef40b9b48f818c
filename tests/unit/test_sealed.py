"""Sealed lines: any flipped byte is found, what is glued is taken apart, and the release before is still read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.sealed import Damaged, is_intact, is_sealed, seal
from runtime.journal_line import decode, encode, recover
from runtime.wire import UsageEntry


def entry(number: int = 1, **more: object) -> UsageEntry:
    fields = {
        "request_id": f"{number:032x}",
        "replica_id": "r1",
        "input_tokens": number,
        "cached_tokens": 0,
        "output_tokens": 7,
    }
    return UsageEntry.model_validate(fields | {"finish": "stop"} | more)


@given(st.dictionaries(st.text(), st.integers() | st.text(), min_size=1))
def test_a_sealed_line_is_the_same_object_with_one_field_more(fields: dict[str, object]) -> None:
    line = seal(json.dumps(fields).encode())
    assert line.count(b"\n") == 1 and is_intact(line[:-1])
    assert {name: value for name, value in json.loads(line).items() if name != "crc"} == {
        k: v for k, v in fields.items() if k != "crc"
    }


@given(number=st.integers(0, 10**6), data=st.data())
def test_a_flipped_bit_is_never_believed(number: int, data: st.DataObject) -> None:
    """Wherever it is: the line is refused, or, where only the name of the checksum was hit, says what it said."""
    line = bytearray(encode(entry(number))[:-1])
    line[data.draw(st.integers(0, len(line) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        assert decode(bytes(line)) == entry(number)
    except Damaged as error:
        assert str(error)


def test_lines_of_the_release_before_are_read_and_it_reads_ours() -> None:
    old = entry().model_dump_json().encode()
    assert not is_sealed(old) and decode(old) == entry()
    assert UsageEntry.model_validate_json(encode(entry()), extra="ignore") == entry()


@given(cut=st.integers(0, 200))
def test_the_line_behind_a_torn_one_is_read(cut: int) -> None:
    whole = encode(entry(1))[:-1]
    torn = whole[: min(cut, len(whole))]
    found = list(recover(torn + encode(entry(2))))
    assert [said for _, said in found if isinstance(said, UsageEntry)] == ([entry(1)] if torn == whole else []) + [
        entry(2)
    ]
    assert all(offset == 0 for offset, said in found if isinstance(said, Damaged))


@pytest.mark.parametrize(
    "bad", [b"", b"{}", b"nonsense", b"\0" * 50, encode(entry())[:40], encode(entry()).replace(b"stop", b"step")]
)
def test_what_is_no_line_is_said_to_be_none(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"checksum|not an entry"):
        decode(bad)
    ((offset, said),) = recover(bad)
    assert offset == 0 and isinstance(said, Damaged)
