"""The settler loses nothing: Postgres away, a new price in the middle, a row that is never taken, a journal late or
never.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from activator.client import ActivatorError
from pilotlight.frames import FrameError
from router.ledger import postgres, waits
from router.ledger.join import Join, PendingUsage
from router.ledger.postgres import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Outage
from router.ledger.settle import BATCH_ROWS, Settler
from router.ledger.shelf import Kept, Shelf
from router.ledger.waits import Said, Waits
from tests.examples import examples
from tests.fakes_ledger import FakeStore
from tests.ledger_lines import ended, journalled, opened
from tests.router_world import until


class Bench:
    """A settler at work; `rejected` is what it kept aside."""

    def __init__(self, folder: Path | None = None) -> None:
        self.join, self.store, self.rejected = Join(), FakeStore(), list[tuple[bytes, str]]()
        self.shelf = Shelf(folder or Path("/nowhere"))
        self.settler = Settler(
            join=self.join, store=self.store, reject=lambda lines, source: self.rejected.extend(lines), shelf=self.shelf
        )
        self.said: list[Said | Exception] = []  # the activator's answers; the last one stays
        self.asked = 0
        self.waits = Waits(join=self.join, store=self.store, ask=self._ask, settle=self.settler.wake, longest=1e9)

    async def _ask(self) -> Said:
        self.asked += 1
        await asyncio.sleep(0)
        said = (
            self.said.pop(0) if len(self.said) > 1 else self.said[0] if self.said else ConnectionRefusedError("nobody")
        )
        if isinstance(said, Exception):
            raise said
        return said

    def finish(self, *events: str, source: str = "engine") -> None:
        now = asyncio.get_running_loop().time()
        for event_id in events:
            self.join.add(opened(event_id), file="f", worker="w", now=now)
            self.join.add(ended(event_id, source=source), file="f", worker="w", now=now)  # type: ignore[arg-type]
        self.settler.wake()
        self.waits.wake()

    async def __aenter__(self) -> Bench:
        self._tasks = [
            asyncio.create_task(loop())
            for loop in (self.settler.run, self.settler.run_unpriced, self.waits.run_look_up, self.waits.run_word)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


def test_batches_are_bounded_and_everything_is_settled_once() -> None:
    async def scene() -> None:
        async with Bench() as bench:
            bench.finish(*(f"e{number}" for number in range(2500)))
            await bench.store.has(2500)
            assert sum(bench.store.batches) == 2500 and max(bench.store.batches) == BATCH_ROWS

    asyncio.run(scene())


def test_what_postgres_refuses_for_now_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "FIRST_PAUSE_SECONDS", 0.001)

    async def scene() -> None:
        async with Bench() as bench:
            # a connection cut while in use
            cut = asyncpg.InternalClientError("got result for unknown protocol state 0")
            bench.store.trouble = [ConnectionRefusedError(), asyncpg.AdminShutdownError("bye"), cut]
            bench.finish("a", "b")
            await bench.store.has(2)
            assert bench.store.batches == [2] and not bench.rejected

    asyncio.run(scene())


def test_a_new_price_is_never_missed() -> None:
    async def scene() -> None:
        async with Bench() as bench:
            bench.finish("a")
            await bench.store.has(1)
            bench.store.price_rows.append(bench.store.price_rows[0]._replace(version=2, valid_from=1.0))
            bench.finish("b")  # nobody has told the settler
            await bench.store.has(2)
            assert {name: row.price_version for name, row in bench.store.rows.items()} == {"a": 1, "b": 2}

    asyncio.run(scene())


def test_one_row_that_is_never_taken_holds_up_nobody_and_is_kept() -> None:
    async def scene() -> None:
        async with Bench() as bench:
            bench.store.poison = {"e3"}
            bench.finish(*(f"e{number}" for number in range(10)))
            await bench.store.has(9)
            bench.finish("after")
            await bench.store.has(10)
            assert bench.store.rows.keys() == {f"e{number}" for number in range(10)} - {"e3"} | {"after"}
            assert len(bench.rejected) == 2 and all(b'"e3"' in line for line, _ in bench.rejected)
            assert bench.join.is_clear("f")

    asyncio.run(scene())


def test_the_journal_wins_as_soon_as_it_is_there() -> None:
    async def scene() -> None:
        async with Bench() as bench:
            bench.finish("a", source="relayed")
            bench.finish("b", source="engine")
            await bench.store.has(1)
            assert "a" not in bench.store.rows
            bench.store.entries["a"] = journalled("a", tokens=9)
            bench.waits.journal_arrived()
            await bench.store.has(2)
            assert {name: (row.count_source, row.output_tokens) for name, row in bench.store.rows.items()} == {
                "a": ("journal", 9),
                "b": ("engine", 5),
            }

    asyncio.run(scene())


def test_an_outage_is_told_once_and_the_pauses_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    outage = Outage("test", clock=lambda: now[0])
    pauses = [outage.failed(OSError("refused")) for _ in range(20)]
    now[0] = 60.0
    assert outage.over() and not outage.over()
    assert pauses[0] == FIRST_PAUSE_SECONDS and pauses[-1] == LONGEST_PAUSE_SECONDS and pauses == sorted(pauses)
    assert outage.failed(OSError("again")) == FIRST_PAUSE_SECONDS


def test_a_request_without_a_price_holds_up_nobody_and_is_settled_once_there_is_one(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Bench(tmp_path) as bench:
            default = bench.store.price_rows[0]
            bench.store.price_rows = [default._replace(valid_from=2e9)]  # requests are admitted at 1e9
            bench.finish("a", "b")
            await until(lambda: not bench.shelf.is_empty)
            await until(lambda: bench.join.is_clear("f"))  # its spool file may go
            bench.store.price_rows = [default._replace(endpoint_id="other", version=2)]
            bench.settler.prices_changed()  # of another endpoint
            bench.store.price_rows += [default._replace(version=3)]
            bench.finish("c")
            await bench.store.has(1)
            assert (tmp_path / "unpriced.jsonl").read_text().count(
                "\n"
            ) == bench.shelf.count == 2 and not bench.rejected
        async with Bench(tmp_path) as bench:  # a ledger that starts
            bench.store.price_rows = [default]
            bench.settler.prices_changed()
            await bench.store.has(2)
            assert bench.store.rows.keys() == {"a", "b"} and {
                row.price_version for row in bench.store.rows.values()
            } == {1}
            await until(lambda: bench.shelf.is_empty)
            assert bench.shelf.count == 0

    asyncio.run(scene())


def test_a_line_of_the_unpriced_that_cannot_be_read_stays_for_a_person(tmp_path: Path) -> None:
    async def scene() -> None:
        (tmp_path / "unpriced.jsonl").write_bytes(b"nonsense\n")
        async with Bench(tmp_path) as bench:
            bench.shelf.put([PendingUsage("a", "w", open=opened("a"), end=ended("a"))])
            bench.settler.prices_changed()
            await bench.store.has(1)
            await until(lambda: (tmp_path / "unpriced.jsonl").read_bytes() == b"nonsense\n")

    asyncio.run(scene())


@given(cut=st.integers(0, 400), sealed=st.booleans())
@hypothesis_settings(max_examples=examples(40))
def test_a_line_cut_in_half_swallows_no_other(tmp_path_factory: pytest.TempPathFactory, cut: int, sealed: bool) -> None:
    """By a crash or a full disk; also as the release before left it: without checksums, and with the next line glued
    on.
    """
    shelf, file = Shelf(folder := tmp_path_factory.mktemp("spool")), folder / "unpriced.jsonl"
    a, b, c = (PendingUsage(name, "w", open=opened(name), end=ended(name)) for name in "abc")
    shelf.put([a])
    whole = file.read_bytes() if sealed else Kept(open=opened("a"), end=ended("a")).model_dump_json().encode() + b"\n"
    torn = whole[: min(cut, len(whole))]
    shelf.put([b])
    glued = file.read_bytes().splitlines()[1] + b"\n"
    for left in (torn, torn + glued):
        file.write_bytes(whole + left)
        shelf.put([c])
        cases, odd = shelf.read()
        assert {case.event_id for case in cases} == {"a", "c"} | ({"b"} if left != torn else set())
        assert b"".join(odd) in (torn, b"") and (not odd or torn)
        assert all(case.end == ended(case.event_id) for case in cases)


def test_a_shelved_line_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    shelf, file = Shelf(tmp_path), tmp_path / "unpriced.jsonl"
    shelf.put([PendingUsage("a", "w", open=opened("a"), end=ended("a"))])
    file.write_bytes(changed := file.read_bytes().replace(b'"output_tokens":5', b'"output_tokens":6'))
    assert shelf.read() == ([], [changed.removesuffix(b"\n")])


def test_a_journal_that_comes_while_its_request_has_no_price_counts(tmp_path: Path) -> None:
    async def scene() -> None:
        lines = {name: journalled(name) for name in "ad"}
        lines["d"] = lines["d"].model_copy(update={"replica_id": "another"})
        async with Bench(tmp_path) as bench:
            bench.shelf.put(
                [PendingUsage(name, "w", open=opened(name), end=ended(name, source="relayed")) for name in "abd"]
            )
            bench.shelf.put([PendingUsage("c", "w", open=opened("c"), end=ended("c"))])
            bench.store.entries = lines | {"c": lines["a"].model_copy(update={"request_id": "c"})}
            bench.store.trouble = [ConnectionRefusedError("away")]
            bench.settler.prices_changed()
            await bench.store.has(4)
            assert {name: (row.count_source, row.output_tokens) for name, row in bench.store.rows.items()} == {
                "a": ("journal", 9),
                "b": ("relayed", 5),
                "c": ("engine", 5),
                "d": ("relayed", 5),
            }

    asyncio.run(scene())


def test_what_waits_waits_for_word_however_long_the_activator_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "ASK_SECONDS", 0.001)

    async def scene() -> None:
        async with Bench() as bench:
            away: list[Said | Exception] = [
                ConnectionRefusedError("nobody"),
                TimeoutError(),
                ActivatorError("closed"),
                FrameError("odd"),
            ]
            silent, at_work = Said(replicas=["another"], in_work=[]), Said(replicas=["rep"], in_work=["a"])
            bench.said = [*away, silent, at_work, at_work]
            bench.finish("a", source="relayed")
            await until(lambda: bench.asked > 10)
            assert bench.join.waiting == ["a"] and not bench.store.rows
            bench.said = [Said(replicas=["rep"], in_work=[])]
            await bench.store.has(1)
            assert bench.store.rows["a"].count_source == "relayed"

    asyncio.run(scene())


def test_a_line_that_came_before_the_word_counts_whatever_the_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The word says there is no more; what there is was stored a moment before, and nobody was told."""
    monkeypatch.setattr(waits, "ASK_SECONDS", 0.001)
    monkeypatch.setattr(waits, "LOOK_AGAIN_SECONDS", 100.0)

    async def scene() -> None:
        async with Bench() as bench:
            bench.said = [ConnectionRefusedError("nobody")]
            bench.finish("a", source="none")
            await until(lambda: bench.asked > 2)
            bench.store.entries["a"] = journalled("a")
            bench.said = [Said(replicas=["rep"], in_work=[])]
            await bench.store.has(1)
            assert bench.store.rows["a"].count_source == "journal"

    asyncio.run(scene())
