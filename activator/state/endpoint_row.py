"""The row of one endpoint, as the routers are to know it now. Step 10. Pure."""

from __future__ import annotations

from activator.catalogue import Endpoint
from activator.fleet import Fleet
from activator.policy.progress import Progress
from activator.state.table import endpoint_row, revision_row
from activator.wire import EndpointRow


def row_of(endpoint: Endpoint, *, fleet: Fleet, progress: Progress, now: float) -> tuple[EndpointRow, bool]:
    """The endpoint's row, and whether it is at rest.

    Revisions with a route, and others as long as they have replicas: what is held for one that has neither goes where
    the route leads.
    """
    rows, at_rest = [], True
    for revision in endpoint.revisions:
        revision_id = revision.revision_id
        busy = fleet.has(revision_id)
        if busy or endpoint.routes_to(revision_id):
            trouble, step = fleet.troubles.get(revision_id), progress.shown.get(revision_id)
            row = revision_row(
                revision, fleet.of(revision_id), trouble, fleet.expected, step, fleet.waits.reason(revision_id), now
            )
            rows.append(row)
            at_rest = at_rest and not (busy or row.failure or row.phase or row.waits_for)
    return endpoint_row(endpoint, rows), at_rest
