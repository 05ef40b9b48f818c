"""One activator from start to end: wait to lead, take over what runs, lead, end. Steps 6, 7 and 10.

    waiting to lead ──lease──→ restoring ──→ leading ──SIGTERM──→ draining ──all gone──→ ended
                                                └─ LeadershipLost, a crash: only this process ends

The first SIGTERM (or SIGINT) ends every replica gently, then the node's agent; a second one does not wait for what
runs. What must survive is a crash: replicas, agent and routers go on, and the next leader adopts them. With Postgres
away, and one machine to lead, it begins with the catalogue as the last leader kept it (`catalogue_file.py`), and
catches up later.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple

import structlog

from activator.catalogue import Catalogue
from activator.control.reconciler import Reconciler
from activator.edges import catalogue_file as kept
from activator.edges import metrics
from activator.edges.agents import keep_node
from activator.edges.catalogue_file import CatalogueFile
from activator.edges.commands import Commands
from activator.edges.journal_watermarks import Journals
from activator.edges.lease import Lease
from activator.edges.machine_lock import MachineLock
from activator.edges.real_effects import Links, RealEffects
from activator.edges.server import Server
from activator.events import EpochTaken, Event, ShutDown, Tick
from activator.launchers import Launcher
from activator.state.stored_state import StoredState
from activator.store import bad_rungs, cold_starts, replicas
from activator.store import catalogue as stored_catalogue
from activator.store.connection import Pool
from activator.store.housekeeping import keep_house
from activator.store.writer import Writer
from pilotlight.database.pool import connect_pool, dsn
from pilotlight.exposition import Exposition, Family
from pilotlight.settings import Settings
from pilotlight.tasks import Tasks
from pilotlight.watchdog import Notifier

log = structlog.get_logger()

INBOX = 10_000  # events waiting; when it is full, sockets are not read
FLUSH_SECONDS = 2.0  # for the last rows, at the end
PATIENCE_SECONDS = 5.0  # beyond the drain, for agents to report that replicas are gone
UNUSED_SECONDS = 2.0  # of a connection to Postgres for what operators ask: all at once, or nothing


class Pools(NamedTuple):
    """Connections to Postgres, none before the first statement: it may be away. What a wake writes has one of its own,
    which stays.
    """

    writing: Pool
    asking: Pool


async def lead(settings: Settings, launcher: Launcher) -> None:
    """Returns after a signal to end. Raises LeadershipLost (in a group), DatabaseError, and whatever crashed."""
    settings.paths.make()
    Notifier.of_starter().keep()
    signals: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, None)
    lease, catalogue_file = Lease(dsn(settings), MachineLock.of(settings)), settings.paths.catalogue
    leading = lease.acquire(without=lambda: kept.read(catalogue_file) is not None)
    waiting, ending = asyncio.ensure_future(leading), asyncio.ensure_future(signals.get())
    await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
    if ending.done():
        waiting.cancel()
        return
    log.info("leading", action="lead", epoch=waiting.result())
    pools = Pools(
        await connect_pool(dsn(settings), application="activator", smallest=0, largest=1),
        await connect_pool(dsn(settings), application="activator", smallest=0, largest=3, unused=UNUSED_SECONDS),
    )
    try:
        if lease.connected:
            stored = await restore(pools.writing)
        else:  # what the last leader kept here is served until Postgres is back
            stored = StoredState(endpoints=kept.read(catalogue_file) or ())
        await Activator(settings, lease, pools, launcher, stored).run(ending, signals)
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(pools.writing.close(), pools.asking.close()), 1.0)
        await lease.give_up()


async def restore(pool: Pool) -> StoredState:
    """What Postgres knows: where the last activator stopped."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        return StoredState(
            endpoints=await stored_catalogue.load(connection),
            replicas=await replicas.load_alive(connection, time.monotonic()),
            cold_starts=await cold_starts.past(connection),
            memory=await replicas.memory(connection),
            bad_rungs=await bad_rungs.marked(connection, time.monotonic()),
        )


class Activator:
    """All parts of one activator, put together; `run` leads until it is to end."""

    def __init__(self, settings: Settings, lease: Lease, pools: Pools, launcher: Launcher, stored: StoredState) -> None:
        self._settings = settings
        self._lease = lease
        self._pools = pools
        self._launcher = launcher
        self._links = Links()
        self._writer = Writer(pools.writing)
        self._inbox: asyncio.Queue[Event] = asyncio.Queue(INBOX)
        self._keeping = CatalogueFile(settings.paths.catalogue, stored.endpoints)
        self._catalogue = Catalogue(on_put=self._keeping.put, on_gone=self._keeping.drop)
        journals = Journals(self._links.send)
        allowed = settings.runtime.allow_engine_args
        self._commands = Commands(pool=pools.asking, inbox=self._inbox, epoch=lambda: lease.epoch, allowed=allowed)
        self._effects = RealEffects(
            self._links, self._writer, lease.raise_above, self._commands.settle, journals.shipped
        )
        self._reconciler = Reconciler(
            settings=settings.activator,
            effects=self._effects,
            epoch=lease.epoch,
            stored=stored,
            clock=time.monotonic,
            catalogue=self._catalogue,
        )
        self._server = Server(
            inbox=self._inbox,
            links=self._links,
            commands=self._commands,
            journals=journals,
            agents=self._reconciler.state.nodes.connections,
        )

    async def run(self, ending: asyncio.Future[None], signals: asyncio.Queue[None]) -> None:
        """Lead until `ending`, then end what runs."""
        paths = self._settings.paths
        async with Tasks() as tasks:
            reconciling = tasks.spawn(self._reconciler.run(self._inbox), name="reconciler")
            self._spawn_keepers(tasks)
            node = tasks.spawn(keep_node(self._launcher, inbox=self._inbox, links=self._links), name="node")
            listener = await self._server.serve(paths.address("activator"))
            exposition = Exposition(self._metrics)
            await exposition.on_socket(paths.metrics("activator"))
            await ending
            exposition.close()
            await self._inbox.put(ShutDown())
            tasks.spawn(_hasten(signals, self._inbox), name="second signal")
            patience = self._settings.activator.drain_seconds + PATIENCE_SECONDS
            await asyncio.wait((reconciling,), timeout=patience)
            listener.close()
            node.cancel()
            await self._launcher.end()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._writer.flush(), FLUSH_SECONDS)
        log.info("ended", action="end")

    def _spawn_keepers(self, tasks: Tasks) -> None:
        """Tasks that run for ever beside the reconciler."""
        renewals = Renewals(self._inbox, self._lease, self._commands, self._catalogue, tasks)
        tasks.spawn(self._writer.run(), name="writer")
        tasks.spawn(self._commands.keep_settling(), name="settling")
        tasks.spawn(self._commands.keep_sure(), name="unsure")
        tasks.spawn(self._keeping.run(), name="catalogue file")
        tasks.spawn(self._lease.keep(renewals.renewed), name="lease")
        tasks.spawn(_keep_house(self._settings, self._pools.asking), name="housekeeping")
        tasks.spawn(_tick(self._inbox, self._settings.activator.tick_seconds), name="tick")

    def _metrics(self) -> Iterator[Family]:
        return metrics.collect(self._reconciler.state, self._effects.starts, self._writer.waiting)


class Renewals:
    """Hears of each new epoch. An activator that began while Postgres was away catches up once it is back."""

    def __init__(
        self, inbox: asyncio.Queue[Event], lease: Lease, commands: Commands, catalogue: Catalogue, tasks: Tasks
    ) -> None:
        self._inbox = inbox
        self._lease = lease
        self._commands = commands
        self._catalogue = catalogue
        self._tasks = tasks
        self._behind = not lease.connected

    async def renewed(self, epoch: int) -> None:
        await self._inbox.put(EpochTaken(epoch))
        if self._behind and self._lease.connected:
            self._behind = False
            self._tasks.spawn(self._commands.catch_up(self._catalogue), name="catch up")


async def _keep_house(settings: Settings, pool: Pool) -> None:
    keep_days, audit_days = settings.activator.keep_days, settings.activator.audit_days
    await keep_house(pool, keep_days=keep_days, audit_days=audit_days, most_bytes=settings.disk.postgres_bytes)


async def _tick(inbox: asyncio.Queue[Event], seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await inbox.put(Tick())


async def _hasten(signals: asyncio.Queue[None], inbox: asyncio.Queue[Event]) -> None:
    await signals.get()
    await inbox.put(ShutDown(hastily=True))
