"""Fewer fit than are called: each is served within the stated bound, nobody starves, and places change hands no oftener
than they may.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from activator import events
from activator.policy.turns import STARTS_STAYED
from runtime.wire import Drain, Start, Stop
from tests.activator_world import World
from tests.fakes_activator import endpoint, revision
from tests.sim.room import GIB, Node, alternating, busy, open_loop


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


@pytest.mark.parametrize(
    ("endpoints", "places", "seconds", "step"), [(2, 1, 300.0, 0.25), (10, 3, 300.0, 0.25), (100, 10, 200.0, 0.5)]
)
def test_each_is_served_within_the_bound_however_busy_the_others_are(
    endpoints: int, places: int, seconds: float, step: float
) -> None:
    came_to = busy(endpoints, places, seconds, step=step)
    assert came_to.longest_wait <= came_to.promised
    assert came_to.least_served >= STARTS_STAYED, "a switch before the least stay of four starts was over"
    assert came_to.starts <= places * (seconds / STARTS_STAYED + 1)
    assert came_to.cuts == 0, "one was stopped instead of drained"
    assert came_to.shares[0] > 0.5 and came_to.shares[1] < 2.0


def test_alternating_calls_make_at_most_one_switch_per_least_stay() -> None:
    came_to, answered = alternating(20)
    assert answered == 20
    assert came_to.starts - 1 <= came_to.seconds / STARTS_STAYED + 1
    came_to, came = open_loop(120.0, 0.5)
    assert came_to.starts - 1 <= came_to.seconds / STARTS_STAYED + 1 < came / 5
    assert came_to.longest_wait <= came_to.promised


def test_one_that_needs_all_the_room_gets_it_among_many_small_ones() -> None:
    node = Node([3, *[1] * 6], 3)
    for name in node.names[1:]:  # not together, so that their least stays end at different times
        node.call(name, 2)
        node.run(3.3)
    node.call(node.names[0], 2)
    node.run(200.0)
    came_to = node.figures(200.0)
    assert came_to.served["e000"] > 2 * STARTS_STAYED, "it came round more than once"
    longest = node.waits["e000"]
    assert longest <= node.turn + 4 * node.cycle, (
        "two cycles of six small ones in three places, and one for all three to have stayed"
    )
    assert min(came_to.served.values()) > 0 and came_to.least_served >= STARTS_STAYED


def test_who_comes_between_two_ticks_takes_nothing_from_those_that_wait() -> None:
    node = Node([1, 1, 1], 1)
    world, state = node.world, node.world.reconciler.state
    node.call("e000", 1)
    node.run(2.0)
    node.call("e000", 0)
    node.call("e002", 1)
    while not node.serves("e002"):
        node.turn_once()
    node.call("e002", 0)
    (serving,) = state.replicas.of("rev_e0021")
    world.becomes(serving.replica_id, "ready", in_flight=0)
    node.call("e000", 1)
    assert serving.ready_at is not None
    world.now = serving.ready_at + STARTS_STAYED + 0.5
    node.call("e001", 1)
    assert world.states() == {serving.replica_id: "ready"}, "the one that waits was not asked yet"
    world.handle(events.Tick())
    assert world.states() == {serving.replica_id: "draining"} and set(state.memory.promised) == {"rev_e0001"}


def test_one_that_cannot_start_costs_the_others_little() -> None:
    node = Node([1, 1], 1, broken=("e001",))
    for name in node.names:
        node.call(name, 2)
    node.run(600.0)
    assert node.figures(600.0).served["e000"] > 0.95 * 600.0
    assert 3 <= len(node.stays) <= 7, "it gets its turns, each after twice the time"


def test_min_replicas_never_give_way() -> None:
    node = Node([1, 1, 1], 2, least=[1, 0, 0])
    for name in node.names:
        node.call(name, 2)
    node.run(120.0)
    kept, *others = node.names
    assert node.served[kept] >= 118.0
    assert min(node.served[name] for name in others) > 25.0


def test_where_nothing_may_give_way_it_is_said_at_once_and_an_event_tells_of_it() -> None:
    node = Node([1, 1, 1], 2, least=[1, 1, 0])
    node.run(5.0)
    node.call("e002", 1)
    router = node.world.routers["w1"]
    router.apply()
    assert "lower the min_replicas of others" in router.revision("rev_e0021").waits_for
    node.run(90.0)
    assert router.revision("rev_e0021").failure == "" and node.served["e002"] == 0
    (event,) = node.world.effects.events
    assert (event.kind, event.revision_id) == ("no_room", "rev_e0021") and "1.0 GiB needed" in event.text


def test_what_is_held_hears_whose_turn_it_is() -> None:
    node = Node([1, 1], 1, answer=3.0)
    node.call("e000", 2)
    node.run(3.0)
    node.call("e001", 1)
    node.run(1.0)
    router = node.world.routers["w1"]
    assert "its turn comes after 10 s" in router.revision("rev_e0011").waits_for
    node.run(10.5)
    assert "room comes from e000" in router.revision("rev_e0011").waits_for
    assert "memory: 1.0 GiB needed" in router.revision("rev_e0001").waits_for, (
        "the one that gave way is held, and hears it too"
    )
    assert node.world.effects.of(Drain)
    node.run(5.0)
    assert router.revision("rev_e0011").waits_for == "" and node.serves("e001")


def test_a_second_replica_waits_for_no_turn_but_gives_way_first() -> None:
    world = World(
        endpoint("a", revision("a", max_replicas=2, engine_args={"kv_cache_memory_bytes": GIB})),
        endpoint("b", revision("b", max_replicas=2, engine_args={"kv_cache_memory_bytes": GIB})),
        memory_fraction=1.0,
    )
    world.agent.memory_bytes = 2 * GIB
    world.connect_agent()
    world.join()
    world.demand(8, "rev_a1")
    for replica_id in world.agent.starting():
        world.becomes(replica_id, "ready", in_flight=4)
    world.demand(8, "rev_b1")
    world.pass_time(11.0)
    (given,) = world.agent.ordered_to_end()
    world.becomes(given, "stopped")
    world.ready()
    world.pass_time(100.0)
    assert sorted(replica.revision_id for replica in world.reconciler.state.replicas.by_id.values()) == [
        "rev_a1",
        "rev_b1",
    ]
    assert len(world.effects.of(Start)) == 3, "each wants a second one, and takes it from nobody"


def test_what_finishes_long_answers_has_only_the_short_time_once_another_is_due() -> None:
    world = World(
        endpoint("a", revision("a", idle_timeout_seconds=0.0, engine_args={"kv_cache_memory_bytes": GIB})),
        endpoint("b", revision("b", engine_args={"kv_cache_memory_bytes": GIB})),
        memory_fraction=1.0,
    )
    world.agent.memory_bytes = GIB
    world.connect_agent()
    world.join()
    world.demand(1)
    first = world.ready()
    world.becomes(first, "ready", in_flight=1)
    newer: dict[str, Any] = {"engine_args": {"kv_cache_memory_bytes": GIB}, "idle_timeout_seconds": 0.0}
    world.store(endpoint("a", revision("a", **newer), revision("a", 2, **newer)))
    world.demand(0)
    world.pass_time(8.0)
    assert world.states() == {first: "draining"}
    world.demand(1, "rev_b1")
    world.pass_time(8.0)
    assert world.reconciler.state.replicas.by_id[first].hurried_at is None
    world.pass_time(3.0)
    assert world.reconciler.state.replicas.by_id[first].hurried_at is not None, "b is due"
    world.pass_time(world.settings.drain_seconds + 1.0)
    assert (Stop, first) in world.agent.ordered
    world.becomes(first, "stopped")
    assert world.agent.starting()


def calls_of_a_tick(endpoints: int, waiting: int) -> int:
    """Python calls of one tick, with so many that rest beside those that wait."""
    node = Node([1] * endpoints, 2)
    for name in node.names[: waiting + 2]:
        node.call(name, 1)
    node.run(5.0)
    profile = cProfile.Profile()
    profile.runcall(node.world.reconciler.handle, events.Tick())
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def test_a_tick_costs_nothing_for_endpoints_that_rest() -> None:
    few, many = calls_of_a_tick(60, 40), calls_of_a_tick(600, 40)
    assert many < 1.1 * few, "each that waits walks all that rest"
    assert calls_of_a_tick(60, 20) > 0.3 * few, "and it grows with those that wait no faster than they"
