"""Where revisions rest, and how they come up again: parking, what becomes of it in between, and answers that were
wrong.
"""

from __future__ import annotations

import pytest

from activator import events
from activator.policy import scaler
from activator.policy.lifecycle import UNPARK_SECONDS
from activator.policy.quarantine import BAD_SECONDS
from runtime.wire import Drain, KeepStandbys, Park, Start, Stop, Unpark
from tests.activator_world import SimAgent, World
from tests.fakes_activator import endpoint, report, revision


@pytest.fixture
def world() -> World:
    made = World(endpoint("a", revision("a", zero="parked", max_replicas=2)))
    made.connect_agent()
    made.join()
    return made


def ordered(agent: SimAgent) -> list[str]:
    return [kind.__name__ for kind, _ in agent.ordered]


def parked(world: World) -> str:
    """From zero to a replica that is parked."""
    world.demand(1)
    replica_id = world.ready()
    world.demand(0)
    world.pass_time(61.0)
    world.becomes(replica_id, "parked", memory_bytes=5)
    return replica_id


# There and back


def test_at_the_idle_timeout_the_last_replica_is_parked_and_no_router_knows_it(world: World) -> None:
    router = world.routers["w1"]
    world.demand(5)
    first, second = world.agent.starting()
    for replica_id in (first, second):
        world.becomes(replica_id, "ready")
    world.demand(0)
    world.pass_time(61.0)
    states = world.states()
    assert sorted(states.values()) == ["draining", "parking"], "one is kept, the surplus ends"
    router.apply()
    assert router.sends_to() == set() and all(row.draining for row in router.revision("rev_a1").replicas)
    assert sorted(ordered(world.agent)) == ["Drain", "Park", "Start", "Start"]
    (replica_id,) = world.agent.parking()
    world.becomes(replica_id, "parked", memory_bytes=5)
    router.apply()
    assert replica_id not in {row.replica_id for row in router.revision("rev_a1").replicas}
    assert world.effects.rows[replica_id] == ["starting", "ready", "parking", "parked"]
    world.pass_time(1000.0)
    assert world.states()[replica_id] == "parked"


def test_parked_for_an_hour_and_then_ended_where_the_policy_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scaler alone decides it: one number there, and nothing else knows."""
    monkeypatch.setattr(scaler, "PARKED_SECONDS", 3600.0)
    replica_id = parked(world)
    world.pass_time(3600.0 - 62.0, step=60.0)
    assert world.states() == {replica_id: "parked"}
    world.pass_time(60.0, step=60.0)
    assert world.states() == {replica_id: "draining"}
    world.becomes(replica_id, "stopped")
    world.pass_time(120.0, step=60.0)
    assert not world.states() and not world.reconciler.state.awake, "it is at rest, and looked at no more"


def test_the_status_says_why(world: World) -> None:
    def reason() -> str:
        return str(world.status()["endpoints"][0]["revisions"][0]["reason"])

    assert reason() == "no requests"
    world.demand(5)
    assert reason() == "5 requests, at most 4 a replica"
    for replica_id in world.agent.starting():
        world.becomes(replica_id, "ready")
    world.demand(0)
    world.pass_time(1.0)
    assert reason() == "requests within the last 60 s needed 2"
    world.pass_time(61.0)
    assert reason() == "no requests"
    world.handle(events.ShutDown())
    assert reason() == "the installation is shutting down"


def test_demand_brings_it_up_as_a_climb_of_its_own(world: World) -> None:
    replica_id = parked(world)
    router = world.routers["w1"]
    world.demand(1)
    (unpark,) = world.effects.of(Unpark)
    assert (unpark.replica_id, unpark.climb) == (replica_id, 1) and ordered(world.agent)[-1] == "Unpark"
    router.apply()
    assert router.revision("rev_a1").starting and router.sends_to() == set()
    world.now += 0.05
    world.becomes(replica_id, "ready")
    router.apply()
    (row,) = router.revision("rev_a1").replicas
    assert row.cold_start_id == f"{replica_id}.1" and row.rung == "parked" and not row.draining
    assert [phase.name for phase in row.phases] == ["place"], "its phases began anew"
    world.demand(0)
    world.pass_time(61.0)
    world.becomes(replica_id, "parked")
    world.demand(1)
    assert [unpark.climb for unpark in world.effects.of(Unpark)] == [1, 2]


def test_more_than_one_is_asked_for(world: World) -> None:
    replica_id = parked(world)
    world.demand(8)
    assert ordered(world.agent)[-2:] == ["Unpark", "Start"]
    assert world.agent.starting()[0] == replica_id


def test_what_is_told_of_an_earlier_climb_changes_nothing(world: World) -> None:
    replica_id = parked(world)
    world.demand(1)
    for state in ("parked", "ready", "parking"):
        world.becomes(replica_id, state, climb=0)
        assert world.states()[replica_id] == "starting", f"an old {state}"
    world.agent.replicas[replica_id] = world.agent.replicas[replica_id].model_copy(update={"climb": 1})
    world.becomes(replica_id, "ready")
    assert world.states()[replica_id] == "ready"


def test_demand_before_the_routers_have_heard_of_the_parking(world: World) -> None:
    world.join("w2")
    world.demand(0, router_id="w2")
    world.demand(1)
    replica_id = world.ready()
    world.demand(0)
    world.pass_time(61.0, lagging=["w2"])
    assert world.states()[replica_id] == "parking" and ordered(world.agent) == ["Start"]
    world.demand(1)
    assert ordered(world.agent) == ["Start"], "w2 could still send to it"
    assert world.routers["w1"].sends_to() == set()
    world.demand(router_id="w2")
    assert ordered(world.agent) == ["Start", "Park", "Unpark"], "the agent takes the one back for the other"
    world.becomes(replica_id, "ready")
    world.routers["w1"].apply()
    assert world.routers["w1"].sends_to() == {replica_id}


def test_demand_that_comes_and_goes_before_the_routers_have_heard(world: World) -> None:
    world.join("w2")
    world.demand(0, router_id="w2")
    world.demand(1)
    replica_id = world.ready()
    world.demand(0)
    world.pass_time(61.0, lagging=["w2"])
    world.demand(1)
    world.demand(0)
    world.pass_time(61.0, lagging=["w2"])
    world.demand(router_id="w2")
    assert ordered(world.agent) == ["Start", "Park"]
    world.becomes(replica_id, "parked")
    assert world.states() == {replica_id: "parked"}


def test_demand_while_it_parks(world: World) -> None:
    world.demand(1)
    replica_id = world.ready()
    world.demand(0)
    world.pass_time(61.0)
    world.demand(1)
    assert ordered(world.agent) == ["Start", "Park", "Unpark"]
    assert world.agent.starting() == [replica_id]
    world.becomes(replica_id, "ready")
    assert world.states() == {replica_id: "ready"}


# Deaths


def test_a_parked_replica_that_dies_is_forgotten_and_the_next_call_starts_another(world: World) -> None:
    replica_id = parked(world)
    world.becomes(replica_id, "stopped", failed=True, reason="killed")
    assert world.states() == {}
    world.routers["w1"].apply()
    assert world.routers["w1"].revision("rev_a1").failure == ""
    world.demand(1)
    assert ordered(world.agent)[-1] == "Start"


def test_one_that_dies_on_its_way_up_fails_nobody(world: World) -> None:
    replica_id = parked(world)
    world.demand(1)
    world.becomes(replica_id, "stopped", failed=True, reason="killed")
    world.routers["w1"].apply()
    assert world.routers["w1"].revision("rev_a1").failure == "" and ordered(world.agent)[-1] == "Start"
    world.ready()


def test_one_that_does_not_come_up_in_time_is_ended_and_another_started(world: World) -> None:
    replica_id = parked(world)
    world.demand(1)
    world.pass_time(UNPARK_SECONDS + 1)
    assert ordered(world.agent)[-2:] == ["Stop", "Start"] and world.states()[replica_id] == "draining"
    world.routers["w1"].apply()
    assert world.routers["w1"].revision("rev_a1").failure == ""


def test_a_dead_agents_parked_replica_is_gone(world: World) -> None:
    parked(world)
    world.disconnect_agent(dead=True)
    assert world.states() == {}


def test_a_parking_that_never_ends_is_ended(world: World) -> None:
    world.demand(1)
    replica_id = world.ready()
    world.demand(0)
    world.pass_time(61.0)
    world.pass_time(41.0)
    assert ordered(world.agent) == ["Start", "Park", "Stop"]
    world.becomes(replica_id, "stopped")
    world.demand(1)
    assert ordered(world.agent)[-1] == "Start"


# The activator itself, and commands


@pytest.mark.parametrize("forget_rows", [False, True])
def test_a_new_activator_adopts_what_is_parked(world: World, forget_rows: bool) -> None:
    replica_id = parked(world)
    world.restart(forget_rows=forget_rows)
    world.join()
    world.connect_agent()
    world.demand(0)
    world.pass_time(100.0)
    assert world.states() == {replica_id: "parked"}
    world.demand(1)
    assert ordered(world.agent)[-1] == "Unpark"
    world.becomes(replica_id, "ready")
    world.routers["w1"].apply()
    assert world.routers["w1"].sends_to() == {replica_id}


def test_a_new_activator_finishes_a_climb_of_the_old_one(world: World) -> None:
    replica_id = parked(world)
    world.demand(1)
    world.restart()
    world.join()
    world.connect_agent()
    world.demand(1)
    assert ordered(world.agent)[-1] == "Unpark", "no second one"
    world.becomes(replica_id, "ready")
    world.demand(0)
    world.pass_time(61.0)
    world.becomes(replica_id, "parked")
    world.demand(1)
    assert world.effects.of(Unpark)[-1].climb == 2


def test_commands_lost_with_a_link_are_said_again(world: World) -> None:
    world.demand(1)
    replica_id = world.ready()
    world.demand(0)
    world.pass_time(61.0)
    # the Park never arrived
    world.agent.replicas[replica_id] = world.agent.replicas[replica_id].model_copy(update={"state": "ready"})
    world.disconnect_agent()
    world.connect_agent()
    assert ordered(world.agent) == ["Start", "Park", "Park"]
    world.becomes(replica_id, "parked")
    world.demand(1)
    world.agent.replicas[replica_id] = world.agent.replicas[replica_id].model_copy(
        update={"state": "parked", "climb": 0}
    )  # nor the Unpark
    world.disconnect_agent()
    world.connect_agent()
    assert ordered(world.agent)[-2:] == ["Unpark", "Unpark"]
    world.becomes(replica_id, "ready")
    assert world.states() == {replica_id: "ready"}


def test_a_deploy_ends_what_the_old_revision_has_parked(world: World) -> None:
    replica_id = parked(world)
    world.store(endpoint("a", revision("a", zero="parked", max_replicas=2), revision("a", 2, zero="parked")))
    assert world.agent.ordered[-1] == (Stop, replica_id)


def test_removing_and_shutting_down_end_it(world: World) -> None:
    replica_id = parked(world)
    world.handle(events.ShutDown())
    assert world.agent.ordered[-1] == (Stop, replica_id) and not world.reconciler.is_finished
    world.becomes(replica_id, "stopped")
    assert world.reconciler.is_finished


def test_an_endpoint_that_is_removed_keeps_nothing_parked(world: World) -> None:
    replica_id = parked(world)
    world.store(endpoint("a", removed=True))
    assert world.agent.ordered[-1] == (Stop, replica_id)


# Memory

GIB = 1 << 30


def crowded(*, b_zero: str = "parked") -> World:
    """Two endpoints, of whose replicas one fits."""
    a = endpoint("a", revision("a", zero="parked", weight_bytes=10 * GIB))
    world = World(a, endpoint("b", revision("b", zero=b_zero, weight_bytes=10 * GIB)), memory_fraction=1.0)
    world.agent.memory_bytes = 20 * GIB
    world.connect_agent()
    world.join()
    return world


def test_a_parked_replica_counts_what_it_holds() -> None:
    world = crowded()
    replica_id = parked(world)
    assert world.reconciler.state.nodes.known["n1"].replica_bytes == 5
    world.demand(1, "rev_b1")
    assert ordered(world.agent)[-1] == "Start", "there is room beside it"
    (b,) = world.agent.starting()
    world.becomes(b, "ready")
    world.demand(0, "rev_b1")
    world.demand(1)
    world.demand()
    assert ordered(world.agent)[-1] == "Drain" and world.agent.ordered[-1][1] == b, (
        "to come up it needs its room: the idle one goes"
    )
    world.becomes(b, "stopped")
    assert world.agent.ordered[-1] == (Unpark, replica_id)


def test_what_a_parked_one_holds_is_not_taken_for_what_one_that_serves_needs() -> None:
    world = crowded()
    replica_id = parked(world)
    memory = world.reconciler.state.memory
    assert "rev_a1" not in memory.measured
    world.demand(1)
    world.say(report(replica_id, "parked", memory_bytes=5, climb=0))
    assert world.reconciler.state.nodes.known["n1"].replica_bytes == 12 * GIB, "what crossed the un-parking is old"
    world.agent.replicas[replica_id] = report(replica_id, "starting", climb=1)
    world.becomes(replica_id, "ready", memory_bytes=11 * GIB)
    assert memory.measured["rev_a1"] == 11 * GIB
    world.demand(0)
    world.pass_time(61.0)
    world.becomes(replica_id, "parked", memory_bytes=5)
    world.store(endpoint("a", removed=True))
    world.say(report(replica_id, "parked", memory_bytes=6, climb=1))
    assert memory.measured["rev_a1"] == 11 * GIB


def test_parked_ones_go_before_those_that_serve() -> None:
    world = World(
        endpoint("a", revision("a", zero="parked", weight_bytes=10 * GIB)),
        endpoint("b", revision("b", weight_bytes=2 * GIB, idle_timeout_seconds=1000.0)),
        endpoint("c", revision("c", weight_bytes=10 * GIB)),
        memory_fraction=1.0,
    )
    world.agent.memory_bytes = 24 * GIB
    world.connect_agent()
    world.join()
    world.demand(1, "rev_b1")
    b = world.ready()
    world.demand(0, "rev_b1")
    replica_id = parked(world)
    world.becomes(replica_id, "parked", memory_bytes=11 * GIB)
    world.demand(1, "rev_c1")
    assert world.agent.ordered[-1] == (Stop, replica_id), "no router knows it: no drain"
    assert world.states()[b] == "ready"
    world.becomes(replica_id, "stopped")
    assert ordered(world.agent)[-1] == "Start"


# Answers that were wrong


def wrong(world: World, replica_id: str) -> None:
    world.becomes(replica_id, "stopped", failed=True, mismatch=True, reason="the canary said [1], not [2]")


def test_each_wrong_answer_leads_a_rung_down_with_the_same_callers_held(world: World) -> None:
    router = world.routers["w1"]
    first = parked(world)
    world.demand(1)
    wrong(world, first)
    (second,) = world.agent.starting()
    assert not world.agent.plain[second], "a fork with its baked copy"
    router.apply()
    assert router.revision("rev_a1").failure == ""
    wrong(world, second)
    (third,) = world.agent.starting()
    assert world.agent.plain[third], "nothing that was kept is trusted"
    router.apply()
    assert router.revision("rev_a1").failure == ""
    wrong(world, third)
    router.apply()
    failure = router.revision("rev_a1").failure
    assert "the canary said [1]" in failure and "remove the record" in failure and world.agent.starting() == []
    assert [event.kind for event in world.effects.events] == ["canary_mismatch"] * 3
    assert ["standby is next" in event.text or "plain is next" in event.text for event in world.effects.events] == [
        True,
        True,
        False,
    ]
    assert world.status()["endpoints"][0]["revisions"][0]["bad_rungs"] == [["n1", "parked"], ["n1", "standby"]]


def test_a_bad_rung_is_passed_over_for_a_while(world: World) -> None:
    first = parked(world)
    world.demand(1)
    wrong(world, first)
    second = world.ready()
    world.demand(0)
    world.pass_time(61.0)
    assert world.agent.ordered[-1] == (Drain, second), "it is not parked here any more"
    world.becomes(second, "stopped")
    world.pass_time(60.0)
    assert world.status()["endpoints"][0]["revisions"][0]["bad_rungs"] == [["n1", "parked"]], "at zero too"
    world.pass_time(BAD_SECONDS, step=60.0)
    parked(world)


def test_a_wrong_answer_of_a_plain_start_is_not_a_circle(world: World) -> None:
    world.demand(1)
    wrong(world, world.agent.starting()[0])
    wrong(world, world.agent.starting()[0])
    assert world.agent.starting() == []
    world.pass_time(1.0)
    (again,) = world.agent.starting()
    assert world.agent.plain[again], "after its pause, from the last rung only"
    replica_id = world.ready()
    world.becomes(replica_id, "stopped", failed=True, reason="killed")
    (next_one,) = world.agent.starting()
    assert not world.agent.plain[next_one], "a plain start has made anew what was not trusted"


def test_a_new_activator_does_not_step_on_what_the_old_one_found_bad(world: World) -> None:
    first = parked(world)
    world.demand(1)
    wrong(world, first)
    wrong(world, world.agent.starting()[0])
    (plain,) = world.agent.starting()
    world.agent.replicas.clear()  # it dies with the activator
    world.restart()
    world.join()
    world.connect_agent()
    assert world.status()["endpoints"][0]["revisions"][0]["bad_rungs"] == [["n1", "parked"], ["n1", "standby"]]
    world.demand(1)
    (third,) = world.agent.starting()
    assert third != plain and world.agent.plain[third]
    world.ready()
    world.restart()
    world.join()
    world.connect_agent()
    assert world.status()["endpoints"][0]["revisions"][0]["bad_rungs"] == [["n1", "parked"]], "the other was made anew"
    world.store(endpoint("a", revision("a", zero="parked", max_replicas=2), revision("a", 2, zero="parked")))
    world.demand(1, "rev_a2")
    (of_new,) = world.agent.starting()
    assert not world.agent.plain[of_new], "a new revision begins with a clean record"


def test_one_that_was_started_plain_and_parked_is_wrong_as_a_parked_one(world: World) -> None:
    world.demand(1)
    wrong(world, world.agent.starting()[0])
    (plain,) = world.agent.starting()
    assert world.agent.plain[plain]
    assert parked(world) == plain
    world.demand(1)
    wrong(world, plain)
    (below,) = world.agent.starting()
    assert not world.agent.plain[below], "the plain start made `standby` good again"
    world.routers["w1"].apply()
    assert world.routers["w1"].revision("rev_a1").failure == ""
    assert world.status()["endpoints"][0]["revisions"][0]["bad_rungs"] == [["n1", "parked"]]


def test_a_climb_from_parked_makes_nothing_anew(world: World) -> None:
    """Its memory was filled before; that `standby` went bad meanwhile is still so."""
    world.demand(1)
    wrong(world, world.agent.starting()[0])
    (plain,) = world.agent.starting()
    assert parked(world) == plain
    world.demand(8)
    (second,) = [replica_id for replica_id in world.agent.starting() if replica_id != plain]
    wrong(world, second)
    world.becomes(plain, "ready")
    assert world.status()["endpoints"][0]["revisions"][0]["bad_rungs"] == [["n1", "standby"]]


# No standby


def test_where_all_rest_on_staged_no_standby_is_kept_at_zero() -> None:
    world = World(endpoint("a", revision("a", zero="staged")), endpoint("b", revision("b", zero="staged")))
    world.connect_agent()
    world.join()
    world.demand(0)
    world.pass_time(1.0)
    assert world.agent.standbys_at_most == 0
    world.demand(1)
    assert ordered(world.agent) == ["Start"]
    world.pass_time(1.0)
    assert world.agent.standbys_at_most is None, "while anything runs there is one"
    world.ready()
    world.demand(0)
    world.pass_time(62.0)
    for replica_id in list(world.agent.replicas):
        world.becomes(replica_id, "stopped")
    world.pass_time(1.0)
    assert world.agent.standbys_at_most == 0
    world.disconnect_agent()
    world.connect_agent()
    world.pass_time(1.0)
    assert [command.at_most for command in world.effects.of(KeepStandbys)] == [0, None, 0], (
        "it is not told what it knows"
    )
    world.store(endpoint("c", revision("c")))
    world.pass_time(1.0)
    assert world.agent.standbys_at_most is None
    world.store(endpoint("c", removed=True))
    world.pass_time(1.0)
    assert world.agent.standbys_at_most == 0


def test_without_any_endpoint_the_standby_stays() -> None:
    world = World()
    world.connect_agent()
    world.pass_time(1.0)
    assert world.effects.of(KeepStandbys) == [] and world.effects.of(Start) == [] and world.effects.of(Park) == []
