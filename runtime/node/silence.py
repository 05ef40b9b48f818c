"""Which replicas hang: pure decisions on what was heard of each, and how long ago. Step 8.

A process that ends is noticed at once; one that is stopped, dead-locked, or waits for a device for ever says nothing. A
replica therefore beats once a second (`runtime/serving/pulse.py`). What must not count as a hang is silence that is
ours. An agent that was itself stopped, or a machine that slept, has heard nothing from anybody. So moments here are the
agent's *attentive* seconds (`pilotlight/attention.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from runtime.wire import ReplicaState

HUNG = "hung: "  # how the reason begins, for people; `ReplicaReport.hung` is for programs

# what needs long without a word (a build, memory given back) is over, or not begun
AT_ITS_WORK = frozenset({"ready", "draining", "parked"})
STEPS = frozenset({"ready", "draining", "parking"})  # where requests in work must move


@dataclass(frozen=True, slots=True)
class Limits:
    """In seconds."""

    silent: float  # without a beat, of one that has nothing to do that holds it up
    hang: float  # without a step while there is work; and without a beat, of one that is being built


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of one replica. Moments are attentive seconds."""

    at: float  # of its last beat
    core_at: float  # when its engine core was last seen to beat
    stepped_at: float  # when its engine was last seen to step, or to have nothing to do
    state: ReplicaState = "starting"  # as its agent has it
    core_beats: int = 0  # 0: there is no engine core yet
    steps: int = 0
    in_work: int = 0
    loop_seconds: float = 0.0


def anew(now: float, state: ReplicaState) -> Heard:
    """Nothing is held against one whose life has just changed."""
    return Heard(at=now, core_at=now, stepped_at=now, state=state)


def heard(before: Heard, now: float, *, core_beats: int, steps: int, in_work: int, loop_seconds: float) -> Heard:
    """A beat has come."""
    return replace(
        before,
        at=now,
        core_at=before.core_at if core_beats == before.core_beats and core_beats else now,
        stepped_at=before.stepped_at if in_work and before.in_work and steps == before.steps else now,
        core_beats=core_beats,
        steps=steps,
        in_work=in_work,
        loop_seconds=loop_seconds,
    )


def hung(known: Heard, now: float, limits: Limits) -> str:
    """Why it is taken for hung; "": it is not.

    1. Its API process says nothing.
    2. That one speaks, and its engine core does not.
    3. Both do, and what is in work does not move.
    4. Its API process speaks from a thread, and its event loop stands still.
    """
    patience = limits.silent if known.state in AT_ITS_WORK else limits.hang
    if now - known.at > patience:  # 1
        return f"{HUNG}its API process has said nothing for {patience:g} s"
    if now - known.core_at > patience:  # 2
        return f"{HUNG}its engine core has said nothing for {patience:g} s"
    if known.state in STEPS and known.in_work and now - known.stepped_at > limits.hang:  # 3
        return f"{HUNG}{known.in_work} requests in work, and no step of the engine for {limits.hang:g} s"
    if known.loop_seconds > limits.hang:  # 4
        return f"{HUNG}the event loop of its API process has stood still for {limits.hang:g} s"
    return ""
