"""The memory of a node in simulated time: starts fit, or the longest idle goes, or callers are held and hear why.

Whatever the order of calls, ends and crashes: what anybody asks for gives way only after its least stay, to one that
has waited for its turn with nothing there; the node is never promised more than it has, and demand never ends in
silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtime.wire import Drain, KeepStandbys, StandbyReport, Start, Stop
from tests.activator_world import World
from tests.fakes_activator import endpoint, revision

GIB = 1 << 30
LEAST_STAY = 4.0  # seconds: four starts from a standby, as long as they are expected to take before any was seen
NAMES = ("a", "b", "c", "d")


def world_of(*sizes: int, budget: int = 8, **given: Any) -> World:
    """A node with a budget of so many GiB, and an endpoint `a`, `b`, … for each size: weights that come to so many
    GiB.
    """
    values: dict[str, Any] = {"engine_args": {}, "idle_timeout_seconds": 1000.0} | given
    args = [{"kv_cache_memory_bytes": size * GIB} for size in sizes]
    made = World(
        *(
            endpoint(name, revision(name, **values | {"engine_args": arg}))
            for name, arg in zip(NAMES, args, strict=False)
        ),
        memory_fraction=0.8,
    )
    made.agent.memory_bytes = int(budget * GIB / 0.8) + 1
    made.connect_agent()
    made.join()
    return made


def call(world: World, name: str, count: int = 1) -> None:
    world.demand(count, f"rev_{name}1")


def wake(world: World, name: str, gib: int) -> str:
    call(world, name)
    (replica_id,) = world.agent.starting()
    world.becomes(replica_id, "ready", memory_bytes=gib * GIB, private_bytes=GIB, kv_cache_bytes=(gib - 1) * GIB)
    return replica_id


def ordered(world: World) -> list[tuple[str, str]]:
    return [(kind.__name__, replica_id) for kind, replica_id in world.agent.ordered]


def node_of(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.status()["nodes"][0]
    return found


def revision_of(world: World, name: str) -> dict[str, Any]:
    return next(e["revisions"][0] for e in world.status()["endpoints"] if e["name"] == name)


def test_the_longest_idle_goes_and_the_held_wait_for_its_end() -> None:
    world = world_of(3, 3, 3)
    first = wake(world, "a", 3)
    call(world, "a", 0)
    world.pass_time(1.0)
    second = wake(world, "b", 3)
    call(world, "b", 0)
    world.pass_time(1.0)
    call(world, "c")
    router = world.routers["w1"]
    router.apply()
    assert world.states() == {first: "draining", second: "ready"}
    assert router.revision("rev_c1").failure == "" and revision_of(world, "c")["waits_for_room"]
    world.pass_time(1.0)
    assert ordered(world)[-1] == ("Drain", first), "nobody else is evicted meanwhile"
    world.becomes(first, "stopped")
    assert ordered(world)[-1][0] == "Start", "in the same turn"
    third = world.ready()
    assert world.states() == {second: "ready", third: "ready"}
    assert not revision_of(world, "c")["waits_for_room"]


def test_what_does_not_fit_now_is_held_and_hears_why() -> None:
    world = world_of(5, 5)
    first = wake(world, "a", 5)
    call(world, "b")
    world.routers["w1"].apply()
    row = world.routers["w1"].revision("rev_b1")
    assert "memory: 5.0 GiB needed" in row.waits_for and "3.0 GiB of 8.0 GiB free on node n1" in row.waits_for
    world.pass_time(5.0)
    status = revision_of(world, "b")
    assert row.failure == "" and (status["failures"], status["failure"]) == (0, ""), "no failure, no pause"
    assert status["waits_for"] == row.waits_for
    assert world.states() == {first: "ready"}
    call(world, "a", 0)
    world.pass_time(0.25)
    assert world.states() == {first: "draining"}, "as soon as nobody calls a any more"
    assert revision_of(world, "b")["waits_for_room"] and not revision_of(world, "b")["waits_for_node"]


def test_what_its_gate_still_has_is_not_evicted() -> None:
    world = world_of(5, 5)
    first = wake(world, "a", 5)
    world.becomes(first, "ready", in_flight=1)
    call(world, "a", 0)
    call(world, "b")
    assert world.states() == {first: "ready"}


def test_the_least_of_a_revision_is_not_evicted() -> None:
    world = world_of(4, 4, min_replicas=1, max_replicas=1)
    assert len(world.agent.starting()) == 2
    for replica_id in world.agent.starting():
        world.becomes(replica_id, "ready", memory_bytes=4 * GIB)
    world.store(endpoint("z", revision("z", engine_args={"kv_cache_memory_bytes": GIB})))
    call(world, "z")
    assert sorted(world.states().values()) == ["ready", "ready"]
    assert "1.0 GiB needed" in revision_of(world, "z")["waits_for"]


def test_nothing_is_evicted_while_a_router_has_not_told_its_demand() -> None:
    world = world_of(5, 5)
    first = wake(world, "a", 5)
    call(world, "a", 0)
    world.join("w2")
    call(world, "b")
    assert world.states() == {first: "ready"}
    world.demand(0, router_id="w2")
    world.pass_time(31.0)
    assert world.states() == {first: "draining"}


def test_a_caller_that_leaves_gives_up_the_room_that_was_promised() -> None:
    world = world_of(5, 5, 5)
    first = wake(world, "a", 5)
    call(world, "a", 0)
    call(world, "b")
    assert world.states() == {first: "draining"}
    call(world, "b", 0)
    call(world, "c")
    world.becomes(first, "stopped")
    assert [start.revision_id for start in world.effects.of(Start)] == ["rev_a1", "rev_c1"]


def test_a_measured_replica_counts_as_measured_here_and_after_a_restart() -> None:
    world = world_of(1, 1)
    first = wake(world, "a", 6)
    assert node_of(world)["committed_bytes"] == 6 * GIB
    status = revision_of(world, "a")
    (replica,) = status["replicas"]
    assert (replica["private_bytes"], replica["kv_cache_bytes"], replica["needs_bytes"]) == (GIB, 5 * GIB, 6 * GIB)
    assert status["needs_bytes"] == 6 * GIB
    world.restart()
    world.connect_agent()
    world.join()
    assert node_of(world)["committed_bytes"] == 6 * GIB
    world.becomes(first, "stopped", failed=True, reason="killed")
    assert node_of(world)["committed_bytes"] == 0
    call(world, "a")
    assert node_of(world)["committed_bytes"] == 6 * GIB, "the next one is taken for as large as the last"


def test_a_new_revision_of_the_same_engine_is_taken_for_as_large() -> None:
    world = world_of(1)
    first = wake(world, "a", 6)
    call(world, "a", 0)
    args = {"kv_cache_memory_bytes": GIB}
    world.store(endpoint("a", revision("a", engine_args=args), revision("a", 2, engine_args=args, max_replicas=3)))
    world.becomes(first, "stopped")
    world.demand(1, "rev_a2")
    assert node_of(world)["committed_bytes"] == 6 * GIB
    (start,) = world.agent.starting()
    world.becomes(start, "stopped", failed=True, reason="x")
    world.store(endpoint("a", revision("a", 3, engine_args=args, slots=2)))
    world.demand(1, "rev_a3")
    assert node_of(world)["committed_bytes"] == GIB, "other slots have another cache"


def test_the_standby_counts() -> None:
    world = world_of(8)
    world.say(StandbyReport(ready=1, private_bytes=GIB))
    assert node_of(world)["standby_bytes"] == GIB
    call(world, "a")
    assert "at most 7.0 GiB for one" in revision_of(world, "a")["failure"]


def test_a_standby_that_is_not_kept_is_not_committed_but_a_start_makes_one() -> None:
    world = world_of(8, zero="staged")
    world.say(StandbyReport(ready=1, private_bytes=GIB))
    world.pass_time(1.0)
    assert world.agent.standbys_at_most == 0
    world.say(StandbyReport(ready=0))
    assert (node_of(world)["standby_bytes"], node_of(world)["committed_bytes"]) == (GIB, 0)
    call(world, "a")
    assert "at most 7.0 GiB for one" in revision_of(world, "a")["failure"], (
        "the standby that would fork it needs its part"
    )
    world.pass_time(1.0)
    assert node_of(world)["committed_bytes"] == GIB and world.effects.of(KeepStandbys)[-1].at_most is None, (
        "asked for, it is kept"
    )


def test_the_standby_that_a_plain_start_makes_for_itself_counts_until_it_is_weighed() -> None:
    world = world_of(5, 2)
    world.say(StandbyReport(ready=1, private_bytes=GIB))
    world.reconciler.state.quarantine.add("rev_a1", "n1", "standby", world.now)
    call(world, "a")
    (first,) = world.agent.starting()
    assert world.agent.plain[first] and node_of(world)["committed_bytes"] == 7 * GIB
    call(world, "b")
    assert world.agent.starting() == [first] and "2.0 GiB needed" in revision_of(world, "b")["waits_for"]
    world.becomes(first, "ready", memory_bytes=5 * GIB)
    call(world, "b")
    world.pass_time(0.25)
    assert len(world.agent.starting()) == 1 and node_of(world)["committed_bytes"] == 8 * GIB


def test_a_plain_start_that_could_never_have_two_standbys_does_with_less() -> None:
    world = world_of(7)
    world.say(StandbyReport(ready=1, private_bytes=GIB))
    world.reconciler.state.quarantine.add("rev_a1", "n1", "standby", world.now)
    call(world, "a")
    assert len(world.agent.starting()) == 1


def test_scaling_up_without_room_fails_nobody_that_can_be_served() -> None:
    world = world_of(5, max_replicas=2)
    wake(world, "a", 5)
    call(world, "a", 8)
    world.pass_time(0.25)
    world.routers["w1"].apply()
    row = world.routers["w1"].revision("rev_a1")
    assert (row.failure, row.phase) == ("", None), "what is held waits for a slot, not for a start"
    assert "5.0 GiB needed" in revision_of(world, "a")["waits_for"], "but the operator sees why there is no second one"


@pytest.mark.parametrize("crash", ["before ready", "after ready"])
def test_a_crash_loop_is_bounded_and_stays_visible(crash: str) -> None:
    world = world_of(1)
    call(world, "a")
    pauses, ended_at = [], world.now
    for _ in range(12):
        while not world.agent.starting():
            world.pass_time(0.25)
        pauses.append(world.now - ended_at)
        (replica_id,) = world.agent.starting()
        if crash == "after ready":
            world.becomes(replica_id, "ready")
        world.becomes(replica_id, "stopped", failed=True, reason="out of luck")
        ended_at = world.now
    assert max(pauses) <= 30.25 and pauses[-1] >= 30.0 and sum(pauses) > 120.0
    world.pass_time(29.0)
    status = revision_of(world, "a")
    count = status["failures"] if crash == "before ready" else status["deaths"]
    assert "out of luck" in status["failure"] and count == 12
    if crash == "before ready":
        world.routers["w1"].apply()
        assert "(12 starts in a row have failed)" in world.routers["w1"].revision("rev_a1").failure
    world.pass_time(1.5)
    assert "out of luck" in revision_of(world, "a")["failure"], "also while the next one starts"


class Memory(RuleBasedStateMachine):
    @initialize(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4))
    def begin(self, sizes: list[int]) -> None:
        self.sizes = dict(zip(NAMES, sizes, strict=False))
        self.world = world_of(*sizes, budget=8, idle_timeout_seconds=20.0)

    def watched(self, action: Any) -> None:
        """Do it, and see that whoever is told to go was asked for by nobody, or had its time and another its turn."""
        world, before = self.world, self.world.states()
        action()
        for replica_id, becomes in world.states().items():
            if becomes == "draining" and before.get(replica_id) in ("starting", "ready"):
                replica = world.reconciler.state.replicas.by_id[replica_id]
                if world.reconciler.state.demand.total(replica.revision_id) == 0 and replica.in_flight == 0:
                    continue
                assert replica.ready_at is not None and world.now - replica.ready_at >= LEAST_STAY, (
                    "evicted before it had stayed"
                )
                state, turn = world.reconciler.state, world.settings.turn_seconds
                waited = {other: wait.age(world.now) for other in state.waits.all() if (wait := state.waits.of(other))}
                assert any(age >= turn and not state.replicas.live(other) for other, age in waited.items()), (
                    "for nobody whose turn it was"
                )

    @rule(data=st.data(), count=st.sampled_from((0, 0, 1, 3)))
    def calls(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.sizes)))
        self.watched(lambda: call(self.world, name, count))

    @precondition(lambda self: self.world.agent.starting())
    @rule(data=st.data(), well=st.sampled_from((True, True, False)))
    def start_ends(self, data: st.DataObject, well: bool) -> None:
        replica_id = data.draw(st.sampled_from(self.world.agent.starting()))
        size = self.sizes[self.world.agent.replicas[replica_id].revision_id[4]] * GIB
        if well:
            self.watched(lambda: self.world.becomes(replica_id, "ready", memory_bytes=size))
        else:
            self.watched(lambda: self.world.becomes(replica_id, "stopped", failed=True, reason="why"))

    @precondition(lambda self: self.world.agent.ordered_to_end())
    @rule(data=st.data())
    def ends_as_told(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(self.world.agent.ordered_to_end()))
        self.watched(lambda: self.world.becomes(replica_id, "stopped"))

    @rule(seconds=st.sampled_from((0.25, 2.0, 25.0)))
    def time(self, seconds: float) -> None:
        for _ in range(4):
            self.watched(lambda: self.world.pass_time(seconds / 4, step=seconds / 4))

    @rule()
    def activator_is_killed(self) -> None:
        self.world.restart()
        self.world.join()
        self.world.demand()
        self.world.connect_agent()

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        if hasattr(self, "world"):
            node = node_of(self.world)
            assert node["committed_bytes"] <= node["budget_bytes"]
            replicas = self.world.reconciler.state.replicas.by_id.values()
            assert node["committed_bytes"] == sum(replica.needs_bytes for replica in replicas)

    @invariant()
    def demand_never_ends_in_silence(self) -> None:
        if not hasattr(self, "world"):
            return
        state, now = self.world.reconciler.state, self.world.now
        for name in self.sizes:
            revision_id = f"rev_{name}1"
            if self.world.reconciler.state.demand.total(revision_id) and not state.replicas.live(revision_id):
                history = state.failures.of(revision_id)
                paused = history.client_error(now) or not history.may_start(now)
                awaited = state.waits.reason(revision_id)
                assert (paused or awaited) and revision_id in self.world.reconciler.state.awake, (
                    f"{revision_id} waits for nothing"
                )


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


Memory.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMemory = Memory.TestCase


def test_the_words_of_an_eviction() -> None:
    world = world_of(5, 5)
    first = wake(world, "a", 5)
    call(world, "a", 0)
    call(world, "b")
    assert ordered(world) == [("Start", first)], "routers must know before it drains"
    world.demand()
    assert world.agent.ordered[-1] == (Drain, first)
    assert Stop not in {kind for kind, _ in world.agent.ordered}
