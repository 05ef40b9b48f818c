"""Who is killed, frozen out or taken away while the calls go on, and when: a list of moments, carried out to its
end.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, Protocol

import asyncpg

from activator.edges.lease import LOCK
from loadtests.bench.installation import Bench
from pilotlight.settings import Paths
from runtime.reap import IDENTITY_FILE, Identity

REPLACED_SECONDS = 60.0


class Postgres(Protocol):
    """A server that can be taken away."""

    dsn: str

    async def stop(self) -> None: ...

    async def again(self) -> None: ...


class Step(NamedTuple):
    """At a part of all calls made, 0 to 1."""

    at: float
    what: str  # router, ledger, replica, agent, activator, postgres


def schedule(*, routers: int, ledgers: int, replicas: int, agents: int) -> list[Step]:
    """Kills spread over the run, with Postgres and the activator away once each."""
    parts = {"router": routers, "ledger": ledgers, "replica": replicas, "agent": agents}
    steps = [Step((number + 0.5) / count, name) for name, count in parts.items() for number in range(count)]
    return sorted([*steps, Step(0.3, "postgres"), Step(0.6, "activator")])


class Chaos:
    """Carries out steps on one installation. `killed`: when each replica was, monotonic seconds."""

    def __init__(self, bench: Bench, postgres: Postgres, dice: random.Random, *, away: dict[str, float]) -> None:
        """`away`: for how long Postgres and the activator are, in seconds."""
        self._bench = bench
        self._postgres = postgres
        self._dice = dice
        self._away = away
        self.killed: dict[str, float] = {}
        self.done: list[str] = []

    async def run(self, steps: Sequence[Step], progress: Callable[[], float]) -> None:
        """Each step once `progress` has come so far; returns after the last."""
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "postgres": self._without_postgres,
            "activator": self._without_activator,
        }
        for step in steps:
            while progress() < step.at:
                await asyncio.sleep(0.02)
            await acts.get(step.what, lambda what=step.what: self._kill(what))()
            self.done.append(step.what)

    async def _kill(self, what: str) -> None:
        match what:
            case "router":
                await self._kill_child("router")
            case "ledger":
                await self._kill_child("router.ledger")
            case "replica":
                if living := self._replicas():
                    self._end(*self._dice.choice(sorted(living.items())))
            case "agent":
                agent = self._agent()
                now = time.monotonic()
                self.killed |= {name: self.killed.get(name, now) for name in self._replicas()}  # they end with it
                os.kill(agent.pid, signal.SIGKILL)
            case _:
                raise ValueError(f"nobody is called {what}")

    async def _kill_child(self, module: str) -> None:
        child = next(child for child in self._bench.installation.children if child.module == module)
        process = child.process
        if process is not None:
            process.kill()
        async with asyncio.timeout(REPLACED_SECONDS):
            while child.process is process:
                await asyncio.sleep(0.02)

    async def _without_postgres(self) -> None:
        await self._postgres.stop()
        await asyncio.sleep(self._away["postgres"])
        await self._postgres.again()

    async def _without_activator(self) -> None:
        """Killed, and those that come after it may not lead for a while: somebody else has the lock."""
        async with self._lock_wanted():
            await self._kill_child("activator")
            await asyncio.sleep(self._away["activator"])

    @asynccontextmanager
    async def _lock_wanted(self) -> AsyncIterator[None]:
        """First in the line for the leader's lock from now on; at the end of the block it is let go."""
        connection = await asyncpg.connect(self._postgres.dsn)
        try:
            waiting = asyncio.ensure_future(connection.execute("SELECT pg_advisory_lock($1)", LOCK))
            async with asyncio.timeout(REPLACED_SECONDS):
                while not await self._is_waited_for():
                    await asyncio.sleep(0.02)
            yield
            await waiting
        finally:
            connection.terminate()

    async def _is_waited_for(self) -> bool:
        connection = await asyncpg.connect(self._postgres.dsn)
        try:
            return bool(
                await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            )
        finally:
            await connection.close()

    def _end(self, replica_id: str, identity: Identity) -> None:
        self.killed.setdefault(replica_id, time.monotonic())
        with suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGKILL)

    def _replicas(self) -> dict[str, Identity]:
        """The living ones, as their agent remembers them."""
        found = {}
        for file in self._paths.replicas.glob(f"*/{IDENTITY_FILE}"):
            with suppress(FileNotFoundError, ValueError):  # it has just ended, or begun
                identity = Identity(**json.loads(file.read_text()))
                if identity.alive():
                    found[file.parent.name] = identity
        return found

    def _agent(self) -> Identity:
        return Identity(*map(int, (self._paths.run / "agent.id").read_text().split()))

    @property
    def _paths(self) -> Paths:
        return self._bench.paths
