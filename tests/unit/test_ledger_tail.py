"""The tail of a spool: whole lines once, torn lines later, nonsense kept aside, however the bytes arrive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.ledger.record import EndRecord, OpenRecord
from router.ledger.tail import CHUNK_BYTES, SpoolFile, Tail
from tests.unit.test_ledger_join import ended, opened

NAME = "worker-1.3.jsonl"


def line(record: OpenRecord | EndRecord) -> bytes:
    return record.model_dump_json().encode() + b"\n"


def read_all(tail: Tail, name: str = NAME) -> list[str]:
    file = tail.file(name)
    assert file is not None
    events: list[str] = []
    while True:
        chunk = tail.read(file)
        events += [record.event_id for record in chunk.records]
        if not chunk.more:
            return events


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 5000), max_size=12))
def test_every_line_is_read_once_however_the_bytes_arrive(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    data = b"".join(line(opened(f"e{number}")) + line(ended(f"e{number}")) for number in range(10))
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
