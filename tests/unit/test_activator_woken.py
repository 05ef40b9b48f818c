"""A wake starts one replica as a call would, once, and is over when it is ready, has failed, or nobody would wait any
longer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from activator.events import WakeAsked
from activator.policy.failures import FailureHistory
from activator.state.wakes import Wakes
from activator.wire import Done
from tests.activator_world import World
from tests.fakes_activator import endpoint, revision


def woken(world: World, name: str = "a", org_id: str = "default") -> Done:
    said: list[Done] = []
    world.handle(WakeAsked(org_id, name, said.append))
    return said[0]


def at_rest(**given: Any) -> World:
    world = World(endpoint("a", revision("a", idle_timeout_seconds=5.0, **given)))
    world.connect_agent()
    world.join()
    world.pass_time(15.0)
    assert not world.states()
    return world


def test_a_wake_starts_one_replica_which_goes_back_to_rest_after_its_idle_timeout() -> None:
    world = at_rest()
    done = woken(world)
    assert done.ok and done.result["ready"] is False and list(world.states().values()) == ["starting"]
    world.ready()
    world.pass_time(4.0)
    assert list(world.states().values()) == ["ready"]
    assert woken(world).result["ready"] is True
    world.pass_time(10.0)
    assert not {"ready", "starting"} & set(world.states().values())


def test_a_wake_while_one_starts_starts_no_other() -> None:
    world = at_rest(max_replicas=3)
    for _ in range(3):
        woken(world)
    assert list(world.states().values()) == ["starting"]


def test_a_start_that_fails_ends_the_wish() -> None:
    world = at_rest(outcome="")
    woken(world)
    (replica_id,) = world.states()
    world.becomes(replica_id, "stopped", reason="it does not fit")
    world.pass_time(60.0)
    assert not world.states()
    (shown,) = world.status()["endpoints"][0]["revisions"]
    assert shown["outcome"] == "failed" and "it does not fit" in shown["failure"]


def test_a_first_revision_that_was_woken_is_proved() -> None:
    world = at_rest(outcome="")
    woken(world)
    world.ready()
    world.pass_time(1.0)
    assert world.status()["endpoints"][0]["revisions"][0]["outcome"] == "proved"


def test_a_wake_of_what_is_not_there_says_so() -> None:
    world = at_rest()
    for done in (woken(world, "b"), woken(world, "a", "another")):
        assert not done.ok and "there is no endpoint" in done.message


def test_a_wish_ends_when_no_caller_would_wait_any_longer() -> None:
    wishes = Wakes()
    wishes.ask("r", 0.0, 10.0)
    assert wishes.requests("r", ready=False, failures=FailureHistory(failed_starts=3, at=-1.0), now=9.0) == 1, (
        "it failed before"
    )
    assert wishes.waits("r")
    assert wishes.requests("r", ready=False, failures=FailureHistory(), now=10.0) == 0 and not wishes.waits("r")
    wishes.ask("r", 20.0, 10.0)
    assert wishes.requests("r", ready=False, failures=FailureHistory(unplaceable=True, at=20.0), now=21.0) == 0


def paused(world: World, yes: bool = True) -> None:
    (stored,) = [each for each in world.reconciler.state.catalogue if each.name == "a"]
    world.store(replace(stored, paused=yes))


def test_a_paused_endpoint_runs_nothing_whoever_asks_and_serves_again_once_it_is_resumed() -> None:
    world = at_rest()
    woken(world)
    world.ready()
    world.demand(2)
    paused(world)
    world.pass_time(40.0)
    assert not {"ready", "starting"} & set(world.states().values())
    assert world.status()["endpoints"][0]["paused"] is True
    refused = woken(world)
    assert not refused.ok and "`pilotlight resume a`" in refused.message
    paused(world, yes=False)
    world.pass_time(1.0)
    assert "starting" in world.states().values(), "the callers are still there"


def test_what_is_deployed_while_it_is_paused_is_proved_and_then_rests() -> None:
    stored = endpoint("a", revision("a", 1), revision("a", 2, slots=3, outcome=""))
    stored = replace(
        stored, paused=True, route=((stored.revisions[0].revision_id, 100),), next=stored.revisions[1].revision_id
    )
    world = World(stored)
    world.connect_agent()
    world.join()
    world.pass_time(15.0)
    world.ready()
    world.pass_time(1.0)
    (shown,) = world.status()["endpoints"]
    assert shown["route"] == [[stored.next, 100]] and shown["revisions"][-1]["outcome"] == "proved"
    world.pass_time(40.0)
    assert not {"ready", "starting"} & set(world.states().values())
