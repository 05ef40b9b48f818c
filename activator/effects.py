"""The hands of the reconciler: frames to routers and agents, rows to Postgres. Steps 6, 7 and 10.

Nothing here waits. A frame goes to the socket at once; a row goes into an ordered queue (`store/writer.py`), so a start
command is on its way before anything of it is in Postgres. A crash in between leaves nothing stranded: the agent's
`NodeReport` names the replica, and the next activator adopts it. To a link that is gone, sending does nothing; its end
comes to the reconciler as an event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import structlog

from activator.policy.lifecycle import Replica
from activator.policy.quarantine import BadRung
from activator.store.cold_starts import ColdStart
from activator.store.events import EventRecord
from activator.store.replicas import ReplicaRecord
from activator.store.writer import Writer
from pilotlight.frames import Encoded, Frame, FrameStream
from runtime.wire import Shipped, UsageBatch, UsageStored

log = structlog.get_logger()


class Effects(Protocol):
    """All that the reconciler can do to the world. Every method returns at once and raises nothing."""

    def send(self, connection: int, *frames: Frame | Encoded) -> None:
        """Frames to a router or an agent."""

    def hang_up(self, connection: int) -> None:
        """Close a link; its end follows as an event."""

    def save_replica(self, replica: Replica) -> None:
        """The replica's row, as it is now."""

    def save_cold_start(self, replica: Replica, now: float) -> None:
        """The start of this replica has just ended: it is ready, or has failed."""

    def save_event(self, event: EventRecord) -> None:
        """Something an operator should hear of."""

    def save_bad_rung(self, mark: BadRung) -> None:
        """A rung has gone bad, or is good again."""

    def settle(self, name: str, revision_id: str, failure: str) -> None:
        """A revision of this endpoint serves, or has failed: store what follows. The endpoint as it is then comes as an
        event.
        """

    def save_usage(self, connection: int, batch: UsageBatch | Shipped) -> None:
        """What engines produced; the agent hears `UsageStored` once it is durable. `Shipped` is passed on once all
        before it is.
        """

    def raise_epoch(self, above: int) -> None:
        """An agent obeys only epochs above this one: take such a one, or end if leadership is lost."""


@dataclass(slots=True)
class Links:
    """The open connections, by number. A number is never used twice in the life of a process."""

    streams: dict[int, FrameStream[Any]] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=lambda: count(1))

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
        self._links, self._writer, self._raise_epoch, self._settle, self._shipped = (
            links,
            writer,
            raise_epoch,
            settle,
            shipped,
        )
        self._overflowed: set[int] = set()
        self.starts: Counter[tuple[str, str]] = Counter()  # that have ended, by rung and outcome

    def send(self, connection: int, *frames: Frame | Encoded) -> None:
        if stream := self._links.streams.get(connection):
            stream.send(*frames)

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

    def save_bad_rung(self, mark: BadRung) -> None:
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
