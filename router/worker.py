"""One worker of the router: everything put together, served until told to stop, and drained. Steps 1 to 12.

Two failures to survive. SIGTERM comes amid answers. Then it accepts no more, finishes what runs and what is held within
`drain_seconds`, and ends the rest with an error and a record. The parent dies: the kernel ends the worker too, see
`parent.py`, for the port must not stay taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import resource
import signal
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import uvicorn
import uvloop

from pilotlight import logs, settings, tls
from pilotlight.exposition import Exposition
from pilotlight.keys import ensure_pepper
from pilotlight.room import Watched, look
from pilotlight.settings import Settings
from pilotlight.tasks import Tasks
from pilotlight.watchdog import Notifier
from router.admission import body_reader
from router.admission.auth import Keys
from router.admission.body_reader import Reader
from router.admission.ledger_link import LedgerLink
from router.admission.rates import Rates
from router.admission.visitors import Visitors
from router.edge import certificate, freed
from router.edge.door import Door, Porter
from router.edge.exchange import ClientLimits
from router.edge.listeners import BACKLOG, Listeners
from router.edge.protocol import RouterProtocol
from router.edge.web import asgi_app
from router.hold.activator_link import ActivatorLink, DemandBook
from router.hold.hold import Hold
from router.hold.machine import Alone, Machine, Memory, Together
from router.hold.table import RouteTable
from router.hold.turns import stand_in_line
from router.ledger.wire import WorkerHello
from router.metrics import Metrics
from router.shared import Router
from router.spool.spool import Spool

COLLECTED = (
    50_000,
    20,
    50,
)  # a request makes some hundred objects and no cycle: looking for cycles costs more than they do
SET_ASIDE = 256  # descriptors, for the spool, the admin process, idle connections to replicas, and what is ours
MEASURED = ("activator", "agent", "ledger")  # processes whose metrics are told with ours
SWITCH_SECONDS = (
    0.0001  # Python's 5 ms would be what an answer waits for the spool's thread to say that its record is durable
)


def visitors(most: int, most_each: int, *, descriptors: int) -> Visitors:
    """As many as are allowed, and as there are descriptors for: one for the client, one for its replica, and some set
    aside.
    """
    most = max(1, min(most, (descriptors - SET_ASIDE) // 2))
    return Visitors(most=most, most_each=min(most, most_each))


class Worker:
    """All parts of one worker, wired. Needs a running loop."""

    def __init__(self, config: Settings, machine: Machine) -> None:
        loop, paths = asyncio.get_running_loop(), config.paths
        self._config = config
        self.worker_id = uuid.uuid4().hex[:16]
        self.metrics = Metrics(most_endpoints=config.router.metrics_endpoints)
        room = Watched(lambda: look(paths), config.disk, clock=loop.time)
        self.spool = Spool(paths.spool, self.worker_id, loop=loop, shortage=room)
        self.keys = Keys(pepper=ensure_pepper(paths), wall=time.time)
        self.demand = DemandBook(clock=loop)
        self.hold = Hold(
            clock=loop,
            max_bytes=config.router.max_held_bytes,
            changed=self.demand.changed,
            line_up=stand_in_line,
            machine=machine,
        )
        self.table = RouteTable(clock=loop, hold=self.hold, gone=self.metrics.forget)
        self.reader = Reader(body_reader.start)
        self.router = Router(
            keys=self.keys,
            table=self.table,
            hold=self.hold,
            spool=self.spool,
            metrics=self.metrics,
            clock=loop,
            domain=config.router.domain,
            machine=machine,
            cors_origins=config.router.cors_origins,
            max_uploading=config.router.max_held_bytes,
            max_unread=config.router.max_unread_bytes,
            trusted_proxies=config.router.trusted_proxies,
            refusals_per_second=config.router.refusals_per_second_per_address,
            reader=self.reader,
        )
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.visitors = visitors(
            config.router.max_connections, config.router.max_connections_per_address, descriptors=descriptors
        )
        self.porter = Porter(Rates(config.router.connections_per_second_per_address))
        self.metrics.connections, self.metrics.step = self.visitors, self.porter.step
        self.metrics.held, self.metrics.known = self.hold.held, self.table.endpoints.__contains__
        self.activator = ActivatorLink(
            address=paths.address("activator"), router_id=self.worker_id, table=self.table, demand=self.demand
        )
        hello = WorkerHello(worker_id=self.worker_id, pid=os.getpid(), takes_changes=True)
        self.ledger = LedgerLink(
            address=paths.address("ledger"), file=paths.policy, hello=hello, keys=self.keys, spool=self.spool
        )

    def protocol(self) -> partial[RouterProtocol]:
        """What makes the protocol of a connection."""
        router = self._config.router
        limits = ClientLimits(
            max_body=router.max_body_bytes,
            header_seconds=router.header_seconds,
            keep_alive_seconds=router.keep_alive_seconds,
            upload_seconds=router.upload_seconds,
            unread_seconds=router.unread_seconds,
        )
        return partial(RouterProtocol, router=self.router, limits=limits)


class Server(uvicorn.Server):
    """uvicorn's, which ends with 0 after a signal, and tells those that are not done when their time is over."""

    def __init__(
        self,
        config: uvicorn.Config,
        router: Router,
        visitors: Visitors,
        porter: Porter,
        *,
        plain: socket.socket | None,
        handshake_seconds: float,
    ) -> None:
        super().__init__(config)
        self._router = router
        self._visitors = visitors
        self._porter = porter
        self._plain, self._handshake_seconds = plain, handshake_seconds

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; where the operator has a proxy on this machine, for plain HTTP too. uvicorn would count connections
        only after their handshake.
        """
        make = partial(cast(Any, self.config.http_protocol_class), self.config, self.server_state, {})
        listeners = [(listener, self.config.ssl) for listener in sockets or []] + (
            [(self._plain, None)] if self._plain else []
        )
        doors = [
            Door(
                listener,
                make=make,
                visitors=self._visitors,
                handshake_seconds=self._handshake_seconds,
                context=partial(_same, context),
                is_proxy=self._router.proxies.trusts,
                porter=self._porter,
            )
            for listener, context in listeners
        ]
        await self.lifespan.startup()
        self.servers = cast(Any, [door.open() for door in doors])
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._router.draining = True
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            if isinstance(connection, RouterProtocol):
                connection.drained()
        for _ in range(10):  # what they were told goes out
            if self.server_state.connections:
                await asyncio.sleep(0.05)


def _same(context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """What a door does TLS with: which certificate that shows, it decides itself (`certificate.py`)."""
    return context


async def serve(
    config: Settings,
    listeners: Listeners,
    *,
    index: int = 0,
    machine: Machine | None = None,
    plain: bool = False,
) -> None:
    """Serve until SIGTERM. `plain`: without TLS, which is for benchmarks."""
    Notifier.of_starter().keep()
    certificates = None if plain else certificate.of_settings(config)
    worker = Worker(config, machine or Alone())
    # one worker tells of them, or they would count twice
    others = [config.paths.metrics(name) for name in MEASURED] if index == 0 else []
    exposition = Exposition(worker.metrics.collect, others=others)
    await exposition.on_port(config.router.metrics_port + index)
    application = asgi_app(worker.router, admin=config.paths.address("admin"), reach=config.router.admin)
    server = Server(
        uvicorn.Config(
            application,
            http=cast(Any, worker.protocol()),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            ssl_context_factory=(lambda config, default: certificates.context) if certificates else None,
            timeout_graceful_shutdown=math.ceil(config.router.drain_seconds),
        ),
        worker.router,
        worker.visitors,
        worker.porter,
        plain=listeners.plain,
        handshake_seconds=config.router.handshake_seconds,
    )
    async with Tasks() as tasks:
        tasks.spawn(worker.activator.run(), name="activator link")
        tasks.spawn(worker.ledger.run(), name="ledger link")
        tasks.spawn(freed.keep(lambda: len(worker.visitors)), name="freed memory")
        if certificates is not None:
            tasks.spawn(certificates.keep(), name="certificates")
            if index == 0:
                tasks.spawn(
                    certificate.renew(lambda: tls.due(config.paths, tls.names(config.router))),
                    name="certificate of ours",
                )
        try:
            await server.serve(sockets=[listeners.public])
        finally:
            exposition.close()
            worker.reader.close()
            worker.spool.close()
            worker.demand.tell()  # none: else what was sent last would count until the activator calls us silent


def run(
    config: Settings,
    listeners: Listeners,
    *,
    index: int = 0,
    machine: Machine | None = None,
    plain: bool = False,
) -> None:
    """A worker's whole life."""
    freed.give_back()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(*COLLECTED)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a held request is an open connection
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config, listeners, index=index, machine=machine, plain=plain))


if __name__ == "__main__":
    logs.configure("router")
    descriptors, number, shared = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    given = settings.load()
    together = Together(Memory(shared, given.router.workers), number)
    run(given, Listeners.inherited(descriptors), index=number, machine=together)
