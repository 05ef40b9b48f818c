"""Whatever happens in whatever order: the promises of the control plane hold.

- No replica is told to drain or stop while a connected router could still send to it (`World` asserts it), deaths
  apart.
- No revision ever has more than its most (`World` asserts it).
- Demand leads to a replica that starts or runs, or to a failure its callers are told, or to a pause after deaths, or to
  the short wait for a node that is away. Never to silence.
- A missing signal never takes a replica away, nor parks it.
- Nobody who knows all it was told sends to a parked replica (`World` asserts it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from activator import events
from activator.wire import EndpointRow, Table
from tests.activator_world import World
from tests.fakes_activator import endpoint, revision

ROUTERS = ("w1", "w2", "w3")
SILENT = 30.0
SETTLE = 3.0
SELDOM = st.integers(0, 3).map(lambda drawn: drawn == 3)


class Machine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.a = endpoint("a", revision("a", max_replicas=2, idle_timeout_seconds=5.0, zero="parked"))
        self.b = endpoint("b", revision("b", min_replicas=1, max_replicas=3, idle_timeout_seconds=20.0))
        self.world = World(self.a, self.b, settle_seconds=SETTLE)
        self.begun = self.world.now
        self.up: set[str] = set()  # routers connected
        self.said: dict[
            str, tuple[float, dict[str, int], bool]
        ] = {}  # router → heard at, demand, told on this connection
        self.agent_up = False
        self.agent_connects()
        self.join("w1")

    # Routers

    @rule(router_id=st.sampled_from(ROUTERS))
    def join(self, router_id: str) -> None:
        self.watch(lambda: self.world.join(router_id))
        self.up.add(router_id)
        at, before, _ = self.said.get(router_id, (self.world.now, {}, False))
        self.said[router_id] = (self.world.now, before if self.world.now - at <= SILENT else {}, False)

    @precondition(lambda self: self.up)
    @rule(data=st.data(), really=SELDOM)
    def leave(self, data: st.DataObject, really: bool) -> None:
        router_id = data.draw(st.sampled_from(sorted(self.up)))
        if not really:
            return
        self.up.remove(router_id)
        self.watch(lambda: self.world.leave(router_id))

    @precondition(lambda self: self.up)
    @rule(
        data=st.data(),
        count=st.sampled_from((0, 0, 1, 5, 14)),
        revision_id=st.sampled_from(("rev_a1", "rev_a1", "rev_a2", "rev_b1")),
        applies=st.booleans(),
    )
    def demand(self, data: st.DataObject, count: int, revision_id: str, applies: bool) -> None:
        router_id = data.draw(st.sampled_from(sorted(self.up)))
        self.tells(router_id, self.world.routers[router_id].requests | {revision_id: count}, applies=applies)

    @precondition(lambda self: self.up and self.agent_up)
    @rule(
        data=st.data(),
        count=st.sampled_from((1, 5)),
        revision_id=st.sampled_from(("rev_a1", "rev_b1")),
        applies=st.booleans(),
    )
    def wakes(self, data: st.DataObject, count: int, revision_id: str, applies: bool) -> None:
        """A call that finds or gets a ready replica."""
        router_id = data.draw(st.sampled_from(sorted(self.up)))
        self.tells(router_id, self.world.routers[router_id].requests | {revision_id: count}, applies=applies)
        for replica_id in self.world.agent.starting():
            self.watch(lambda r=replica_id: self.world.becomes(r, "ready"))
        self.tells(router_id, self.world.routers[router_id].requests, applies=applies)

    @precondition(lambda self: self.up)
    @rule(slow=st.sampled_from((*ROUTERS, "")), seconds=st.sampled_from((6.0, 21.0)))
    def nobody_calls(self, slow: str, seconds: float) -> None:
        """Every router says zero and goes on saying it; one of them applies no table meanwhile."""
        for _ in range(5):
            for router_id in sorted(self.up):
                self.tells(router_id, {}, applies=router_id != slow)
            self.world.now += seconds / 4
            if self.agent_up:
                self.watch(lambda: self.world.say(None))
            self.watch(lambda: self.world.handle(events.Tick()))

    def tells(self, router_id: str, requests: dict[str, int], *, applies: bool) -> None:
        router = self.world.routers[router_id]
        if router.connection not in self.world.effects.peers:  # hung up on
            self.up.discard(router_id)
            return
        router.requests = {key: n for key, n in requests.items() if n}
        self.said[router_id] = (self.world.now, router.requests, True)
        self.watch(lambda: self.world.demand(router_id=router_id, apply=applies))

    # The node

    @rule()
    def agent_connects(self) -> None:
        self.agent_up = True
        self.watch(self.world.connect_agent)

    @precondition(lambda self: self.agent_up)
    @rule(dead=st.booleans(), really=SELDOM)
    def agent_leaves(self, dead: bool, really: bool) -> None:
        if not really:
            return
        self.agent_up = False
        self.watch(lambda: self.world.disconnect_agent(dead=dead))

    @precondition(lambda self: self.agent_up and self.world.agent.starting())
    @rule(data=st.data(), state=st.sampled_from(("ready", "ready", "stopped")), mismatch=st.booleans())
    def start_ends(self, data: st.DataObject, state: str, mismatch: bool) -> None:
        replica_id = data.draw(st.sampled_from(self.world.agent.starting()))
        failed = state == "stopped"
        self.watch(
            lambda: self.world.becomes(
                replica_id, state, failed=failed, mismatch=failed and mismatch, reason="why" * failed
            )
        )

    @precondition(lambda self: self.agent_up and self.world.agent.parking())
    @rule(data=st.data())
    def parks(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(self.world.agent.parking()))
        self.watch(lambda: self.world.becomes(replica_id, "parked"))

    @precondition(lambda self: self.agent_up and self.world.agent.replicas)
    @rule(data=st.data(), really=SELDOM)
    def dies(self, data: st.DataObject, really: bool) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.world.agent.replicas)))
        if really:
            self.watch(lambda: self.world.becomes(replica_id, "stopped", failed=True, reason="killed"))

    @precondition(lambda self: self.agent_up and self.world.agent.ordered_to_end())
    @rule(data=st.data())
    def ends_as_ordered(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(self.world.agent.ordered_to_end()))
        self.watch(lambda: self.world.becomes(replica_id, "stopped"))

    # Time, commands, crashes

    @rule(seconds=st.sampled_from((0.25, 1.0, 6.0, 25.0)), heard=st.booleans())
    def time(self, seconds: float, heard: bool) -> None:
        for _ in range(4):
            self.world.now += seconds / 4
            for router_id in sorted(self.up) if heard else ():
                connection = self.world.routers[router_id].connection
                if connection in self.world.effects.peers:
                    _, requests, reported = self.said[router_id]
                    self.said[router_id] = (self.world.now, requests, reported)
                    self.watch(lambda r=router_id, c=connection: self.world.handle(events.RouterHeard(r, c)))
            if self.agent_up:
                self.watch(lambda: self.world.say(None))
            self.watch(lambda: self.world.handle(events.Tick()))
        self.up = {
            router_id for router_id in self.up if self.world.routers[router_id].connection in self.world.effects.peers
        }

    @rule(removed=SELDOM, newer=st.booleans(), waits=st.booleans(), really=SELDOM)
    def deploy(self, removed: bool, newer: bool, waits: bool, really: bool) -> None:
        """`waits`: the new revision gets the route once it serves, which the world stores then; else at once."""
        if not really:
            return
        known = (
            (*self.a.revisions, revision("a", 2, max_replicas=1, idle_timeout_seconds=5.0))
            if newer
            else self.a.revisions
        )
        stored = endpoint("a", *known, removed=removed)
        if newer and waits and not removed:
            stored = replace(stored, route=((self.a.revisions[0].revision_id, 100),), next="rev_a2")
        self.world.store(stored)

    @rule(forget_rows=st.booleans(), really=SELDOM)
    def crash(self, forget_rows: bool, really: bool) -> None:
        if not really:
            return
        self.up.clear()
        self.said.clear()
        self.agent_up = False
        self.world.restart(forget_rows=forget_rows)
        self.begun = self.world.now

    # What must hold

    def watch(self, event: Any) -> None:
        """Run one event; a replica that was wanted before and drains after it was not wanted by any demand that may
        exist.
        """
        state, catalogue = self.world.reconciler.state, self.world.reconciler.state.catalogue
        before = {
            replica.replica_id: replica.revision_id
            for replica in state.replicas.by_id.values()
            if replica.state in ("starting", "ready")
        }
        live = {revision_id: state.replicas.live(revision_id) for revision_id in before.values()}
        event()
        for replica_id, revision_id in before.items():
            replica = state.replicas.by_id.get(replica_id)
            found = catalogue.find(revision_id)
            gave_up = replica is not None and "not ready after" in replica.reason
            if replica is None or replica.state not in ("draining", "parking") or gave_up or found is None:
                continue
            if found[0].removed:
                continue
            requests = sum(
                asked.get(revision_id, 0) for at, asked, _ in self.said.values() if self.world.now - at <= SILENT
            )
            wanted = min(-(-requests // found[1].slots), found[1].max_replicas)
            left = state.replicas.live(revision_id)
            assert left >= min(wanted, live[revision_id]), (
                f"{replica_id} was taken away though {requests} requests may be waiting"
            )
            assert self.world.now - self.begun >= SETTLE, f"{replica_id} was taken away before anybody could report"
            for router_id in self.up:
                connected = self.world.routers[router_id].connection in self.world.effects.peers
                assert self.said[router_id][2] or not connected, (
                    f"{replica_id} was taken away before {router_id} reported"
                )

    @invariant()
    def demand_is_answered(self) -> None:
        if not hasattr(self, "world"):
            return
        reconciler, now = self.world.reconciler, self.world.now
        reconciler.handle(events.Tick())
        for revision_id in list(reconciler.state.demand.wanted()):
            found = reconciler.state.catalogue.find(revision_id)
            if found is None or found[0].removed or reconciler.state.replicas.live(revision_id):
                continue
            if not found[0].routes_to(revision_id):
                continue  # what waits for it goes where the route leads, see the router's hold
            row, _ = reconciler.publisher.row(found[0], now)
            failures = [each.failure for each in row.revisions if each.revision_id == revision_id]
            history = reconciler.state.failures.of(revision_id)
            pausing = history.deaths > 0 and now < history.retry_at
            waiting = all(each.waits_for for each in row.revisions if each.revision_id == revision_id)
            assert any(failures) or pausing or waiting, f"nobody answers the demand for {revision_id}"

    @invariant()
    def routers_hear_what_is(self) -> None:
        """Whoever applies everything it was sent sees the table the reconciler has in mind."""
        if not hasattr(self, "world"):
            return
        reconciler = self.world.reconciler
        truth = {
            e.name: reconciler.publisher.row(e, self.world.now)[0] for e in reconciler.state.catalogue if not e.removed
        }
        for router_id in self.up:
            router = self.world.routers[router_id]
            if router.connection not in self.world.effects.peers:
                continue
            rows = dict(router.rows)
            for table in router.waiting:
                rows = {} if table.whole else rows
                rows |= {row.name: row for row in table.endpoints}
                rows = {name: row for name, row in rows.items() if name not in table.removed}
            assert guessless(rows) == guessless(truth)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            assert all(isinstance(table, Table) for router in self.world.routers.values() for table in router.waiting)


def guessless(rows: dict[str, EndpointRow]) -> dict[str, EndpointRow]:
    """Without what starts are expected to take: every start anywhere teaches something, and a row is not sent again for
    that.
    """
    plain = {
        name: [revision.model_copy(update={"expected_seconds": 0.0}) for revision in row.revisions]
        for name, row in rows.items()
    }
    return {name: row.model_copy(update={"revisions": tuple(plain[name])}) for name, row in rows.items()}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
