"""The row of one endpoint, as the routers are to know it now. Step 10. Pure: time is an argument."""

from __future__ import annotations

from activator.catalogue import Endpoint
from activator.state.cluster import ClusterState
from activator.state.progress import ProgressBook
from activator.state.table import endpoint_row, revision_row
from activator.wire import EndpointRow, RevisionRow


def row_of(endpoint: Endpoint, state: ClusterState, progress: ProgressBook, now: float) -> tuple[EndpointRow, bool]:
    """The endpoint's row, and whether it is at rest.

    It has the revisions with a route, and others as long as they have replicas. What is held for one that has neither
    goes where the route leads.
    """
    rows: list[RevisionRow] = []
    at_rest = True
    for revision in endpoint.revisions:
        revision_id = revision.revision_id
        busy = state.replicas.has(revision_id)
        if busy or endpoint.routes_to(revision_id):
            row = revision_row(
                revision,
                state.replicas.of(revision_id),
                failures=state.failures.of(revision_id),
                estimates=state.estimates,
                progress=progress.of(revision_id),
                waits_for=state.waits.reason(revision_id),
                now=now,
            )
            rows.append(row)
            at_rest = at_rest and not (busy or row.failure or row.phase or row.waits_for)
    return endpoint_row(endpoint, rows), at_rest
