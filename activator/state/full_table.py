"""The full table that a router gets when it joins: written once for all that join together, and in parts. Step 10.
Pure: time is an argument.

With thousands of endpoints nearly all are at rest, and a row at rest says little. It is written by hand, for the frame
classes would take most of the activator's second; a test holds it to the contract. Parts are small, so that no router's
loop stands still while it reads one. What must survive is a burst: all workers come back at once after a restart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring_ascii as quoted

from activator.catalogue import Endpoint, Revision
from activator.policy.estimates import StartEstimates
from activator.state.table import TableBook
from activator.wire import EndpointRow
from pilotlight.frames import Encoded
from runtime.tasks import DEFAULT

PART_ROWS = 100  # about a millisecond of a router's loop
SAME_SECONDS = 1.0  # who joins so soon after another gets what that one got


class FullTable:
    """`row` makes the row of an endpoint that is not at rest."""

    def __init__(
        self, book: TableBook, estimates: StartEstimates, row: Callable[[Endpoint, float], EndpointRow]
    ) -> None:
        self._book = book
        self._estimates = estimates
        self._row = row
        self._made: tuple[tuple[int, int], float, list[Encoded]] | None = None

    def parts(self, endpoints: Iterable[Endpoint], now: float) -> list[Encoded]:
        """All of it, as frames that follow each other."""
        at = (self._book.epoch, self._book.sequence)
        if self._made is None or self._made[0] != at or now - self._made[1] > SAME_SECONDS:
            self._made = (at, now, self._write(endpoints, now))
        return self._made[2]

    def _write(self, endpoints: Iterable[Endpoint], now: float) -> list[Encoded]:
        rows = [self._line(endpoint, now) for endpoint in endpoints if not endpoint.removed]
        groups = [rows[first : first + PART_ROWS] for first in range(0, len(rows), PART_ROWS)] or [[]]
        return [self._part(group, first=group is groups[0], last=group is groups[-1]) for group in groups]

    def _part(self, rows: list[str], *, first: bool, last: bool) -> Encoded:
        head = f'{{"kind":"table","epoch":{self._book.epoch},"sequence":{self._book.sequence},"takes_partial":true'
        return Encoded(
            f'{head},"whole":{_json(first)},"more":{_json(not last)},"endpoints":[{",".join(rows)}]}}\n'.encode()
        )

    def _line(self, endpoint: Endpoint, now: float) -> str:
        if not self._book.rests(endpoint.name):
            return self._row(endpoint, now).model_dump_json()
        return resting(endpoint, self._estimates)


def resting(endpoint: Endpoint, estimates: StartEstimates) -> str:
    """The row of an endpoint of which nothing runs, starts or fails, as JSON."""
    weights = dict(endpoint.route)
    routed = [revision for revision in endpoint.revisions if weights.get(revision.revision_id, 0) > 0]
    revisions = ",".join(_resting(revision, estimates) for revision in routed)
    route = ",".join(f"[{quoted(revision_id)},{weight}]" for revision_id, weight in endpoint.route)
    return (
        f'{{"name":{quoted(endpoint.name)},"org_id":{quoted(endpoint.org_id)},'
        f'"endpoint_id":{quoted(endpoint.endpoint_id)},"created":{endpoint.created},'
        f'"task":"{routed[0].task if routed else DEFAULT}","max_held":{endpoint.max_held},'
        f'"hold_seconds":{endpoint.hold_seconds},"route":[{route}],"revisions":[{revisions}],'
        f'"cors_origins":{json.dumps(endpoint.cors_origins)},"paused":{_json(endpoint.paused)}}}'
    )


def _resting(revision: Revision, estimates: StartEstimates) -> str:
    seconds = estimates.seconds(revision.revision_id, estimates.rung(revision.revision_id), revision.weight_bytes)
    allows = (
        f',"allow":{json.dumps(revision.allow)},"media_hosts":{json.dumps(revision.media_hosts)}'
        if revision.allow
        else ""
    )
    return (
        f'{{"revision_id":{quoted(revision.revision_id)},"task":"{revision.task}",'
        f'"expected_seconds":{seconds},"slots":{revision.slots}{allows}}}'
    )


def _json(yes: bool) -> str:
    return json.dumps(yes)
