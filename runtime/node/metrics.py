"""What operators scrape of a node's agent: `pilotlight_agent_…`, from its report. Steps 7 and 8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import get_args

from pilotlight.exposition import Family
from runtime.wire import NodeReport, ReplicaState


def collect(report: NodeReport | None) -> Iterator[Family]:
    """None: only what there is to tell of any node."""
    replicas = report.replicas if report else ()
    states = Counter(replica.state for replica in replicas)
    yield Family(
        "pilotlight_agent_replicas",
        "gauge",
        "Replicas on this node, by state.",
        ("state",),
        (((state,), states[state]) for state in get_args(ReplicaState)),
    )
    for name, documentation, number in (
        (
            "pilotlight_agent_running_requests",
            "Requests its replicas work on.",
            sum(replica.in_flight for replica in replicas),
        ),
        (
            "pilotlight_agent_ready_standbys",
            "Standbys that a start can fork from.",
            report.standbys_ready if report else 0,
        ),
        (
            "pilotlight_agent_memory_bytes",
            "Memory that replicas may use, all of them together.",
            report.memory_bytes if report else 0,
        ),
        (
            "pilotlight_agent_private_bytes",
            "Memory its replicas have to themselves.",
            sum(replica.private_bytes for replica in replicas),
        ),
    ):
        yield Family(name, "gauge", documentation, (), (((), number),))
