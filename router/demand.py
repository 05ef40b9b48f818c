"""Steps 5, 6 and 10: the connection to the activator. Demand goes up, tables come down.

Demand is absolute: held + in flight now. It goes out at once when a revision gets its first request or its first
waiter, else gathered for 0.1 s, and each second in any case; a table is acknowledged as soon as it is applied. The failure to
survive is the activator's absence: the last table stays in use, and whoever is back first hears the whole demand; what other
routers have in replicas is forgotten with the connection that told it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from activator.client import subscribe
from activator.wire import Demand, Depths, RouterHello, Table
from pilotlight.frames import Frame, FrameError
from router import reconnect
from router.balance import Revision
from router.hold import Clock, Timer
from router.table import RouteTable

GATHER_SECONDS = 0.1
HEARTBEAT_SECONDS = 1.0


class DemandBook:
    """What the activator has been told, and when it must hear more. `requests`, `acknowledged` and `in_flight` give what is true now."""

    def __init__(
        self,
        *,
        clock: Clock,
        requests: Callable[[], dict[str, int]],
        acknowledged: Callable[[], int],
        in_flight: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._clock, self._requests, self._acknowledged, self._in_flight = clock, requests, acknowledged, in_flight
        self._send: Callable[[Frame], None] | None = None
        self._told: dict[str, int] = {}
        self._told_in_flight: dict[str, int] = {}
        self._sequence = 0
        self._gathering: Timer | None = None
        self._beat: Timer | None = None

    def changed(self, revision: Revision, urgent: bool) -> None:
        """A revision's demand has changed. `urgent`: it has its first waiter."""
        if self._send is None:
            return
        if urgent or (revision.revision_id not in self._told and revision.demand):
            self.tell()
        elif self._gathering is None:
            self._gathering = self._clock.call_at(self._clock.time() + GATHER_SECONDS, self._gathered)

    def begin(self, send: Callable[[Frame], None]) -> None:
        """Connected: all of it, now and each second."""
        self._send = send
        self._heartbeat()

    def end(self) -> None:
        for timer in (self._gathering, self._beat):
            if timer is not None:
                timer.cancel()
        self._send = self._gathering = self._beat = None

    def tell(self) -> None:
        """Say all of it now."""
        if self._send is None:
            return
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._told, self._told_in_flight = self._requests(), self._in_flight()
        self._sequence += 1
        self._send(
            Demand(sequence=self._sequence, requests=self._told, table_sequence=self._acknowledged(), in_flight=self._told_in_flight)
        )

    def _gathered(self) -> None:
        self._gathering = None
        if self._requests() != self._told or self._in_flight() != self._told_in_flight:
            self.tell()

    def _heartbeat(self) -> None:
        self.tell()
        self._beat = self._clock.call_at(self._clock.time() + HEARTBEAT_SECONDS, self._heartbeat)


class ActivatorLink:
    """The subscription, kept for ever."""

    def __init__(self, *, address: str, router_id: str, table: RouteTable, demand: DemandBook) -> None:
        self._address, self._table, self._demand = address, table, demand
        self._hello = RouterHello(router_id=router_id, boot_id=boot_id())

    async def run(self) -> None:
        await reconnect.for_ever("activator", self._converse)

    async def _converse(self, heard: Callable[[], None]) -> None:
        async with asyncio.timeout(reconnect.CONNECT_SECONDS):  # not wait_for: Python 3.11's may lose a cancellation
            stream = await subscribe(self._address, self._hello)
        try:
            self._demand.begin(stream.send)
            whole = False
            while True:
                async with asyncio.timeout(reconnect.SILENT_SECONDS):
                    frame = await stream.receive()
                if frame is None:
                    return
                if isinstance(frame, Table):
                    if not (whole or frame.whole):
                        raise FrameError("the activator began with a delta")
                    self._table.apply(frame)
                    self._demand.tell()
                    if not whole:
                        heard()
                    whole = True
                elif isinstance(frame, Depths):
                    self._table.others(frame.others, frame.routers)
        finally:
            self._demand.end()
            self._table.others_unknown()
            stream.close()


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
