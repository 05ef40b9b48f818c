"""The connection to the activator: demand goes up, tables come down. Steps 5, 6 and 10.

Demand is absolute: held and in flight now. It goes out at once when a revision gets its first request or its first
waiter. Else it is gathered for 0.1 s, as far as it has changed, and all of it goes each second in any case. A table is
acknowledged as soon as it is applied. The failure to survive is the activator's absence. The last table stays in use,
and whoever is back first hears all of the demand. What other routers have in replicas is forgotten with the connection
that told it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from activator.client import subscribe
from activator.wire import Demand, Depths, RouterHello, Table
from pilotlight.frames import Frame, FrameError
from router import reconnect
from router.clock import Clock, Timer
from router.hold.replicas import Revision
from router.hold.table import RouteTable

GATHER_SECONDS = 0.1
HEARTBEAT_SECONDS = 1.0


class Counts(Protocol):
    """What is true now: the table."""

    @property
    def sequence(self) -> int:
        """The last table that was applied."""

    def requests(self) -> dict[str, int]:
        """Demand by revision."""

    def in_flight(self) -> dict[str, int]:
        """Our requests by replica."""

    def of(self, revisions: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
        """Both for these revisions alone, zeros included."""


class DemandBook:
    """What the activator has been told, and when it must hear more."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._counts: Counts | None = None  # None: not connected
        self.partly = False  # the activator takes partial demand
        self._changed: set[str] = set()  # revisions since it was told last
        self._send: Callable[[Frame], None] | None = None
        self._sent: dict[str, int] = {}
        self._sent_in_flight: dict[str, int] = {}
        self._sequence = 0
        self._gathering: Timer | None = None
        self._beat: Timer | None = None

    def changed(self, revision: Revision, urgent: bool) -> None:
        """A revision's demand has changed. `urgent`: it has its first waiter."""
        if self._send is None:
            return
        self._changed.add(revision.revision_id)
        if urgent or (revision.revision_id not in self._sent and revision.demand):
            self.tell()
        elif self._gathering is None:
            self._gathering = self._clock.call_at(self._clock.time() + GATHER_SECONDS, self._gathered)

    def begin(self, send: Callable[[Frame], None], counts: Counts) -> None:
        """Connected: all that `counts` says, now and each second."""
        self._send = send
        self._counts = counts
        self._heartbeat()

    def end(self) -> None:
        for timer in (self._gathering, self._beat):
            if timer is not None:
                timer.cancel()
        self._send = self._counts = None
        self._gathering = self._beat = None
        self.partly = False
        self._changed.clear()

    def tell(self, *, everything: bool = False) -> None:
        """Say what has changed now; all of it at first, each second, and to an activator of the release before."""
        counts = self._counts
        if self._send is None or counts is None:
            return
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        partial = self.partly and not everything
        requests, in_flight = self._news(counts) if partial else (counts.requests(), counts.in_flight())
        self._changed.clear()
        if partial:
            _follow(self._sent, requests)
            _follow(self._sent_in_flight, in_flight)
        else:
            self._sent, self._sent_in_flight = requests, in_flight
        self._sequence += 1
        self._send(
            Demand(
                sequence=self._sequence,
                requests=dict(requests),
                table_sequence=counts.sequence,
                partial=partial,
                in_flight=dict(in_flight),
            )
        )

    def _news(self, counts: Counts) -> tuple[dict[str, int], dict[str, int]]:
        """What differs from what was sent, of the revisions that have changed."""
        requests, in_flight = counts.of(self._changed)
        return _differing(requests, self._sent), _differing(in_flight, self._sent_in_flight)

    def _gathered(self) -> None:
        self._gathering = None
        counts = self._counts
        if counts is not None and (
            any(self._news(counts))
            if self.partly
            else counts.requests() != self._sent or counts.in_flight() != self._sent_in_flight
        ):
            self.tell()

    def _heartbeat(self) -> None:
        self.tell(everything=True)
        self._beat = self._clock.call_at(self._clock.time() + HEARTBEAT_SECONDS, self._heartbeat)


def _differing(now: dict[str, int], sent: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in now.items() if count != sent.get(name, 0)}


def _follow(sent: dict[str, int], news: dict[str, int]) -> None:
    sent.update(news)
    for name in [name for name, count in news.items() if not count]:
        del sent[name]


class ActivatorLink:
    """The subscription, kept for ever."""

    def __init__(self, *, address: str, router_id: str, table: RouteTable, demand: DemandBook) -> None:
        self._address = address
        self._table = table
        self._demand = demand
        self._hello = RouterHello(router_id=router_id, boot_id=boot_id(), takes_parts=True)

    async def run(self) -> None:
        await reconnect.for_ever("activator", self._converse)

    async def _converse(self, heard: Callable[[], None]) -> None:
        async with asyncio.timeout(reconnect.CONNECT_SECONDS):  # not wait_for: Python 3.11's may lose a cancellation
            stream = await subscribe(self._address, self._hello)
        try:
            self._demand.begin(stream.send, self._table)
            begun = complete = False
            while True:
                async with asyncio.timeout(reconnect.SILENT_SECONDS):
                    frame = await stream.receive()
                if frame is None:
                    return
                if isinstance(frame, Table):
                    if not (begun or frame.whole):
                        raise FrameError("the activator began with a delta")
                    self._table.apply(frame)
                    begun = True
                    if frame.more:
                        await asyncio.sleep(0)  # a part at a time: what runs here goes on in between
                        continue
                    if not complete:
                        complete, self._demand.partly = True, frame.takes_partial
                        heard()
                    self._demand.tell()
                elif isinstance(frame, Depths):
                    self._table.others(frame.others, frame.routers)
        finally:
            self._demand.end()
            self._table.others_unknown()
            stream.close()


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
