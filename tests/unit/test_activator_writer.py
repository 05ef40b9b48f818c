"""The queue to Postgres: in order, newest state only, nothing lost while Postgres is away, and never more than its
bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import pytest

from activator.edges import journal_watermarks
from activator.edges.journal_watermarks import Journals
from activator.edges.real_effects import Links, RealEffects
from activator.policy.lifecycle import Replica
from activator.policy.quarantine import QuarantinedRung
from activator.store import writer as module
from activator.store.replicas import ReplicaRecord
from activator.store.writer import Writer
from pilotlight.frames import Frame
from runtime.wire import Ship, Shipped, UsageBatch, UsageEntry, UsageStored
from tests.fakes_activator import FakePostgres


class Stream:
    def __init__(self) -> None:
        self.sent: list[Frame] = []
        self.closed = False

    def send(self, *frames: Frame) -> None:
        self.sent += frames

    def close(self) -> None:
        self.closed = True


def record(replica_id: str, state: Any) -> ReplicaRecord:
    return ReplicaRecord.of(
        Replica(replica_id=replica_id, revision_id="v", org_id="o", node_id="n", started_at=0.0, state=state)
    )


def batch(number: int, count: int = 1) -> UsageBatch:
    entry = {"replica_id": "r", "input_tokens": 1, "cached_tokens": 0, "output_tokens": 1, "finish": "stop"}
    return UsageBatch(
        batch=number, entries=tuple(UsageEntry(request_id=f"q{number}.{n}", **cast(Any, entry)) for n in range(count))
    )


@pytest.fixture
async def postgres() -> FakePostgres:
    return FakePostgres()


@pytest.fixture
async def writer(postgres: FakePostgres) -> AsyncIterator[Writer]:
    made = Writer(cast(Any, postgres))
    task = asyncio.ensure_future(made.run())
    yield made
    task.cancel()


async def test_writes_in_order_and_only_the_newest_of_each_replica(writer: Writer, postgres: FakePostgres) -> None:
    for replica_id, state in (("a", "starting"), ("b", "starting"), ("a", "ready"), ("a", "draining")):
        writer.replica(record(replica_id, state))
    postgres.there.set()
    await writer.flush()
    assert postgres.rows() == [("a", "draining"), ("b", "starting")]


async def test_what_changes_while_it_is_written_is_written_again(writer: Writer, postgres: FakePostgres) -> None:
    writer.replica(record("a", "starting"))
    await postgres.asked.wait()
    writer.replica(record("a", "ready"))
    postgres.there.set()
    await writer.flush()
    assert postgres.rows() == [("a", "starting"), ("a", "ready")]


async def test_a_row_that_is_refused_does_not_stop_the_others(writer: Writer, postgres: FakePostgres) -> None:
    postgres.refuses = "a"
    postgres.there.set()
    writer.replica(record("a", "starting"))
    writer.replica(record("b", "starting"))
    await writer.flush()
    assert postgres.rows() == [("b", "starting")]


async def test_a_bad_rung_is_written_in_its_newest_form_and_one_refused_stops_nothing(
    writer: Writer, postgres: FakePostgres
) -> None:
    now = time.monotonic()
    for node, until in (("x", None), ("refused", now + 50.0), ("n", now + 50.0), ("n", None), ("m", now + 100.0)):
        writer.bad_rung(QuarantinedRung("v", node, "standby", until))
    postgres.refuses = "refused"
    postgres.there.set()
    await writer.flush()
    assert [(name, values[:3]) for name, values in postgres.done if values] == [
        ("remove", ("v", "x", "standby")),
        ("remove", ("v", "n", "standby")),
        ("put", ("v", "m", "standby")),
    ]
    assert 90.0 < postgres.done[-2][1][3] <= 100.0, "what is stored is how long it has left"
    assert postgres.done[-1] == ("prune", ())


async def test_an_entry_that_is_refused_does_not_stop_its_batch(writer: Writer, postgres: FakePostgres) -> None:
    postgres.refuses, stored = "q1.1", asyncio.Event()
    postgres.there.set()
    writer.usage(batch(1, 3).entries, stored.set)
    await stored.wait()
    assert postgres.usage() == ["q1.0", "q1.2"]
    assert ("notify", ()) in postgres.done


async def test_too_much_usage_is_left_with_the_agent_and_asked_for_again(
    writer: Writer, postgres: FakePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_USAGE", 1000)
    links, stream = Links(), Stream()
    effects = RealEffects(links, writer, lambda above: None, lambda name, revision_id, failure: None)
    connection = links.open(cast(Any, stream))
    fits = batch(1, module.MOST_USAGE)
    effects.save_usage(connection, fits)
    effects.save_usage(connection, batch(2))
    postgres.there.set()
    effects.save_usage(connection, batch(3))
    await writer.flush()
    assert stream.sent == [UsageStored(batch=1)], "3 would say that 2 is stored as well"
    assert stream.closed, "on the next link the agent sends 2 and 3 again"
    again = links.open(cast(Any, Stream()))
    effects.save_usage(again, batch(2))
    await writer.flush()
    assert postgres.usage()[-1] == "q2.0"


async def test_after_an_outage_usage_goes_in_few_statements_and_each_batch_is_acknowledged(
    writer: Writer, postgres: FakePostgres
) -> None:
    heard: list[int] = []
    writer.replica(record("a", "ready"))
    for number in range(100):
        writer.usage(
            batch(number).entries,
            partial(heard.append, number),
            complete=("gone",) if number == 99 else (),
        )
    writer.replica(record("b", "ready"))
    writer.usage((), lambda: heard.append(100))
    postgres.there.set()
    await writer.flush()
    assert heard == list(range(101)), "in order, the mark behind them too"
    assert postgres.usage() == [f"q{number}.0" for number in range(100)]
    assert [name for name, _ in postgres.done if name == "add_usage"] == ["add_usage"]
    assert ("complete", (("gone",),)) in postgres.done


async def test_word_of_an_agent_is_passed_on_behind_what_it_speaks_of(writer: Writer, postgres: FakePostgres) -> None:
    links, heard = Links(), list[tuple[int, Shipped]]()
    effects = RealEffects(
        links, writer, lambda above: None, lambda *_: None, lambda connection, word: heard.append((connection, word))
    )
    connection, word = links.open(cast(Any, Stream())), Shipped(token=1, replicas=("r",))
    effects.save_usage(connection, batch(1))
    effects.save_usage(connection, word)
    await postgres.asked.wait()
    assert heard == []
    postgres.there.set()
    await writer.flush()
    assert heard == [(connection, word)] and postgres.usage() == ["q1.0"]


async def test_what_all_agents_say_is_one_answer_and_a_mute_one_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, Frame]] = []
    made = Journals(lambda connection, frame: sent.append((connection, frame)))
    asking = asyncio.ensure_future(made.ask([1, 2]))
    await asyncio.sleep(0)
    assert [connection for connection, _ in sent] == [1, 2]
    token = cast(Ship, sent[0][1]).token
    made.shipped(1, Shipped(token=token, replicas=("a",), in_work=("q",)))
    made.shipped(1, Shipped(token=token, replicas=("twice",)))
    made.shipped(2, Shipped(token=token + 1, replicas=("of another question",)))
    assert not asking.done()
    made.shipped(2, Shipped(token=token, replicas=("b",)))
    assert (await asking).result == {"replicas": ["a", "b"], "in_work": ["q"]}
    monkeypatch.setattr(journal_watermarks, "SHIP_SECONDS", 0.01)
    asking = asyncio.ensure_future(made.ask([1, 2]))
    await asyncio.sleep(0)
    made.shipped(1, Shipped(token=cast(Ship, sent[2][1]).token, replicas=("a",)))
    assert (await asking).result == {"replicas": ["a"], "in_work": []}
    assert (await Journals(lambda connection, frame: None).ask([])).ok
