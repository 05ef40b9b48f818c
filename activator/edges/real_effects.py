"""The real effects: open connections by number, and the queue to Postgres. Steps 6, 7 and 10.

A frame goes to its socket at once; a row goes into an ordered queue (`store/writer.py`). What must survive is Postgres
being away. Usage that does not fit the queue stays with its agent, which sends it again on a new link.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import structlog

from activator.policy.lifecycle import Replica
from activator.policy.quarantine import QuarantinedRung
from activator.store.cold_starts import ColdStart
from activator.store.events import EventRecord
from activator.store.replicas import ReplicaRecord
from activator.store.writer import Writer
from pilotlight.frames import Encoded, Frame, FrameStream
from runtime.wire import Shipped, UsageBatch, UsageStored

log = structlog.get_logger()


@dataclass(slots=True)
class Links:
    """The open connections, by number. A number is never used twice in the life of a process."""

    streams: dict[int, FrameStream[Any]] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def send(self, connection: int, *frames: Frame | Encoded) -> None:
        """Nothing happens where the link is gone."""
        if stream := self.streams.get(connection):
            stream.send(*frames)

    def open(self, stream: FrameStream[Any]) -> int:
        number = next(self._numbers)
        self.streams[number] = stream
        return number

    def close(self, connection: int) -> None:
        if stream := self.streams.pop(connection, None):
            stream.close()

    def cut(self, connection: int) -> None:
        """Without what is unsent: a peer that does not read would keep the link open for ever."""
        if stream := self.streams.pop(connection, None):
            stream.abort()


class RealEffects:
    """Sockets and Postgres."""

    def __init__(
        self,
        links: Links,
        writer: Writer,
        raise_epoch: Callable[[int], None],
        settle: Callable[[str, str, str], None],
        shipped: Callable[[int, Shipped], None] = lambda connection, word: None,
    ) -> None:
        self._links = links
        self._writer = writer
        self._raise_epoch = raise_epoch
        self._settle = settle
        self._shipped = shipped
        self._overflowed: set[int] = set()
        self.starts: Counter[tuple[str, str]] = Counter()  # that have ended, by rung and outcome

    def send(self, connection: int, *frames: Frame | Encoded) -> None:
        self._links.send(connection, *frames)

    def hang_up(self, connection: int) -> None:
        self._overflowed.discard(connection)
        self._links.cut(connection)

    def _let_go(self, connection: int) -> None:
        """After what was acknowledged last has gone out."""
        self._overflowed.discard(connection)
        self._links.close(connection)

    def save_replica(self, replica: Replica) -> None:
        self._writer.replica(ReplicaRecord.of(replica))

    def save_cold_start(self, replica: Replica, now: float) -> None:
        self.starts[replica.rung, "ready" if replica.state == "ready" else "failed"] += 1
        self._writer.cold_start(ColdStart.of(replica, now))

    def save_event(self, event: EventRecord) -> None:
        self._writer.event(event)

    def save_bad_rung(self, mark: QuarantinedRung) -> None:
        self._writer.bad_rung(mark)

    def settle(self, name: str, revision_id: str, failure: str) -> None:
        self._settle(name, revision_id, failure)

    def save_usage(self, connection: int, batch: UsageBatch | Shipped) -> None:
        """Too much for the queue: nothing more of this link is taken, for an acknowledgement covers all batches before
        it. When the queue is empty the link is closed, and on the next the agent sends again what is not stored.
        """

        if connection in self._overflowed:
            return
        if isinstance(batch, Shipped):
            self._writer.usage((), lambda: self._shipped(connection, batch))
            return
        number = batch.batch
        if self._writer.usage(
            batch.entries, lambda: self.send(connection, UsageStored(batch=number)), complete=batch.complete
        ):
            return
        log.warning("too much usage waits for Postgres; the agent keeps it", action="usage_deferred", batch=batch.batch)
        self._overflowed.add(connection)
        self._writer.when_empty(lambda: self._let_go(connection))

    def raise_epoch(self, above: int) -> None:
        self._raise_epoch(above)
