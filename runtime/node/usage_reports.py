"""What this node says of usage: its replicas' journals, sent, counted and vouched for, once a second. Step 12.

It joins three parts. `usage_shipper.py` sends the lines, `last_counts.py` keeps what has no line yet, and
`watermark.py` says up to when a journal is complete. The failure to survive is a disk that does not let a journal be
read. It is asked again a second later, and the replicas serve on.
"""

from __future__ import annotations

import structlog

from runtime.node.last_counts import Counts
from runtime.node.usage_shipper import UsageShipper
from runtime.node.watermark import Answer, Watermark

log = structlog.get_logger()


class UsageReports:
    """The journals, the counts and the watermark of one node."""

    def __init__(self, *, shipper: UsageShipper, counts: Counts, watermark: Watermark) -> None:
        self._shipper = shipper
        self._counts = counts
        self._watermark = watermark
        self._unread = False  # the last sweep failed; logged once

    def again(self) -> None:
        """A new connection: whatever is not known to be stored goes out once more."""
        self._shipper.again()

    def stored(self, batch: int) -> None:
        """Usage up to this batch is durable in Postgres."""
        self._shipper.stored(batch)

    def ship(self, token: int, answer: Answer, *, now: float) -> None:
        """Send what there is, and answer once it is known to be all."""
        self._watermark.ask(token, answer, now=now)

    def tick(self, now: float) -> None:
        """Once a second, at `now` (monotonic seconds)."""
        self._sweep()
        self._watermark.retry()
        self._counts.keep(self._shipper.journals())
        self._watermark.look(now=now)

    def _sweep(self) -> None:
        try:
            self._shipper.sweep()
        except OSError as error:
            if not self._unread:
                log.error("the journals cannot be read; trying on", action="journal_unread", reason=str(error))
            self._unread = True
        else:
            self._unread = False
