"""Deploys in simulated time: the old revision serves until the new one has shown that it does, however the new one
fails.

The promise: whoever calls the endpoint while it is deployed anew finds a replica that serves, as before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from activator import events
from activator.catalogue import Endpoint
from activator.wire import Done
from runtime.wire import ArgumentsChecked, CheckArguments, Drain, Start, Stop
from tests.activator_world import World
from tests.fakes_activator import endpoint, revision

GIB = 1 << 30


def to_next(*, old: dict[str, Any] | None = None, **new: Any) -> Endpoint:
    """The endpoint with a second revision on its way."""
    first, second = revision("a", 1, **(old or {})), revision("a", 2, **{"engine_args": {"x": 1}, "outcome": ""} | new)
    return replace(endpoint("a", first), revisions=(first, second), next=second.revision_id)


def warm(**old: Any) -> tuple[World, str]:
    world = World(endpoint("a", revision("a", 1, **old)))
    world.connect_agent()
    world.join()
    world.demand(1)
    return world, world.ready()


def outcome(world: World) -> str:
    return world.reconciler.state.catalogue.endpoints["ep_a"].revisions[0].outcome


def routes(world: World) -> str:
    world.routers["w1"].apply()
    return world.routers["w1"].rows["a"].route[0][0]


def test_the_old_one_serves_until_the_new_one_is_ready() -> None:
    world, old = warm()
    world.store(to_next())
    (new,) = world.agent.starting()
    assert routes(world) == "rev_a1" and old in world.routers["w1"].sends_to()
    world.pass_time(5.0)
    assert world.states() == {old: "ready", new: "starting"}
    world.becomes(new, "ready")
    assert routes(world) == "rev_a2" and world.routers["w1"].sends_to() == {old, new}
    world.demand(0)
    world.pass_time(1.0)
    assert world.states()[old] == "draining" and world.states()[new] == "ready"
    assert [event.kind for event in world.effects.events] == ["deployed"]


@pytest.mark.parametrize("how", ["its start fails", "the agent refuses it", "it never fits", "it dies again and again"])
def test_a_bad_revision_over_a_good_one_leaves_the_good_one_serving(how: str) -> None:
    world, old = warm()
    world.agent.refusing = how == "the agent refuses it"
    world.store(
        to_next(engine_args={"x": 1, "kv_cache_memory_bytes": 900 * GIB} if how == "it never fits" else {"x": 1})
    )
    if how == "its start fails":
        (new,) = world.agent.starting()
        world.becomes(new, "stopped", reason="bad engine argument")
    elif how == "the agent refuses it":
        world.say(world.agent.refused[0])
    elif how == "it dies again and again":
        world.store(to_next(min_replicas=2, max_replicas=2))  # so that one that is ready is not enough
        for _ in range(20):
            for new in world.agent.starting()[:1]:
                world.becomes(new, "ready")
                world.becomes(new, "stopped", reason="out of memory")
            world.pass_time(31.0)
            world.agent.ordered.clear()
    world.pass_time(30.0)
    assert routes(world) == "rev_a1" and world.routers["w1"].sends_to() == {old} and world.states()[old] == "ready"
    known = world.status()["endpoints"][0]
    assert not known["next"] and known["revisions"][1]["outcome"] == "failed" and known["revisions"][1]["failure"]
    (event,) = [event for event in world.effects.events if event.kind != "died"]
    assert event.kind == "deploy_failed" and "revision 1 goes on serving" in event.text
    starts = len(world.effects.of(Start))
    world.pass_time(600.0)
    assert len(world.effects.of(Start)) == starts, "it is not tried again"
    world.demand(9)
    assert world.status()["endpoints"][0]["revisions"][0]["failure"] == ""


def test_at_zero_it_is_proved_by_one_start_and_then_goes_by_its_idle_timeout() -> None:
    world = World(endpoint("a"))
    world.connect_agent()
    world.join()
    world.store(to_next())
    new = world.ready()
    assert routes(world) == "rev_a2"
    world.pass_time(59.0)
    assert world.states() == {new: "ready"}
    world.pass_time(2.0)
    assert world.states() == {new: "draining"}
    assert len(world.effects.of(Start)) == 1


def test_at_zero_what_changes_nothing_of_the_engine_needs_no_start() -> None:
    world = World(endpoint("a"))
    world.connect_agent()
    world.join()
    world.store(to_next(engine_args={}, idle_timeout_seconds=7.0))
    assert routes(world) == "rev_a2" and not world.effects.of(Start)


def test_capacity_and_the_least_number_hold_through_the_switch() -> None:
    world = World(endpoint("a", revision("a", 1, max_replicas=4, min_replicas=2)))
    world.connect_agent()
    world.join()
    world.demand(12)  # three of them
    olds = list(world.agent.starting())
    for old in olds:
        world.becomes(old, "ready")
    assert len(olds) == 3
    world.store(to_next(old={"max_replicas": 4, "min_replicas": 2}, max_replicas=4, min_replicas=2))
    news = world.agent.starting()
    assert len(news) == 3
    for new in news[:2]:
        world.becomes(new, "ready")
        world.pass_time(1.0)
        assert routes(world) == "rev_a1" and all(world.states()[old] == "ready" for old in olds)
    world.becomes(news[2], "ready")
    assert routes(world) == "rev_a2"
    assert all(world.states()[old] == "ready" for old in olds), "they have callers"
    world.demand(0)
    world.demand(12, "rev_a2")
    world.pass_time(10.0)
    assert all(world.states()[old] == "draining" for old in olds) and all(
        world.states()[new] == "ready" for new in news
    )


def test_without_room_for_both_it_waits_and_says_so_and_the_old_one_does_not_give_way() -> None:
    world = World(endpoint("a", revision("a", 1, weight_bytes=4 * GIB)))
    world.agent.memory_bytes = 10 * GIB
    world.connect_agent()
    world.join()
    world.demand(1)
    old = world.ready()
    world.demand(0)
    world.store(to_next(old={"weight_bytes": 4 * GIB}, weight_bytes=4 * GIB))
    world.pass_time(30.0)
    assert world.states() == {old: "ready"} and routes(world) == "rev_a1"
    known = world.status()["endpoints"][0]
    assert known["next"] == "rev_a2" and "--at-once" in known["revisions"][1]["waits_for"]
    world.pass_time(40.0)  # its idle timeout is over
    world.becomes(old, "stopped")
    world.ready()
    assert routes(world) == "rev_a2"


def short(*others: Endpoint, room: int = 3) -> tuple[World, set[str]]:
    """Two replicas that are called serve; the next revision needs two as well, and there is room for `room` in all.
    Also those that serve.
    """
    old: dict[str, Any] = {"max_replicas": 2, "min_replicas": 2, "weight_bytes": 4 * GIB}
    world = World(endpoint("a", revision("a", 1, **old)), *others, memory_fraction=1.0)
    world.agent.memory_bytes = room * 5 * GIB
    world.connect_agent()
    world.join()
    world.demand(8)
    olds = set(world.agent.starting())
    for replica_id in olds:
        world.becomes(replica_id, "ready", in_flight=4)
    world.store(to_next(old=old, **old))
    return world, olds


def obeyed(world: World, seconds: float) -> None:
    """The agent starts within three seconds, and ends at once what is told to end."""
    until, born = world.now + seconds, dict.fromkeys(world.agent.starting(), world.now)
    while world.now < until:
        world.pass_time(0.5)
        for replica_id in world.agent.starting():
            if world.now - born.setdefault(replica_id, world.now) >= 3.0:
                world.becomes(replica_id, "ready")
        for replica_id in world.agent.ordered_to_end():
            world.becomes(replica_id, "stopped")


def starts(world: World, revision_id: str) -> int:
    return sum(start.revision_id == revision_id for start in world.effects.of(Start))


def of(world: World, revision_id: str) -> set[str]:
    return {replica.replica_id for replica in world.reconciler.state.replicas.of(revision_id)}


def test_with_room_for_some_of_what_it_needs_a_next_revision_keeps_what_it_has() -> None:
    world, olds = short()
    obeyed(world, 900.0)
    assert starts(world, "rev_a2") == 1 and routes(world) == "rev_a1"
    (new,) = of(world, "rev_a2")
    assert world.states() == dict.fromkeys({*olds, new}, "ready") and not world.effects.of(Drain)
    assert "no replica there may be evicted" in world.status()["endpoints"][0]["revisions"][1]["waits_for"]
    world.agent.memory_bytes = 20 * GIB
    world.connect_agent()
    obeyed(world, 10.0)
    assert routes(world) == "rev_a2" and starts(world, "rev_a2") == 2, "and goes on once there is room"


def test_two_next_revisions_that_cannot_both_have_all_they_need_take_nothing_from_each_other() -> None:
    first, second = (
        revision("b", number, outcome="", engine_args={"x": number}, weight_bytes=4 * GIB) for number in (1, 2)
    )
    world, olds = short(endpoint("b", first))
    world.store(replace(endpoint("b", first), revisions=(first, second), next="rev_b2"))
    obeyed(world, 900.0)
    assert (starts(world, "rev_a2"), starts(world, "rev_b2")) == (1, 0)
    assert set(world.states()) == {*olds, *of(world, "rev_a2")} and set(world.states().values()) == {"ready"}


@pytest.mark.parametrize("proved", [False, True])
def test_what_a_next_revision_cannot_use_yet_gives_way_to_a_turn_before_what_serves(proved: bool) -> None:
    world, olds = short(endpoint("b", revision("b", weight_bytes=4 * GIB)))
    if proved:
        obeyed(world, 30.0)
    (new,) = of(world, "rev_a2")
    world.demand(3, "rev_b1")
    assert world.states()[new] == ("ready" if proved else "starting"), "not before it is its turn"
    obeyed(world, 60.0)
    (other,) = of(world, "rev_b1")
    assert world.states() == dict.fromkeys({*olds, other}, "ready")
    obeyed(world, 900.0)
    assert world.states() == dict.fromkeys({*olds, other}, "ready") and starts(world, "rev_a2") == 1
    world.demand(0, "rev_b1")
    obeyed(world, 120.0)
    assert olds < set(world.states()) and len(of(world, "rev_a2")) == 1 and starts(world, "rev_a2") == 2, (
        "it has its place back"
    )


def test_a_second_deploy_takes_the_place_of_the_first() -> None:
    world, old = warm()
    world.store(to_next())
    (first,) = world.agent.starting()
    third = revision("a", 3, engine_args={"x": 2}, outcome="")
    known = world.reconciler.state.catalogue.endpoints["ep_a"]
    world.store(replace(known, revisions=(*known.revisions, third), next="rev_a3"))
    (second,) = set(world.agent.starting()) - {first}
    world.pass_time(1.0)
    assert (first, "Stop") in [(replica_id, kind.__name__) for kind, replica_id in world.agent.ordered]
    world.becomes(first, "stopped")
    world.becomes(second, "ready")
    assert routes(world) == "rev_a3" and old in world.routers["w1"].sends_to()


def test_an_activator_that_is_killed_on_the_way_goes_on() -> None:
    world, old = warm()
    world.store(to_next())
    (new,) = world.agent.starting()
    world.restart()
    world.connect_agent()
    world.join()
    world.pass_time(1.0)
    assert routes(world) == "rev_a1" and world.agent.starting() == [new], "and starts it no second time"
    world.postgres_away = True
    world.becomes(new, "ready")
    world.pass_time(10.0)
    assert routes(world) == "rev_a1", "what is not stored has not happened"
    world.postgres_away = False
    world.pass_time(3.0)
    assert routes(world) == "rev_a2"
    assert old in world.routers["w1"].sends_to() and not world.effects.of(Drain)


def test_a_first_deploy_that_fails_is_told_too_and_one_that_mends_it_serves_at_once() -> None:
    world = World(endpoint("a", revision("a", 1, min_replicas=1, outcome="")))
    world.connect_agent()
    world.join()
    world.pass_time(1.0)
    (new,) = world.agent.starting()
    world.becomes(new, "stopped", reason="no such file")
    assert [(event.kind, event.text) for event in world.effects.events] == [
        ("deploy_failed", "revision 1 failed: no such file")
    ]
    assert outcome(world) == "failed"
    world.pass_time(10.0)
    world.becomes(world.agent.starting()[0], "ready")
    assert outcome(world) == "proved"
    assert len(world.effects.settled) == 2


def test_a_superseded_broken_revision_is_gone() -> None:
    world, _old = warm()
    world.store(to_next())
    (new,) = world.agent.starting()
    world.becomes(new, "stopped", reason="bad engine argument")
    known = world.reconciler.state.catalogue.endpoints["ep_a"]
    assert [r.outcome for r in known.revisions] == ["proved", "failed"], "the newest stays to be seen"
    world.store(replace(known, revisions=(*known.revisions, revision("a", 3, outcome="")), next="rev_a3"))
    world.pass_time(1.0)
    assert [r["revision_id"] for r in world.status()["endpoints"][0]["revisions"]] == ["rev_a1", "rev_a3"]


@pytest.mark.parametrize("forget_rows", [False, True])
def test_a_leader_that_dies_between_saying_and_doing_leaves_no_replica_retired(forget_rows: bool) -> None:
    world, old = warm()
    world.join("w2")
    world.demand(0)
    world.demand(0, router_id="w2")
    world.pass_time(61.0, lagging=["w2"])  # one router has applied the table that says so, the other has not
    assert old not in world.routers["w1"].sends_to() and not world.effects.of(Drain)
    for replica in world.reconciler.state.replicas.by_id.values():
        replica.state = "ready"  # as its row still says, and its node: nothing of the decision was stored, or done
    world.restart(forget_rows=forget_rows)
    world.connect_agent()
    for name in ("w1", "w2"):
        world.join(name).apply()
    assert world.agent.replicas[old].state == "ready"
    assert old in world.routers["w1"].sends_to() and old in world.routers["w2"].sends_to()


# Running answers


def busy(count: int = 3) -> tuple[World, list[str]]:
    """So many replicas, each with one stream."""
    world = World(endpoint("a", revision("a", max_replicas=count)))
    world.connect_agent()
    world.join()
    world.demand(4 * count)
    olds = world.agent.starting()
    for old in olds:
        world.becomes(old, "ready", in_flight=1)
    world.demand(count)
    return world, olds


def test_a_surplus_of_busy_replicas_waits_a_moment_for_one_to_become_empty() -> None:
    world, olds = busy()
    world.pass_time(61.0)
    assert set(world.states().values()) == {"ready"}
    world.becomes(olds[1], "ready", in_flight=0)
    world.pass_time(0.25)
    assert world.states()[olds[1]] == "draining", "an empty one goes first, and at once"
    world.pass_time(6.0)
    assert sorted(world.states().values()) == ["draining", "draining", "ready"]
    assert [order.seconds for order in world.effects.of(Drain)] == [3600.0, 3600.0]


def test_running_answers_of_an_old_revision_have_the_endpoints_own_time() -> None:
    world, _olds = busy()
    known = world.reconciler.state.catalogue.endpoints["ep_a"]
    second = revision("a", 2, engine_args={"x": 1}, max_replicas=3, outcome="")
    world.store(replace(known, revisions=(*known.revisions, second), route=(("rev_a2", 100),), finish_seconds=100.0))
    world.pass_time(10.0)
    assert {order.seconds for order in world.effects.of(Drain)} == {100.0}
    world.pass_time(95.0)
    assert not world.effects.of(Stop), "none is cut before its time is over"


@pytest.mark.parametrize("how", ["removal", "shutdown"])
def test_a_removal_and_a_shutdown_have_the_short_time_also_for_those_that_drain_already(how: str) -> None:
    world, _olds = busy()
    world.pass_time(68.0)
    assert [order.seconds for order in world.effects.of(Drain)] == [3600.0, 3600.0]
    if how == "removal":
        world.store(replace(world.reconciler.state.catalogue.endpoints["ep_a"], route=(), removed=True))
    else:
        world.handle(events.ShutDown())
    world.pass_time(1.0)
    assert [order.seconds for order in world.effects.of(Drain)] == [3600.0, 3600.0, 30.0]
    world.pass_time(28.0)
    assert not world.effects.of(Stop)
    world.pass_time(3.0)
    assert len({order.replica_id for order in world.effects.of(Stop)}) == 2


def test_one_that_finishes_long_answers_is_no_room_to_come() -> None:
    world, olds = busy()
    world.pass_time(68.0)
    draining = [old for old in olds if world.states()[old] == "draining"]
    assert not world.reconciler.state.replicas.ending()
    for old in draining:
        world.becomes(old, "draining", in_flight=0)
    assert {replica.replica_id for replica in world.reconciler.state.replicas.ending()} == set(draining)


def test_what_must_give_way_has_the_short_time() -> None:
    world = World(
        endpoint("a", revision("a", weight_bytes=4 * GIB)),
        endpoint("b", revision("b", weight_bytes=4 * GIB)),
        least_stay_seconds=0.0,
    )
    world.agent.memory_bytes = 10 * GIB
    world.connect_agent()
    world.join()
    world.demand(1)
    world.ready()
    world.demand(0)
    world.pass_time(2.0)
    world.demand(1, "rev_b1")
    world.pass_time(1.0)
    assert [order.seconds for order in world.effects.of(Drain)] == [30.0]


# Arguments are looked at before anything moves


def asked(world: World) -> list[Done]:
    answers: list[Done] = []
    world.handle(events.ArgumentsAsked(revision("a", 2, engine_args={"x": 1}), answers.append))
    return answers


@pytest.mark.parametrize("reason", ["", "unrecognized arguments: --x"])
def test_a_node_says_whether_the_engine_takes_the_arguments(reason: str) -> None:
    world, _old = warm()
    answers = asked(world)
    (frame,) = world.effects.of(CheckArguments)
    assert (frame.engine_args, frame.task) == ({"x": 1}, "generate") and not answers
    world.say(ArgumentsChecked(check_id=frame.check_id, reason=reason))
    assert [(answer.ok, answer.message) for answer in answers] == [(not reason, reason)]
    world.say(ArgumentsChecked(check_id=frame.check_id, reason="again"))
    assert len(answers) == 1


def test_what_a_node_would_cut_goes_with_the_answer() -> None:
    world, _old = warm()
    answers = asked(world)
    (frame,) = world.effects.of(CheckArguments)
    assert frame.slots == revision("a", 2).slots
    world.say(ArgumentsChecked(check_id=frame.check_id, notes=("its context is cut",)))
    assert answers[0].ok and answers[0].result == {"notes": ["its context is cut"]}


def test_where_nobody_can_say_the_deploy_goes_on_unchecked() -> None:
    world, _old = warm()
    answers = asked(world)
    world.pass_time(4.5)
    assert not answers
    world.pass_time(1.0)
    assert answers[0].ok and "no node has answered" in answers[0].result["unchecked"]
    answers = asked(world)
    world.say(ArgumentsChecked(check_id=world.effects.of(CheckArguments)[-1].check_id, checked=False, reason="busy"))
    assert answers[0].ok and answers[0].result["unchecked"] == "busy"
    world.disconnect_agent()
    assert asked(world)[0].result["unchecked"]
