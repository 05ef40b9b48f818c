"""Room for fewer endpoints than are called: who waits how long, and what switching costs. A simulation, seconds of CPU.

    python -m loadtests.bench.room

The reconciler is the real one, time and the node are not: a start takes 1 s, what a replica still runs when it gives way another, and a
tick 0.25 s (0.5 s with 100 endpoints). Every endpoint is called without a pause from the same moment on. Prints a table for RESULTS.md.
"""

from __future__ import annotations

import structlog

from activator.turns import STARTS_STAYED
from tests.sim.room import alternating, busy, open_loop

RUNS = ((2, 1, 600.0, 0.25), (10, 1, 600.0, 0.25), (10, 3, 600.0, 0.25), (100, 5, 600.0, 0.5), (100, 20, 300.0, 0.5))
HEAD = "| endpoints | room for | longest wait, s | bound, s | starts a minute and place | least and most served, of an equal share | places in use |"


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    print(HEAD)
    print("|---|---|---|---|---|---|---|")
    for endpoints, places, seconds, step in RUNS:
        found = busy(endpoints, places, seconds, step=step)
        rate = found.starts / places / seconds * 60
        least, most = found.shares
        waits = f"{found.longest_wait:.1f} | {found.promised:.1f}"
        print(f"| {endpoints} | {places} | {waits} | {rate:.1f} | {least:.2f}, {most:.2f} | {found.use * 100:.0f} % |")
    print(f"\nThe least stay is {STARTS_STAYED:g} s: {STARTS_STAYED:g} starts of 1 s.")
    one, answered = alternating(20)
    print(f"One caller, two endpoints in turn, room for one: {answered} of 20 answered, {one.starts - 1} switches in {one.seconds:.0f} s.")
    both, came = open_loop(120.0, 0.5)
    print(f"A call every 0.5 s, the endpoints in turn: {came} calls, {both.starts - 1} switches in {both.seconds:.0f} s.")


if __name__ == "__main__":
    main()
