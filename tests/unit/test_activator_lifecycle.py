"""One replica's life as a table of steps, and what deaths teach."""

from __future__ import annotations

from typing import Any

import pytest

from activator.policy import failures, lifecycle
from activator.policy.failures import Backoff, FailureHistory
from activator.policy.lifecycle import Action, Outcome, Patience, Replica, next_step
from tests.fakes_activator import report

PATIENCE = Patience(start_deadline=300.0, drain=30.0)
BACKOFF = Backoff(first=0.5, most=30.0)


def replica(**given: Any) -> Replica:
    values: dict[str, Any] = {
        "replica_id": "r1",
        "revision_id": "rev",
        "org_id": "o",
        "node_id": "n",
        "started_at": 0.0,
    }
    return Replica(**values | given)


READY: dict[str, Any] = {"state": "ready", "ready_at": 1.0}
DRAINING: dict[str, Any] = {"state": "draining", "ready_at": 1.0}
PARKING: dict[str, Any] = {"state": "parking", "ready_at": 1.0}
PARKED: dict[str, Any] = {"state": "parked", "parked_at": 1.0}
CLIMBING: dict[str, Any] = {"state": "starting", "rung": "parked", "unparks": 1}


@pytest.mark.parametrize(
    ("given", "now", "acknowledged", "settled", "step", "why"),
    [
        ({}, 300.0, 0, True, Action.WAIT, "it may still start"),
        ({}, 300.1, 0, True, Action.GIVE_UP, "its time to start is over"),
        (READY, 9e9, 0, True, Action.WAIT, "it is well"),
        ({"state": "draining"}, 1.0, -1, False, Action.STOP, "no router has ever heard of it"),
        (DRAINING, 1.0, 9, True, Action.WAIT, "no table says that it drains"),
        (DRAINING | {"drain_after": 5}, 1.0, 4, True, Action.WAIT, "a router may still send to it"),
        (DRAINING | {"drain_after": 5}, 1.0, 5, False, Action.WAIT, "routers may be on their way back to us"),
        (DRAINING | {"drain_after": 5}, 1.0, 5, True, Action.DRAIN, "every router knows"),
        (DRAINING | {"drain_after": 5, "drain_sent": 1.0}, 41.0, 5, True, Action.WAIT, "it finishes what it runs"),
        (
            DRAINING | {"drain_after": 5, "drain_sent": 1.0},
            41.1,
            5,
            True,
            Action.STOP,
            "the agent should have ended it",
        ),
        (DRAINING | {"stop_sent": 1.0}, 11.0, 5, True, Action.WAIT, "the agent is ending it"),
        (DRAINING | {"stop_sent": 1.0}, 11.1, 5, True, Action.STOP, "say it again"),
        (PARKING, 1.0, 9, True, Action.WAIT, "no table says that it parks"),
        (PARKING | {"drain_after": 5}, 1.0, 4, True, Action.WAIT, "a router may still send to it"),
        (PARKING | {"drain_after": 5}, 1.0, 5, True, Action.PARK, "every router knows"),
        (PARKING | {"drain_after": 5, "park_sent": 1.0}, 41.1, 5, True, Action.STOP, "the agent should have ended it"),
        (PARKED, 9e9, 9, True, Action.WAIT, "it rests"),
        ({"rung": "parked", "unparks": 1}, 30.1, 0, True, Action.GIVE_UP, "the next rung down is sooner than this"),
    ],
)
def test_next_step(
    given: dict[str, Any], now: float, acknowledged: float, settled: bool, step: Action, why: str
) -> None:
    assert (
        next_step(replica(**given), now=now, acknowledged=acknowledged, settled=settled, patience=PATIENCE) is step
    ), why


@pytest.mark.parametrize(
    ("given", "said", "event", "state"),
    [
        ({}, report("r1", "starting"), Outcome.NOTHING, "starting"),
        ({}, report("r1", "ready"), Outcome.READY, "ready"),
        ({}, report("r1", "stopped", failed=True), Outcome.START_FAILED, "stopped"),
        ({}, report("r1", "stopped", failed=False), Outcome.START_FAILED, "stopped"),
        (READY, report("r1", "ready"), Outcome.NOTHING, "ready"),
        (READY, report("r1", "draining"), Outcome.NOTHING, "draining"),
        (READY, report("r1", "stopped", failed=True), Outcome.DIED, "stopped"),
        (DRAINING, report("r1", "ready"), Outcome.NOTHING, "draining"),
        (DRAINING, report("r1", "stopped", failed=True), Outcome.ENDED, "stopped"),
        ({"state": "draining"}, report("r1", "ready"), Outcome.NOTHING, "draining"),
        ({"stop_sent": 1.0}, report("r1", "stopped"), Outcome.ENDED, "stopped"),
        (PARKING, report("r1", "ready"), Outcome.NOTHING, "parking"),
        (PARKING, report("r1", "parked"), Outcome.PARKED, "parked"),
        (PARKING, report("r1", "stopped", failed=True), Outcome.ENDED, "stopped"),
        (PARKED, report("r1", "parked"), Outcome.NOTHING, "parked"),
        (PARKED, report("r1", "starting", climb=1, rung="parked"), Outcome.NOTHING, "starting"),
        (PARKED, report("r1", "ready", climb=1, rung="parked"), Outcome.READY, "ready"),
        (PARKED, report("r1", "stopped", failed=True), Outcome.ENDED, "stopped"),
        (DRAINING, report("r1", "parked"), Outcome.NOTHING, "draining"),
        (READY, report("r1", "parking"), Outcome.NOTHING, "parking"),
        (CLIMBING, report("r1", "ready"), Outcome.NOTHING, "starting"),
        (CLIMBING, report("r1", "parked"), Outcome.NOTHING, "starting"),
        (CLIMBING, report("r1", "ready", climb=1), Outcome.READY, "ready"),
        (CLIMBING, report("r1", "stopped", climb=1, failed=True), Outcome.FELL, "stopped"),
        (CLIMBING, report("r1", "stopped", climb=1, failed=True, mismatch=True), Outcome.MISMATCHED, "stopped"),
        ({}, report("r1", "stopped", failed=True, mismatch=True), Outcome.MISMATCHED, "stopped"),
    ],
)
def test_observe(given: dict[str, Any], said: Any, event: Outcome, state: str) -> None:
    known = replica(**given)
    assert lifecycle.observe(known, said, 2.0) is event
    assert known.state == state


def test_what_its_node_lost_is_nobodys_fault() -> None:
    assert lifecycle.lost(replica(), "gone", 1.0) is Outcome.DIED
    assert lifecycle.lost(replica(**READY), "gone", 1.0) is Outcome.DIED
    assert lifecycle.lost(replica(**DRAINING), "gone", 1.0) is Outcome.ENDED


def test_starts_that_fail_wait_longer_each_time_and_say_why() -> None:
    history, now, pauses = FailureHistory(), 0.0, []
    for _ in range(9):
        history = failures.start_failed(history, "no \0memory", started_at=now, now=now, backoff=BACKOFF)
        pauses.append(history.pause)
        often = f" ({history.failed_starts} starts in a row have failed)" if history.failed_starts >= 5 else ""
        assert history.client_error(now) == f"no memory{often}" and not history.may_start(now)
        now = history.retry_at
        assert history.client_error(now) == "" and history.may_start(now)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert not history.is_over(now + 300.0, BACKOFF) and history.is_over(now + 300.1, BACKOFF)
    assert history.last == "no memory", "for operators it stays"
    assert (failures.became_ready(history).failed_starts, failures.became_ready(history).last) == (0, "")


def test_starts_that_fail_together_count_once() -> None:
    first = failures.start_failed(FailureHistory(), "one", started_at=1.0, now=5.0, backoff=BACKOFF)
    second = failures.start_failed(first, "two", started_at=1.0, now=5.1, backoff=BACKOFF)
    assert (second.failed_starts, second.retry_at, second.reason) == (1, 5.5, "two")


def test_the_first_death_is_replaced_at_once_and_the_next_after_a_pause() -> None:
    history, now, pauses = FailureHistory(), 0.0, []
    for _ in range(4):
        history = failures.died(history, started_at=now, lived=1.0, now=now, backoff=BACKOFF, reason="killed")
        history = failures.became_ready(history)
        assert history.client_error(now) == "", "nobody held fails for it"
        assert history.last == "killed", "but operators see it"
        pauses.append(history.pause)
        now += 100.0
    assert pauses == [0.0, 0.5, 1.0, 2.0]
    steady = failures.died(history, started_at=now, lived=31.0, now=now, backoff=BACKOFF)
    assert (steady.deaths, steady.pause) == (1, 0.0)


def test_those_that_die_together_count_once() -> None:
    first = failures.died(FailureHistory(), started_at=1.0, lived=1.0, now=5.0, backoff=BACKOFF)
    assert failures.died(first, started_at=2.0, lived=1.0, now=5.0, backoff=BACKOFF) == first
