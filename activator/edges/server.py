"""The activator's socket: turns frames of routers and admin into events for the reconciler. Steps 6 and 10.

The first frame says who calls. A `RouterHello` opens a link that lives as long as its router; anything else is one
command with one `Done`. What must survive is a peer that talks nonsense: it loses its connection, and nobody else does.
The inbox is bounded. When it is full, reading stops, and the peers' sockets fill instead of this process's memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog

from activator.edges.commands import Commands
from activator.edges.journal_watermarks import Journals
from activator.edges.real_effects import Links
from activator.events import DemandHeard, Event, RouterHeard, RouterJoined, RouterLeft
from activator.wire import Alive, Demand, Deploy, Remove, Rollback, RouterHello, ShipJournals, Status, ToActivator, Wake
from pilotlight import frames
from pilotlight.frames import FrameError, FrameStream

HELLO_SECONDS = 5.0  # for the first frame of a connection

log = structlog.get_logger()


class Server:
    """The activator's socket. `agents`: the links to agents there are now."""

    def __init__(
        self,
        *,
        inbox: asyncio.Queue[Event],
        links: Links,
        commands: Commands,
        journals: Journals,
        agents: Callable[[], list[int]],
    ) -> None:
        self._inbox = inbox
        self._links = links
        self._commands = commands
        self._journals = journals
        self._agents = agents

    async def serve(self, address: str) -> asyncio.Server:
        return await frames.serve(address, ToActivator, self.attend)

    async def attend(self, peer: FrameStream[Any]) -> None:
        try:
            # one of a kind we do not know is passed over, and nothing follows it
            async with asyncio.timeout(HELLO_SECONDS):
                first = await peer.receive()
            if isinstance(first, RouterHello):
                frames.check_protocol(first.protocol, f"router {first.router_id}")
                await self._router(first, peer)
            elif isinstance(first, Deploy | Rollback | Remove | Status | Wake):
                peer.send(await self._commands.execute(first))
                await peer.drain()
            elif isinstance(first, ShipJournals):
                peer.send(await self._journals.ask(self._agents()))
                await peer.drain()
        except FrameError as error:
            log.warning("a peer sent what is no frame", action="bad_frame", error=str(error))
        except TimeoutError:
            log.warning("a peer did not say what it wants", action="no_hello")
        except ConnectionError:
            pass  # it did not wait for its answer

    async def _router(self, hello: RouterHello, peer: FrameStream[Any]) -> None:
        connection = self._links.open(peer)
        log.info("router joined", action="router_joined", router_id=hello.router_id, connection=connection)
        try:
            await self._inbox.put(RouterJoined(hello.router_id, connection, hello.takes_parts))
            async for frame in peer:
                if isinstance(frame, Demand):
                    await self._inbox.put(DemandHeard(hello.router_id, connection, frame, time.monotonic()))
                elif isinstance(frame, Alive):
                    await self._inbox.put(RouterHeard(hello.router_id, connection))
        finally:
            self._links.close(connection)
            log.info("router left", action="router_left", router_id=hello.router_id, connection=connection)
            await self._inbox.put(RouterLeft(hello.router_id, connection))
