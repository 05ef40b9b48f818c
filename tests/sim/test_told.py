"""What routers and Postgres are told of starts and of depth, in simulated time: little, and nothing that is not so."""

from __future__ import annotations

import pytest

from activator import events
from activator.wire import Depths, Table
from runtime.wire import Phase, PhaseName
from tests.activator_world import World
from tests.fakes_activator import endpoint, report, revision


@pytest.fixture
def world() -> World:
    made = World(endpoint("a", revision("a", max_replicas=2, target_concurrency=1)))
    made.connect_agent()
    made.join()
    return made


def tick(world: World, seconds: float = 0.0) -> None:
    world.now += seconds
    world.handle(events.Tick())


def finished(world: World, *names: PhaseName) -> None:
    """The replica that starts has these phases behind it."""
    (replica_id,) = world.agent.starting()
    world.becomes(replica_id, "starting", phases=tuple(Phase(name=name, at=0.0, seconds=0.5) for name in names))


def test_a_quick_start_is_told_of_twice_and_a_slow_one_phase_by_phase(world: World) -> None:
    router = world.routers["w1"]
    world.demand(1)
    finished(world, "fetch")
    finished(world, "fetch", "spawn")
    tick(world, 0.9)
    assert len(world.effects.of(Table)) == 2, "the whole one, and that it starts"
    router.apply()
    assert (router.revision("rev_a1").starting, router.revision("rev_a1").phase) == (True, None)
    tick(world, 0.2)
    router.apply()
    row = router.revision("rev_a1")
    assert (row.phase, row.phase_began_seconds) == ("load", 1.0)
    finished(world, "fetch", "spawn", "load")
    tick(world, 0.2)
    tick(world, 0.2)
    router.apply()
    assert (router.revision("rev_a1").phase, len(world.effects.of(Table))) == ("init", 4)
    world.ready()
    tick(world)
    router.apply()
    row = router.revision("rev_a1")
    assert (row.phase, row.phase_began_seconds, row.starting) == (None, 0.0, False)
    assert row.replicas[0].rung == "standby"


def test_a_router_that_comes_meanwhile_hears_the_phase_too(world: World) -> None:
    world.demand(1)
    tick(world, 1.5)
    late = world.join("w2")
    late.apply()
    assert late.revision("rev_a1").phase == "fetch"


def test_each_start_leaves_one_row_ready_or_not(world: World) -> None:
    world.demand(1)
    world.now += 2.0
    (first,) = world.agent.starting()
    world.becomes(first, "ready", phases=(Phase(name="load", at=world.now - 2.0, seconds=2.0),))
    assert world.effects.cold_starts == [(first, "standby", 2.0, "")]
    world.becomes(first, "stopped", failed=True, reason="it fell over")  # a death is no start
    assert len(world.effects.cold_starts) == 1
    (second,) = world.agent.starting()
    world.now += 0.5
    world.becomes(second, "stopped", failed=True, reason="no memory")
    assert world.effects.cold_starts[1:] == [(second, "standby", 0.5, "no memory")]
    assert world.reconciler.state.estimates.seconds("rev_a1", "standby", 0) == 2.0, (
        "nothing is learned from one that failed"
    )


@pytest.mark.parametrize("forget_rows", [False, True])
def test_what_is_learned_of_a_start_is_the_same_whoever_saw_its_end(world: World, forget_rows: bool) -> None:
    world.demand(1)
    (replica_id,) = world.agent.starting()
    began = world.now
    world.now += 100.0  # it is ready after two seconds, and no activator there to hear it
    world.restart(forget_rows=forget_rows)
    phases = (Phase(name="load", at=began, seconds=2.0),)
    world.agent.replicas[replica_id] = report(replica_id, "ready", phases=phases, rung="standby")
    world.connect_agent()
    assert world.reconciler.state.estimates.seconds("rev_a1", "standby", 0) == 2.0


def test_of_a_start_that_says_nothing_of_its_phases_nothing_is_learned(world: World) -> None:
    expected = world.reconciler.state.estimates
    before = expected.seconds("rev_a1", "standby", 0)
    world.demand(1)
    world.ready()
    assert expected.seconds("rev_a1", "standby", 0) == before


def test_each_climb_of_one_that_was_parked_leaves_a_row_of_its_own() -> None:
    world = World(endpoint("a", revision("a", zero="parked")))
    world.connect_agent()
    world.join()
    world.demand(1)
    replica_id = world.ready()
    for climb in (1, 2):
        world.demand(0)
        world.pass_time(61.0)
        world.becomes(replica_id, "parked", memory_bytes=5)
        tick(world)
        world.demand(1)
        phases = (Phase(name="spawn", at=0.0, seconds=0.02), Phase(name="canary", at=0.02, seconds=0.03))
        world.now += 0.05
        world.becomes(replica_id, "ready", climb=climb, rung="parked", phases=phases)
    assert world.effects.cold_starts[1:] == [
        (f"{replica_id}.1", "parked", 0.05, ""),
        (f"{replica_id}.2", "parked", 0.05, ""),
    ]
    world.routers["w1"].apply()
    (row,) = world.routers["w1"].revision("rev_a1").replicas
    assert (row.cold_start_id, row.rung, [phase.name for phase in row.phases]) == (
        f"{replica_id}.2",
        "parked",
        ["place", "spawn", "canary"],
    )
    assert world.routers["w1"].revision("rev_a1").expected_seconds == 0.05, "from where it would come up again"


def test_one_that_is_not_wanted_any_more_is_no_cold_start_and_one_given_up_is(world: World) -> None:
    world.demand(1)
    (given_up,) = world.agent.starting()
    tick(world, world.settings.start_deadline_seconds + 1.0)
    assert [(replica_id, reason.split()[0]) for replica_id, _, _, reason in world.effects.cold_starts] == [
        (given_up, "not")
    ]
    world.becomes(given_up, "stopped")
    assert len(world.effects.cold_starts) == 1


def test_depth_is_told_to_two_routers_of_two_replicas_without_a_table(world: World) -> None:
    world.join("w2")
    for router_id in ("w1", "w2"):
        world.demand(1, router_id=router_id)
    first, second = world.agent.starting()
    for replica_id in (first, second):
        world.becomes(replica_id, "ready")
    for router_id in ("w1", "w2"):
        world.demand(router_id=router_id)
    tables = len(world.effects.of(Table))
    world.becomes(first, "ready", in_flight=3)
    assert not world.effects.of(Depths), "gathered till the next tick"
    tick(world, 0.25)
    assert [frame.others for frame in world.effects.of(Depths)] == [{first: 3}, {first: 3}]
    tick(world, 0.25)
    assert len(world.effects.of(Depths)) == 2 and len(world.effects.of(Table)) == tables
    world.leave("w2")
    tick(world, 0.25)
    assert [frame.others for frame in world.effects.of(Depths)][2:] == [{first: 0}]
