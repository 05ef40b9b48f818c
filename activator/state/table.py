"""The table that every router has: complete when it connects, then what changed. Step 10. Pure.

Sequences begin anew with each epoch, above every sequence of an earlier one. So an acknowledgement of an old leader's
table is never taken for one of ours. A delta has complete endpoints. What must survive is one that is lost with its
connection: the next connection begins with everything. Endpoints at rest cost no cached row; theirs is made when a
router asks for all.
"""

from __future__ import annotations

from collections.abc import Iterable

from activator.catalogue import Endpoint, Revision
from activator.policy.estimates import StartEstimates
from activator.policy.failures import FailureHistory
from activator.policy.lifecycle import Replica
from activator.state.progress import StartProgress
from activator.wire import EndpointRow, ReplicaRow, RevisionRow, Table
from runtime.tasks import DEFAULT

EPOCH_BITS = 32  # sequences per epoch


class TableBook:
    """What was sent to the routers. `sequence` is that of the newest table."""

    def __init__(self, epoch: int) -> None:
        self.begin(epoch)
        self._sent: dict[str, EndpointRow] = {}  # endpoints that differ from their row at rest
        self._changed: dict[str, EndpointRow | None] = {}

    def begin(self, epoch: int) -> None:
        """A new epoch: whoever has a table must get a full one."""
        self.epoch, self.sequence = epoch, epoch << EPOCH_BITS

    def put(self, row: EndpointRow, *, at_rest: bool, altered: bool = False) -> None:
        """This is the endpoint's row now. `at_rest`: nothing runs, starts or fails; `altered`: its route or limits are
        new.
        """
        sent = self._sent.get(row.name)
        if not altered and (sent == row or (at_rest and sent is None)):
            return
        if at_rest:
            self._sent.pop(row.name, None)
        else:
            self._sent[row.name] = row
        self._changed[row.name] = row

    def remove(self, name: str) -> None:
        self._sent.pop(name, None)
        self._changed[name] = None

    def rests(self, name: str) -> bool:
        """Does its row at rest say all there is to say of it?"""
        return name not in self._sent

    def delta(self) -> Table | None:
        """What changed since the last call, under a new sequence; None when nothing did."""
        if not self._changed:
            return None
        self.sequence += 1
        rows = tuple(row for row in self._changed.values() if row is not None)
        removed = tuple(name for name, row in self._changed.items() if row is None)
        self._changed = {}
        return Table(epoch=self.epoch, sequence=self.sequence, whole=False, endpoints=rows, removed=removed)

    def full(self, rows: Iterable[EndpointRow]) -> Table:
        """Everything, under the sequence it was last changed with."""
        return Table(epoch=self.epoch, sequence=self.sequence, whole=True, endpoints=tuple(rows))


def replica_row(replica: Replica) -> ReplicaRow:
    return ReplicaRow(
        replica_id=replica.replica_id,
        address=replica.address,
        slots=replica.slots,
        draining=replica.state in ("draining", "parking"),
        cold_start_id=replica.cold_start_id,
        rung=replica.rung,
        phases=replica.place + replica.phases,
    )


def revision_row(
    revision: Revision,
    replicas: Iterable[Replica],
    *,
    failures: FailureHistory,
    estimates: StartEstimates,
    progress: StartProgress | None,
    waits_for: str,
    now: float,
) -> RevisionRow:
    """Replicas that are or were ready; a failure only where none is ready, for else what is held will be served."""
    known = list(replicas)
    ready = any(replica.state == "ready" for replica in known)
    failure = failures.client_error(now) if not ready else ""
    return RevisionRow(
        revision_id=revision.revision_id,
        task=revision.task,
        replicas=tuple(replica_row(replica) for replica in known if replica.ready_at is not None),
        starting=any(replica.state == "starting" or replica.wanted_back for replica in known),
        phase=progress.phase if progress else None,
        phase_began_seconds=progress.began if progress else 0.0,
        fetched=progress.fetched if progress else None,
        failure=failure,
        waits_for=waits_for,
        retry_after_seconds=failures.pause if failure else 0.0,
        expected_seconds=start_seconds(revision, known, estimates),
        allow=revision.allow,
        media_hosts=revision.media_hosts,
        slots=revision.slots,
    )


def start_seconds(revision: Revision, replicas: Iterable[Replica], estimates: StartEstimates) -> float:
    """How long its start takes that is on its way, or, where none is, the next one: from `parked` where one rests
    there.
    """
    known = list(replicas)
    starting = min(
        (replica for replica in known if replica.state == "starting"), key=lambda r: r.started_at, default=None
    )
    parked = any(replica.state in ("parking", "parked") for replica in known)
    rung = starting.rung if starting else "parked" if parked else estimates.rung(revision.revision_id)
    return estimates.seconds(revision.revision_id, rung, revision.weight_bytes)


def endpoint_row(endpoint: Endpoint, revisions: Iterable[RevisionRow]) -> EndpointRow:
    rows = tuple(revisions)
    routed = next((revision for revision in endpoint.revisions if endpoint.routes_to(revision.revision_id)), None)
    return EndpointRow(
        name=endpoint.name,
        org_id=endpoint.org_id,
        endpoint_id=endpoint.endpoint_id,
        created=endpoint.created,
        task=routed.task if routed else DEFAULT,
        max_held=endpoint.max_held,
        hold_seconds=endpoint.hold_seconds,
        route=endpoint.route,
        revisions=rows,
        cors_origins=endpoint.cors_origins,
        paused=endpoint.paused,
    )
