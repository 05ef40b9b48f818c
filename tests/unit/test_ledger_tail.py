"""The tail of a spool: whole lines once, torn lines later, nonsense kept aside, however the bytes arrive."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.ledger.tail import CHUNK_BYTES, SpoolFile, Tail
from tests.examples import examples
from tests.ledger_lines import ended, line, opened, sealed

NAME = "worker-1.3.jsonl"


def read_all(tail: Tail, name: str = NAME) -> list[str]:
    file = tail.file(name)
    assert file is not None
    events: list[str] = []
    while True:
        chunk = tail.read(file)
        events += [record.event_id for record in chunk.records]
        if not chunk.more:
            return events


@settings(max_examples=examples(30))
@given(cuts=st.lists(st.integers(0, 5000), max_size=12), seals=st.booleans())
def test_every_line_is_read_once_however_the_bytes_arrive(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], seals: bool
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    write = sealed if seals else line
    data = b"".join(write(opened(f"e{number}")) + write(ended(f"e{number}")) for number in range(10))
    tail, events = Tail(folder), []
    before = 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        with open(folder / NAME, "ab") as spool:
            spool.write(data[before:cut])
        before = cut
        events += read_all(tail)
    assert events == [f"e{number}" for number in range(10) for _ in range(2)]


def test_a_torn_last_line_waits_until_it_is_whole(tmp_path: Path) -> None:
    tail, whole = Tail(tmp_path), line(opened("a"))
    (tmp_path / NAME).write_bytes(whole + line(opened("b"))[:20])
    assert read_all(tail) == ["a"]
    file = tail.files[NAME]
    assert tail.torn(file) == line(opened("b"))[:20] and tail.is_read(file) and file.offset == len(whole)
    with open(tmp_path / NAME, "ab") as spool:
        spool.write(line(opened("b"))[20:])
    assert not tail.is_read(file)
    assert [found.name for found in tail.scan()] == [NAME]
    assert read_all(tail) == ["b"]
    assert tail.torn(file) == b""


def test_a_file_larger_than_a_chunk_is_read_chunk_by_chunk(tmp_path: Path) -> None:
    count = 3 * CHUNK_BYTES // len(line(opened("e00000")))
    (tmp_path / NAME).write_bytes(b"".join(line(opened(f"e{number:05}")) for number in range(count)))
    tail = Tail(tmp_path)
    file = tail.file(NAME)
    assert file is not None and tail.read(file).more and not tail.is_read(file)
    assert len(read_all(tail)) > count // 2 and tail.is_read(file)


@pytest.mark.parametrize(
    "bad",
    [
        b"nonsense",
        b"",
        b'{"kind":"open"}',
        b"[]",
        b"1,2",
        b'"x","y"',
        line(ended("x")).rstrip().replace(b'"output_tokens":5', b'"output_tokens":-5'),
        line(ended("x")).rstrip().replace(b'"hold_ms":0.0', b'"hold_ms":NaN'),
        b"\0" * 300,
        b"x" * (CHUNK_BYTES + 10),
    ],
)
def test_what_is_no_record_is_kept_aside_and_its_neighbours_are_read(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / NAME).write_bytes(line(opened("a")) + bad + b"\n" + line(opened("b")))
    tail = Tail(tmp_path)
    file = tail.file(NAME)
    assert file is not None
    events, rejected, more = [], [], True
    while more:
        chunk = tail.read(file)
        events += [record.event_id for record in chunk.records]
        rejected += chunk.rejected
        more = chunk.more
    assert events == ["a", "b"]
    assert b"".join(found for found, _ in rejected).replace(b"\n", b"") == bad
    tail.reject(rejected, source=NAME)
    kept = [json.loads(text) for text in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert len(kept) == len(rejected) and kept[0]["file"] == NAME and kept[0]["why"]


def test_only_spool_files_are_found(tmp_path: Path) -> None:
    for name in ("a.1.jsonl", "a.b.12.jsonl", "rejected.jsonl", "a.jsonl", "a.1.jsonl.tmp", ".1.jsonl", "a.x.jsonl"):
        (tmp_path / name).write_bytes(line(opened("e")))
    tail = Tail(tmp_path)
    assert {(file.worker, file.number) for file in tail.scan()} == {("a", 1), ("a.b", 12)}
    assert tail.file("../../etc/passwd.1.jsonl") is None
    assert tail.file("a/b.1.jsonl") is None


def test_files_of_a_worker_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    tail = Tail(tmp_path)
    for number in (10, 9, 100):
        tail.file(f"w.{number}.jsonl")
    assert [file.number for file in tail.of_worker("w")] == [9, 10, 100]


def test_a_file_that_is_gone_has_nothing_more_to_read(tmp_path: Path) -> None:
    tail, file = Tail(tmp_path), SpoolFile(NAME, "worker-1", 3)
    assert not tail.read(file).records and tail.is_read(file)


def read_file(data: bytes, tmp_path: Path) -> tuple[list[str], list[tuple[bytes, str]]]:
    """(requests of the lines read, what was set aside) of a file."""
    (tmp_path / NAME).write_bytes(data)
    tail = Tail(tmp_path)
    file = tail.file(NAME)
    assert file is not None
    chunk = tail.read(file)
    return [record.event_id for record in chunk.records], chunk.rejected


@settings(max_examples=examples(100))
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_flipped_bit_costs_one_line_at_most_and_no_line_says_what_it_did_not(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    records = [made(f"e{number}") for number in range(5) for made in (opened, ended)]
    whole = b"".join(map(sealed, records))
    data = bytearray(whole)
    data[at % len(data)] ^= 1 << bit
    (folder / NAME).write_bytes(bytes(data))
    tail = Tail(folder)
    file = tail.file(NAME)
    assert file is not None
    chunk = tail.read(file)
    assert all(record in records for record in chunk.records)
    lost = at % len(data) != len(data) - 1 and len(records) - len(chunk.records)
    assert lost <= 2 and (not lost or chunk.rejected), (
        "two where the newline between them was hit and the seal of the first with it"
    )
    for line_aside, why in chunk.rejected:
        begin = int(why.removeprefix("at byte ").partition(":")[0])
        assert bytes(data[begin:]).startswith(line_aside), "named by where it is"


def test_a_line_glued_to_a_torn_one_is_read_and_so_is_a_whole_one_without_its_newline(tmp_path: Path) -> None:
    a, b, c = (sealed(opened(name)) for name in "abc")
    assert read_file(a + b[:30] + c, tmp_path) == (
        ["a", "c"],
        [(b[:30], f"at byte {len(a)}: it has no checksum: it is torn, or was changed after it was written")],
    )
    assert read_file(a[:-1] + b + c, tmp_path) == (["a", "b", "c"], [])
    old = line(opened("o"))
    assert read_file(old[:30] + old, tmp_path)[0] == ["o"]


def test_lines_of_the_release_before_are_read_until_one_of_this_release_comes(tmp_path: Path) -> None:
    events, rejected = read_file(line(opened("a")) + sealed(opened("b")) + line(opened("c")), tmp_path)
    assert events == ["a", "b"] and [aside for aside, _ in rejected] == [line(opened("c")).rstrip()]


def test_a_file_that_never_got_its_name_is_removed_once_its_worker_is_surely_gone(tmp_path: Path) -> None:
    young, old = tmp_path / "w.1.jsonl.new", tmp_path / "v.1.jsonl.new"
    young.touch()
    old.touch()
    os.utime(old, (1e9, 1e9))
    assert Tail(tmp_path).scan() == [] and young.exists() and not old.exists()
