"""What operators scrape of the activator: `pilotlight_activator_…`, read from what it knows when somebody asks. Steps 6
to 10.

Nothing is by endpoint: how many there are must not decide how long a scrape takes. Replicas are few; they are counted
then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import get_args

from activator.reconciler import Reconciler
from pilotlight.exposition import Family
from runtime.wire import ReplicaState

Starts = Mapping[tuple[str, str], int]  # by rung, and by how they ended


def collect(reconciler: Reconciler | None, starts: Starts, rows_waiting: int) -> Iterator[Family]:
    """`starts`: since this activator leads; None: it leads nothing (yet)."""
    states = Counter(replica.state for replica in reconciler.fleet.replicas.values()) if reconciler else Counter[str]()
    wanted = sum(reconciler.book.total(revision_id) for revision_id in reconciler.book.wanted()) if reconciler else 0
    nodes = sum(node.connection is not None for node in reconciler.fleet.nodes.known.values()) if reconciler else 0
    gauges = (
        (
            "pilotlight_activator_endpoints",
            "Endpoints there are.",
            len(reconciler.catalogue.endpoints) if reconciler else 0,
        ),
        (
            "pilotlight_activator_routers",
            "Router workers that are connected.",
            reconciler.book.connected() if reconciler else 0,
        ),
        ("pilotlight_activator_nodes", "Nodes whose agents are connected.", nodes),
        ("pilotlight_activator_demand_requests", "Requests that routers hold or have running.", wanted),
        ("pilotlight_activator_waiting_rows", "Rows that wait for Postgres.", rows_waiting),
    )
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
