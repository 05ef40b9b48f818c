"""The join settles each request exactly once, with the right figures, whatever the order, the repeats and the
outages.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.ledger import join as join_module
from router.ledger.join import Join, best
from router.ledger.prices import Price, PriceList
from router.ledger.row import UsageRow, figures, usage_row
from router.ledger.watermark import PARTING_SECONDS, Unfinished, Word
from router.spool.record import EndRecord, OpenRecord
from runtime.wire import Phase, UsageEntry
from tests.examples import examples
from tests.ledger_lines import ended, journalled, opened

PRICES = PriceList([Price(version=7, org_id="default", endpoint_id="", valid_from=0.0, input=1, cached=1, output=1)])


def settle_all(join: Join) -> list[UsageRow]:
    cases = join.next_batch(1000)
    rows = [usage_row(case, PRICES) for case in cases]
    join.settled(cases)
    return rows


plans = st.lists(
    st.fixed_dictionaries(
        {
            "open": st.sampled_from(["once", "twice", "never"]),
            "end": st.sampled_from(["once", "twice", "never"]),
            "source": st.sampled_from(["engine", "relayed", "none"]),
            "replica": st.sampled_from(["rep", ""]),
            "journal": st.booleans(),
        }
    ),
    min_size=1,
    max_size=12,
)
TIMES = {"once": 1, "twice": 2, "never": 0}


@settings(max_examples=examples(150))
@given(plans=plans, seed=st.integers(0, 2**32))
def test_every_opened_request_settles_exactly_once_whatever_the_order(
    plans: list[dict[str, object]], seed: int
) -> None:
    dice = random.Random(seed)
    join, journal = Join(), dict[str, UsageEntry]()
    rows, lines = list[UsageRow](), list[OpenRecord | EndRecord]()
    for number, plan in enumerate(plans):
        event_id = f"e{number}"
        lines += [opened(event_id)] * TIMES[str(plan["open"])]
        lines += [ended(event_id, source=plan["source"], replica=str(plan["replica"]))] * TIMES[str(plan["end"])]  # type: ignore[arg-type]
        if plan["journal"]:
            journal[event_id] = journalled(event_id)
    dice.shuffle(lines)
    written: dict[str, set[str]] = {"w.1.jsonl": set(), "w.2.jsonl": set()}

    def disturb() -> None:
        """A look-up, a batch that is refused, a batch that is taken: at any moment."""
        join.journal(journal[event_id] for event_id in join.waiting if event_id in journal)
        join.give_back(join.next_batch(dice.randrange(3)))
        cases = join.next_batch(dice.randrange(3))
        rows.extend(usage_row(case, PRICES) for case in cases)
        join.settled(cases)
        done = {row.event_id for row in rows}
        for file, events in written.items():
            assert join.is_clear(file) == (events & seen_open <= done)

    seen_open: set[str] = set()
    for line in lines:
        file = dice.choice(list(written))
        written[file].add(line.event_id)
        if isinstance(line, OpenRecord):
            seen_open.add(line.event_id)
        join.add(line, file=file, worker="w", now=0.0)
        if dice.random() < 0.5:
            disturb()
    join.lost("w", now=1.0)
    disturb()
    join.journal(journal[event_id] for event_id in join.waiting if event_id in journal)
    join.concluded(Word(), asked=join.waiting)
    rows += settle_all(join)

    by_event = {row.event_id: row for row in rows}
    assert len(by_event) == len(rows), "settled twice"
    assert by_event.keys() == {f"e{number}" for number, plan in enumerate(plans) if plan["open"] != "never"}
    for event_id, row in by_event.items():
        plan = plans[int(event_id[1:])]
        in_band = plan["end"] != "never" and (plan["source"] == "engine" or plan["replica"] == "")
        if plan["end"] == "never":
            assert (row.finish, row.status) == ("router_lost", 0)
        if not in_band and plan["journal"]:
            assert (row.count_source, row.output_tokens) == ("journal", 9)
        else:
            assert row.output_tokens == (0 if plan["end"] == "never" else 5)
    assert join.backlog == 0
    for file in written:
        assert join.is_clear(file)
        join.forget(file)
    assert not join._cases, "something stays in memory for ever"


def test_an_end_told_in_band_does_not_wait() -> None:
    join = Join()
    join.add(opened("a"), file="f", worker="w", now=0.0)
    join.add(ended("a", source="engine"), file="f", worker="w", now=0.0)
    assert [row.count_source for row in settle_all(join)] == ["engine"]


def waits(*sources: str, **more: Any) -> Join:
    """A join with a request a source, each at replica "rep"."""
    join = Join()
    for number, source in enumerate(sources):
        join.add(opened(f"e{number}"), file="f", worker="w", now=float(number))
        join.add(ended(f"e{number}", source=source, **more), file="f", worker="w", now=float(number))  # type: ignore[arg-type]
    return join


SILENT = (Unfinished("rep", "ep"),)


def test_the_routers_figures_stand_once_it_is_known_that_no_journal_comes_and_not_before() -> None:
    join = waits("relayed")
    for word in (Word(unfinished=SILENT), Word.of(["rep"], ["e0"], SILENT), Word.of(["rep"], ["e0"], ())):
        join.concluded(word, asked=join.waiting)
        assert join.ready == 0, "its replica has not said all, or is at work on it"
    join.concluded(Word.of(["rep"], [], SILENT), asked=["another"])
    assert join.ready == 0, "it did not wait yet when that was asked"
    join.concluded(Word.of(["rep"], ["another"], SILENT), asked=join.waiting)
    assert [(row.count_source, row.output_tokens) for row in settle_all(join)] == [("relayed", 5)]


def test_a_replica_whose_journal_is_whole_needs_no_agent() -> None:
    join = waits("relayed")
    assert join.whereabouts(join.waiting) == (["rep"], [])
    join.concluded(Word(unfinished=(Unfinished("another", "ep"),), heard=False), asked=join.waiting)
    assert join.ready == 1


def test_where_a_router_died_every_replica_of_the_endpoint_must_have_spoken() -> None:
    join = Join()
    join.add(opened("a"), file="f", worker="w", now=0.0)
    join.lost("w", now=0.0)
    assert join.whereabouts(join.waiting) == ([], ["ep"])
    silent = [
        Unfinished("r1", "ep"),
        Unfinished("r2", "ep", 1e9 - 5.0),
        Unfinished("before", "ep", 1e9 - PARTING_SECONDS),
        Unfinished("o", "other"),
    ]
    join.concluded(Word(heard=False), asked=join.waiting)
    assert join.ready == 0, "the activator may know of replicas that Postgres does not"
    for covered in ([], ["r1"], ["r2"]):
        join.concluded(Word.of(covered, [], silent), asked=join.waiting)
        assert join.ready == 0
    join.concluded(Word.of(["r1", "r2"], [], silent), asked=join.waiting)
    assert [(row.finish, row.count_source) for row in settle_all(join)] == [("router_lost", "none")]


def test_a_node_that_never_comes_back_is_waited_for_as_long_as_is_set() -> None:
    join = waits("relayed", "none", finish="client_disconnect")
    join.expire(asked=join.waiting, before=0.0)
    assert join.next_batch(9)[0].event_id == "e0" and join.waiting == ["e1"]
    join.expire(asked=["e0"], before=99.0)
    assert join.waiting == ["e1"], "it was not looked up"


def test_what_waits_is_bounded_and_looked_up_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_module, "MOST_WAITING", 4)
    join = waits(*["relayed"] * 6)
    assert [case.event_id for case in join.next_batch(9)] == ["e0", "e1"], "the oldest are settled by what is known"
    assert [join.to_look_up(3) for _ in range(3)] == [["e2", "e3", "e4"], ["e5", "e2", "e3"], ["e4", "e5", "e2"]]
    assert join.backlog == 2, "what waits holds up no reading"


def test_an_end_that_comes_after_its_worker_was_given_up_still_counts() -> None:
    join = Join()
    join.add(opened("a"), file="f", worker="w", now=0.0)
    join.lost("w", now=0.0)
    join.add(ended("a"), file="f", worker="w", now=0.0)
    assert [row.finish for row in settle_all(join)] == ["complete"]


def test_a_line_that_comes_again_does_not_prolong_the_wait() -> None:
    join = waits("none")
    join.add(ended("e0", source="none"), file="f", worker="w", now=2.0)
    join.expire(asked=join.waiting, before=0.0)
    assert join.ready == 1


def test_what_the_engine_told_in_band_is_not_overruled() -> None:
    assert figures(ended("a", source="engine", tokens=5), journalled("a", tokens=9)) == (5, 0, 5, "engine")
    assert figures(ended("a", source="relayed", tokens=5), journalled("a", tokens=9)) == (9, 0, 9, "journal")
    assert figures(ended("a", source="relayed", tokens=5), None) == (5, 0, 5, "relayed")


def test_the_journal_of_the_replica_it_was_at_counts_and_a_whole_line_before_a_last_count() -> None:
    at = journalled("a")
    other, partial = (
        at.model_copy(update={"replica_id": "another", "output_tokens": 99}),
        at.model_copy(update={"partial": True}),
    )
    assert best(ended("a"), [other, partial, at]) == at
    assert best(ended("a"), [other, partial]) == partial
    assert best(ended("a"), [other]) is None
    assert best(None, [at, other]) == other, "of a router that died nobody knows where its request was"
    assert figures(ended("a", source="relayed"), partial) == (9, 0, 9, "last_count")


def test_where_a_router_died_no_replica_settles_alone_what_another_may_be_at_work_on() -> None:
    """It was tried again elsewhere: the first replica's line is there long before the second one's."""
    for first in ({"partial": True}, {"output_tokens": 0}):
        join = Join()
        join.add(opened("a"), file="f", worker="w", now=0.0)
        join.lost("w", now=0.0)
        line = journalled("a", tokens=3).model_copy(update={"replica_id": "first"} | first)
        join.journal([line])
        join.concluded(Word.of(["first", "rep"], ["a"], ()), asked=join.waiting)
        join.concluded(Word.of(["first"], [], SILENT), asked=join.waiting)
        assert join.ready == 0, "the second is at work on it, or has not spoken"
        join.journal([line, journalled("a")])
        join.concluded(Word.of(["first", "rep"], [], SILENT), asked=join.waiting)
        assert [(row.replica_id, row.output_tokens, row.count_source) for row in settle_all(join)] == [
            ("rep", 9, "journal")
        ]


def test_behind_the_word_a_last_count_of_a_router_that_died_counts_and_its_row_says_where() -> None:
    join = Join()
    join.add(opened("a"), file="f", worker="w", now=0.0)
    join.lost("w", now=0.0)
    join.journal([journalled("a").model_copy(update={"partial": True})])
    join.concluded(Word(), asked=join.waiting)
    assert [(row.finish, row.replica_id, row.count_source) for row in settle_all(join)] == [
        ("router_lost", "rep", "last_count")
    ]


def test_an_end_that_comes_late_throws_away_what_another_replica_said() -> None:
    join = Join()
    join.add(opened("a"), file="f", worker="w", now=0.0)
    join.lost("w", now=0.0)
    join.journal([journalled("a").model_copy(update={"replica_id": "first", "partial": True})])
    join.add(ended("a", source="relayed"), file="f", worker="w", now=0.0)
    join.concluded(Word(), asked=join.waiting)
    assert [(row.replica_id, row.output_tokens, row.count_source) for row in settle_all(join)] == [
        ("rep", 5, "relayed")
    ]


def test_only_the_dead_workers_requests_are_given_up() -> None:
    join = Join()
    join.add(opened("a"), file="w.1.jsonl", worker="w", now=0.0)
    join.add(opened("b"), file="v.1.jsonl", worker="v", now=0.0)
    join.lost("w", now=0.0)
    assert join.waiting == ["a"]
    assert not join.is_clear("v.1.jsonl")


def test_a_row_has_all_that_the_records_say() -> None:
    join = Join()
    join.add(opened("a"), file="f", worker="w", now=0.0)
    end = ended("a").model_copy(
        update={"phases": (Phase(name="load", at=1.0, seconds=0.5),), "cached_tokens": 99, "first_byte_ms": 3.0}
    )
    join.add(end, file="f", worker="w", now=0.0)
    row = settle_all(join)[0]
    assert row.phases == '[{"name":"load","at":1.0,"seconds":0.5}]'
    assert row.cached_tokens == 5, "cached tokens are part of the input"
    assert (row.price_version, row.cost, row.first_byte_ms) == (7, 0, 3.0)
