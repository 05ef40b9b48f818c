"""The activator's metrics, `pilotlight_activator_…`, read from its state when somebody scrapes. Steps 6 to 10.

Nothing is by endpoint: how many there are must not decide how long a scrape takes. Replicas are few, so they are
counted then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from activator.state.cluster import ClusterState
from pilotlight.exposition import Family
from runtime.wire import ReplicaState

Starts = Mapping[tuple[str, str], int]  # by rung, and by how they ended


GAUGES: tuple[tuple[str, str, Callable[[ClusterState], int]], ...] = (
    ("pilotlight_activator_endpoints", "Endpoints there are.", lambda state: len(state.catalogue.endpoints)),
    ("pilotlight_activator_routers", "Router workers that are connected.", lambda state: state.demand.connected()),
    ("pilotlight_activator_nodes", "Nodes whose agents are connected.", lambda state: len(state.nodes.connections())),
    (
        "pilotlight_activator_demand_requests",
        "Requests that routers hold or have running.",
        lambda state: sum(state.demand.total(revision_id) for revision_id in state.demand.wanted()),
    ),
)


def collect(state: ClusterState | None, starts: Starts, rows_waiting: int) -> Iterator[Family]:
    """`starts`: since this activator leads. `state`: None before it leads."""
    states = Counter(replica.state for replica in state.replicas.by_id.values()) if state else Counter[str]()
    gauges = [(name, documentation, count(state) if state else 0) for name, documentation, count in GAUGES]
    gauges.append(("pilotlight_activator_waiting_rows", "Rows that wait for Postgres.", rows_waiting))
    yield Family(
        "pilotlight_activator_replicas",
        "gauge",
        "Replicas, by state.",
        ("state",),
        (((state,), states[state]) for state in get_args(ReplicaState)),
    )
    for name, documentation, number in gauges:
        yield Family(name, "gauge", documentation, (), (((), number),))
    yield Family(
        "pilotlight_activator_starts",
        "counter",
        "Starts of replicas that have ended, by where they began and whether they became ready.",
        ("rung", "outcome"),
        list(starts.items()),
    )
