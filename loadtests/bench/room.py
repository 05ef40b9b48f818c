"""Room for fewer endpoints than are called: who waits how long, and what switching costs. A simulation, a minute of
CPU.

The reconciler is the real one; time and the node are not. A start takes 1 s, the drain of a replica another, and a tick
0.25 s (0.5 s with 100 endpoints). Every endpoint is called without a pause from the same moment on.
"""

from __future__ import annotations

from typing import Any

import structlog

from activator.policy.turns import STARTS_STAYED
from loadtests.bench.targets import none
from tests.sim.room import alternating, busy, open_loop

RUNS = ((2, 1, 600.0, 0.25), (10, 1, 600.0, 0.25), (10, 3, 600.0, 0.25), (100, 5, 600.0, 0.5), (100, 20, 300.0, 0.5))
HEAD = [
    "endpoints",
    "room for",
    "longest wait, s",
    "bound, s",
    "starts a minute and place",
    "least and most served, of an equal share",
]


def measure() -> dict[str, Any]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    rows, over = [[*HEAD, "places in use"]], []
    for endpoints, places, seconds, step in RUNS:
        found = busy(endpoints, places, seconds, step=step)
        least, most = found.shares
        rate = found.starts / places / seconds * 60
        waits = [f"{found.longest_wait:.1f}", f"{found.promised:.1f}"]
        rows.append(
            [str(endpoints), str(places), *waits, f"{rate:.1f}", f"{least:.2f}, {most:.2f}", f"{found.use * 100:.0f} %"]
        )
        over += [f"{endpoints} on {places}"] if found.longest_wait > found.promised else []
    one, answered = alternating(20)
    both, came = open_loop(120.0, 0.5)
    return {
        "least stay, s": STARTS_STAYED,
        "one caller, two endpoints in turn, room for one": f"{answered} of 20 answered, {one.starts - 1} switches in {one.seconds:.0f} s",
        "a call every 0.5 s, two endpoints in turn": f"{came} calls, {both.starts - 1} switches in {both.seconds:.0f} s",
        "tables": {"Everybody calls all the time": rows},
        "targets": [none("must", "waits beyond the stated bound", over)],
    }
