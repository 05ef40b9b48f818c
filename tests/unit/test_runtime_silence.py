"""Who is taken for hung, and who is not: decisions on what was heard, with time as an argument."""

from __future__ import annotations

from typing import Any

import pytest

from pilotlight.attention import LONGEST_LOOK, Attention
from runtime.node.silence import Heard, Limits, anew, heard, hung
from runtime.wire import ReplicaState

LIMITS = Limits(silent=5.0, hang=60.0)
ALIVE: dict[str, Any] = {"core_beats": 1, "steps": 1, "in_work": 1, "loop_seconds": 0.0}


def life(
    state: ReplicaState, seconds: int, *, core_beats: int | None = None, steps: int | None = None, **same: Any
) -> tuple[Heard, float]:
    """A beat each second, in which everything moves but for what is given."""
    known = anew(0.0, state)
    for second in range(1, seconds + 1):
        beat = {"in_work": 1, "loop_seconds": 0.0} | same
        core = second if core_beats is None else core_beats
        known = heard(known, float(second), core_beats=core, steps=second if steps is None else steps, **beat)
    return known, float(seconds)


@pytest.mark.parametrize("state", ["starting", "ready", "parking", "parked", "draining"])
def test_whoever_beats_and_moves_is_fine_for_ever(state: ReplicaState) -> None:
    known, now = life(state, 10_000)
    assert hung(known, now, LIMITS) == ""


@pytest.mark.parametrize(
    ("state", "patience"), [("ready", 5), ("draining", 5), ("parked", 5), ("starting", 60), ("parking", 60)]
)
def test_a_silent_process_is_hung_after_what_its_state_allows(state: ReplicaState, patience: int) -> None:
    known, _ = life(state, 100)
    assert hung(known, 100.0 + patience, LIMITS) == ""
    assert hung(known, 100.1 + patience, LIMITS) == f"hung: its API process has said nothing for {patience} s"


@pytest.mark.parametrize(("state", "patience"), [("ready", 5), ("parked", 5), ("starting", 60)])
def test_an_engine_core_that_is_silent_while_its_api_process_speaks(state: ReplicaState, patience: int) -> None:
    known, now = life(state, patience + 1, core_beats=7)  # seen to beat in the first second
    assert hung(known, now, LIMITS) == ""
    known, now = life(state, patience + 2, core_beats=7)
    assert hung(known, now, LIMITS) == f"hung: its engine core has said nothing for {patience} s"


def test_before_there_is_an_engine_core_none_is_missed() -> None:
    known, now = life("starting", 200, core_beats=0, steps=0, in_work=0)
    assert hung(known, now, LIMITS) == ""


def test_work_and_no_step() -> None:
    known, now = life("ready", 61, steps=3)
    assert hung(known, now, LIMITS) == ""
    known, now = life("ready", 62, steps=3)
    assert hung(known, now, LIMITS) == "hung: 1 requests in work, and no step of the engine for 60 s"


def test_no_step_is_fine_without_work_and_counts_from_when_there_is_some() -> None:
    known, now = life("ready", 1000, steps=3, in_work=0)
    assert hung(known, now, LIMITS) == ""
    for second in range(1, 61):
        known = heard(known, now + second, core_beats=2000 + second, steps=3, in_work=2, loop_seconds=0.0)
    assert hung(known, now + 60, LIMITS) == ""
    for second in range(61, 63):
        known = heard(known, now + second, core_beats=2000 + second, steps=3, in_work=2, loop_seconds=0.0)
    assert hung(known, now + 62, LIMITS) == "hung: 2 requests in work, and no step of the engine for 60 s"


def test_what_waits_for_its_grammar_is_no_work_and_work_beside_it_is() -> None:
    """Such a request is not told as work (`Metered.must_step`): however long it waits, nobody is hung by it."""
    known, now = life("ready", 600, steps=3, in_work=0)
    assert hung(known, now, LIMITS) == ""
    for second in range(1, 63):
        known = heard(known, now + second, core_beats=2000 + second, steps=3, in_work=1, loop_seconds=0.0)
    assert hung(known, now + 62, LIMITS)


def test_while_it_starts_no_steps_are_asked_for() -> None:
    known, now = life("starting", 250, steps=0)
    assert hung(known, now, LIMITS) == ""


def test_a_loop_that_stands_still() -> None:
    known, now = life("ready", 3, loop_seconds=60.5)
    assert hung(known, now, LIMITS) == "hung: the event loop of its API process has stood still for 60 s"


def test_a_change_of_state_forgives() -> None:
    known, now = life("starting", 50, core_beats=7)
    assert hung(anew(now, "ready"), now + 5, LIMITS) == ""
    assert hung(known, now + 20, LIMITS)


def test_an_agent_that_was_stopped_holds_nothing_against_anybody() -> None:
    """Once a second it looks; then it is stopped for an hour, or the machine sleeps."""
    attention = Attention()
    for second in range(10):
        now = attention.look(1000.0 + second)
    known = heard(anew(now, "ready"), now, **ALIVE)
    now = attention.look(1010.0 + 3600)
    assert hung(known, now, LIMITS) == "" and now <= 9 + LONGEST_LOOK


def test_a_real_silence_after_it_is_still_found_in_time() -> None:
    attention = Attention()
    now = attention.look(0.0)
    known = heard(anew(now, "ready"), now, **ALIVE)
    attention.look(3600.0)
    looks = [hung(known, attention.look(3600.0 + second), LIMITS) for second in range(1, 6)]
    assert looks[0] == "" and looks[-1] != ""
