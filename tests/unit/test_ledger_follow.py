"""The follower reads a worker's files in their order and deletes none too early, wherever it was killed and however
slow Postgres is.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.ledger import follow, tail
from router.ledger.follow import Follower
from router.ledger.join import Join
from router.ledger.tail import Tail
from router.ledger.worker_locks import Workers
from tests.examples import examples
from tests.ledger_lines import ended, line, opened, sealed


class Ledger:
    """All of a ledger but Postgres: `settle` is a batch that Postgres takes."""

    def __init__(self, folder: Path, rows: dict[str, str]) -> None:
        self.rows = rows
        self.tail, self.join = Tail(folder), Join()
        workers = Workers(locked=self.tail.is_locked, keeps_locks=self.tail.keeps_locks)
        self.follower = Follower(tail=self.tail, join=self.join, workers=workers, settle=lambda: None)

    def settle(self, most: int) -> None:
        cases = self.join.next_batch(most)
        for case in cases:
            self.rows.setdefault(case.event_id, case.end.finish if case.end else "router_lost")
        self.join.settled(cases)

    async def run(self, rounds: int, most: int) -> None:
        for _ in range(rounds):
            self.follower.scan()
            await self.follower.read()
            self.settle(most)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(follow, "BACKLOG", 200)
    monkeypatch.setattr(tail, "CHUNK_BYTES", 2600)
    yield


def spooled(folder: Path, *, files: int, each: int, across: int) -> dict[str, str]:
    """Files of one worker; the last requests of each are ended in the next one. Returns the rows there must be."""
    waiting: list[str] = []
    for number in range(files):
        data = b"".join(sealed(ended(name)) for name in waiting)
        names = [f"{number:02}.{index:03}" for index in range(each)]
        data += b"".join(sealed(opened(name)) for name in names) + b"".join(
            sealed(ended(name)) for name in names[:-across]
        )
        waiting = names[-across:]
        (folder / f"w.{number}.jsonl").write_bytes(data)
    with open(folder / f"w.{files - 1}.jsonl", "ab") as last:
        last.write(b"".join(sealed(ended(name)) for name in waiting))
    return {f"{number:02}.{index:03}": "complete" for number in range(files) for index in range(each)}


@pytest.mark.parametrize("alive", [True, False])
def test_a_ledger_that_starts_on_many_files_joins_every_end(tmp_path: Path, small: None, alive: bool) -> None:
    expected = spooled(tmp_path, files=12, each=200, across=8)  # two digits: by name 10 comes before 9
    ledger = Ledger(tmp_path, {})
    with open(tmp_path / "w.11.jsonl", "ab") as held:
        if alive:
            fcntl.flock(held, fcntl.LOCK_EX)
        asyncio.run(ledger.run(400, most=10))
        assert ledger.rows == expected
        assert [file.name for file in tmp_path.glob("*.jsonl")] == (["w.11.jsonl"] if alive else [])


@settings(max_examples=examples(60))
@given(
    spans=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5) | st.none()), min_size=1, max_size=25),
    steps=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    torn=st.binary(max_size=40),
)
def test_every_request_gets_its_row_whichever_files_its_lines_are_in(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int | None]], steps: list[int], torn: bytes
) -> None:
    """Opened in one file, ended in a later one or never; the ledger is killed after each of `steps`, the worker in the
    middle.
    """
    folder = tmp_path_factory.mktemp("spool")
    contents: dict[int, bytes] = dict.fromkeys(range(6), b"")
    for number, (first, _) in enumerate(spans):
        contents[first] += sealed(opened(f"e{number}"))
    expected = {}
    for number, (first, second) in enumerate(spans):
        if second is not None:
            contents[max(first, second)] += sealed(ended(f"e{number}"))
        expected[f"e{number}"] = "router_lost" if second is None else "complete"
    for number, data in contents.items():
        (folder / f"w.{number}.jsonl").write_bytes(data + (torn.replace(b"\n", b"") if number % 2 else b""))
    rows: dict[str, str] = {}

    async def scene() -> None:
        with (folder / "w.5.jsonl").open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            for most in steps:  # each a ledger of its own
                await Ledger(folder, rows).run(2, most)
        last = Ledger(folder, rows)
        for _ in range(10):
            last.follower.scan()
            await last.follower.read()
            last.settle(1000)
            last.join.expire(asked=last.join.waiting, before=1e12)

    asyncio.run(scene())
    assert rows == expected
    kept = [file.read_bytes() for file in folder.glob("w.*")]
    assert not any(b"\n" in data for data in kept), (
        "nothing is kept but a last file without a line, of whatever release its worker was"
    )


def test_a_torn_line_in_the_middle_of_a_workers_files_is_named_and_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.1.jsonl").write_bytes(sealed(opened("a")) + b'{"kind":"open","ev')
    (tmp_path / "w.2.jsonl").write_bytes(sealed(ended("a")))
    ledger = Ledger(tmp_path, {})
    asyncio.run(ledger.run(3, most=10))
    kept = [json.loads(text) for text in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(aside["file"], aside["line"]) for aside in kept] == [("w.1.jsonl", '{"kind":"open","ev')]
    assert kept[0]["why"] == f"at byte {len(sealed(opened('a')))}: a torn last line"
    assert ledger.rows == {"a": "complete"} and not list(tmp_path.glob("w.*"))


def test_the_files_of_a_worker_of_the_release_before_are_left_alone_while_it_may_live(tmp_path: Path) -> None:
    (tmp_path / "w.1.jsonl").write_bytes(line(opened("a")))
    ledger = Ledger(tmp_path, {})
    asyncio.run(ledger.run(3, most=10))
    assert not ledger.join.waiting and os.listdir(tmp_path) == ["w.1.jsonl"]
