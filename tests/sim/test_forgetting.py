"""Endpoints come and go for ever: nothing is kept of one that is removed and rests, and of revisions only those that
may still run.
"""

from __future__ import annotations

from dataclasses import replace

from activator.catalogue import Endpoint
from activator.state.memory import MOST_LIKE, Memory
from activator.state.nodes import Nodes
from runtime.wire import Phase
from tests.activator_world import World
from tests.fakes_activator import endpoint, report, revision


def remembered(world: World) -> dict[str, set[str]]:
    """By place, the revisions of which anything is kept."""
    state, catalogue = world.reconciler.state, world.reconciler.state.catalogue
    return {
        "catalogue": {revision.revision_id for endpoint in catalogue for revision in endpoint.revisions},
        "by revision": set(catalogue._of_revision),
        "past starts": {revision_id for revision_id, _ in state.estimates._of} | set(state.estimates._last),
        "memory": set(state.memory.measured),
        "past demand": set(state.history._known),
        "awake": set(state.awake),
        "targets": set(state.targets),
        "failures": set(state.failures.known),
    }


def serves_and_ends(world: World, served: Endpoint) -> None:
    """Demand, a start, an answer, and its removal."""
    [routed] = served.revisions
    world.store(served)
    world.demand(1, routed.revision_id)
    [replica_id] = world.agent.starting()
    world.say(
        report(
            replica_id,
            "ready",
            revision_id=routed.revision_id,
            memory_bytes=1 << 20,
            phases=(Phase(name="load", at=world.now, seconds=1.0),),
        )
    )
    world.demand(0, routed.revision_id)
    world.store(replace(served, route=(), removed=True))
    world.pass_time(1.0)
    world.say(report(replica_id, "stopped", revision_id=routed.revision_id))
    world.pass_time(1.0)


def test_nothing_is_kept_of_an_endpoint_that_is_removed() -> None:
    world = World(endpoint("a"))
    gone: list[str] = []
    world.reconciler.state.catalogue.on_gone = gone.append
    world.connect_agent()
    world.join()
    for number in range(3):
        serves_and_ends(world, endpoint(f"e{number}", revision(f"e{number}")))
    assert {place: kept - {"rev_a1"} for place, kept in remembered(world).items()} == {
        place: set() for place in remembered(world)
    }
    assert [known.name for known in world.reconciler.state.catalogue] == ["a"]
    assert gone == [endpoint(f"e{number}").endpoint_id for number in range(3)]


def test_one_that_is_removed_comes_back() -> None:
    world = World()
    world.connect_agent()
    router = world.join()
    served = endpoint("e", revision("e"))
    for _ in range(2):
        serves_and_ends(world, served)
        router.apply()
        assert "e" not in router.rows
    world.store(served)
    router.apply()
    assert "e" in router.rows


def test_one_that_is_removed_stays_known_while_a_replica_of_it_runs() -> None:
    world = World(endpoint("a"))
    world.connect_agent()
    world.join()
    world.demand(1)
    replica_id = world.ready()
    world.store(replace(endpoint("a"), route=(), removed=True))
    world.pass_time(1.0)
    assert remembered(world)["catalogue"] == {"rev_a1"}
    world.demand(0)
    world.say(report(replica_id, "stopped"))
    world.pass_time(1.0)
    assert not list(world.reconciler.state.catalogue)


def test_what_was_measured_is_kept_for_others_that_run_just_so_and_only_of_so_many() -> None:
    memory = Memory(Nodes(), {})
    for slots in range(1, MOST_LIKE + 3):
        memory._remember(revision("a", slots, slots=slots), 1 << 20)
    memory._remember(revision("a", 3, slots=3), 2 << 20)
    assert len(memory._like) == MOST_LIKE
    assert memory.needs(revision("b", 9, slots=3)).measured_bytes == 2 << 20
    assert memory.needs(revision("b", 9, slots=1)).measured_bytes == 0
    memory.forget("rev_a3")
    assert memory.needs(revision("a", 3, slots=3)).measured_bytes == 2 << 20
