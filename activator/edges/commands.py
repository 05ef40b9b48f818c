"""Carries out commands of the admin API and verdicts on deploys, one at a time. Step 6.

    command ──→ planned ──→ stored ──→ EndpointStored ──→ answered once the routers know it
                   │           └─ no answer from Postgres ──→ unsure ──keep_sure: read again──→ EndpointStored
                   └─ CommandRefused ──→ answered

What must survive is a crash or a lost connection in the middle. A command is one transaction, which first makes sure,
under a lock, that this activator still leads. The next command and the next activator begin from what is stored, and a
deploy that is repeated makes nothing twice. Where the answer was lost, nobody knows whether it has committed. So the
endpoint is read again until Postgres answers, and the reconciler gets what is there.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import asyncpg
import structlog

from activator.catalogue import Endpoint
from activator.edges.catalogue_file import differences
from activator.errors import CommandRefused, NotLeading
from activator.events import ArgumentsAsked, EndpointStored, Event, Reply, StatusAsked, WakeAsked
from activator.policy.deploy import Plan, plan_deploy, plan_remove, plan_rollback, plan_settled
from activator.store import catalogue
from activator.store.catalogue import Ended
from activator.store.connection import FAILED, Connection
from activator.wire import Deploy, Done, Remove, Rollback, Status, Wake
from runtime.argument_names import refusal

log = structlog.get_logger()

STORE_SECONDS = 10.0
CATCH_UP_SECONDS = 0.5  # before Postgres is asked once more
AGAIN_SECONDS = 0.5  # between two looks at an endpoint that may have been stored
MOST_SETTLED = 10_000  # verdicts that wait; the reconciler repeats what is lost

Command = Deploy | Rollback | Remove
UNSURE = (
    "Postgres does not answer, so whether this was stored is not known yet. What serves goes on serving, and the "
    "activator follows what is stored once Postgres answers; try again"
)
UNSTORED = "Postgres does not answer, so nothing was stored. What serves goes on serving; try again"


@dataclass(frozen=True)
class Looked:
    """What is known of a revision before anything moves."""

    unchecked: str = ""  # why nobody has looked at its engine arguments
    notes: tuple[str, ...] = ()


class Connections(Protocol):
    """asyncpg's pool, as far as commands use it."""

    def acquire(self) -> AbstractAsyncContextManager[Any]: ...


def new_id(prefix: str) -> str:
    """Of an endpoint or a revision; never used twice."""
    return prefix + secrets.token_hex(6)


class Commands:
    """Carries out one command after another, each in one transaction."""

    def __init__(
        self,
        *,
        pool: Connections,
        inbox: asyncio.Queue[Event],
        epoch: Callable[[], int],
        allowed: Collection[str] = (),
        new_id: Callable[[str], str] = new_id,
    ) -> None:
        """`allowed`: engine arguments that execute code or open files, and may here all the same. `new_id`: by its
        prefix, never used twice.
        """
        self._pool = pool
        self._inbox = inbox
        self._epoch = epoch
        self._allowed = allowed
        self._new_id = new_id
        self._one_at_a_time = asyncio.Lock()  # so that the reconciler hears of changes in the order they were stored
        self._settled: asyncio.Queue[tuple[str, str, str]] = asyncio.Queue(MOST_SETTLED)  # name, revision id, failure
        self._unsure: dict[str, None] = {}  # names of endpoints that may have been stored
        self._doubt = asyncio.Event()

    async def execute(self, frame: Command | Status | Wake) -> Done:
        """Carry out a command. Never raises for what the caller or Postgres did wrong: `Done` says it."""
        if isinstance(frame, Status):
            return await (await self._tell(StatusAsked))
        if isinstance(frame, Wake):
            return await (await self._tell(partial(WakeAsked, frame.org_id, frame.name)))
        began = False
        try:
            # a slow node holds up nobody else
            looked = Looked() if isinstance(frame, Remove) else await self._check_arguments(frame)
            async with self._one_at_a_time:
                began = True
                plan, ended = await self._store(frame)
                answer = await self._tell(
                    lambda reply: EndpointStored(plan.endpoint, reply, _done(plan, ended, looked))
                )
            log.info(
                f"{frame.kind} stored",
                action=frame.kind,
                endpoint_id=plan.endpoint.endpoint_id,
                name=frame.name,
                changed=plan.changed,
            )
            return await answer
        except CommandRefused as refused:
            return Done(ok=False, message=str(refused), again=isinstance(refused, NotLeading))
        except asyncpg.ForeignKeyViolationError:
            return Done(ok=False, message=f"there is no organisation {frame.org_id!r}")
        except FAILED as error:
            log.error(
                "a command could not be stored",
                action="command_failed",
                kind=frame.kind,
                name=frame.name,
                error=str(error),
            )
            if began:
                self._unsure[frame.name] = None
                self._doubt.set()
            return Done(ok=False, message=UNSURE if began else UNSTORED, again=True)

    async def catch_up(self, served: Iterable[Endpoint]) -> None:
        """Postgres is back, and we began with what was kept here: what it has otherwise is served from now on. Tries
        for ever.
        """
        while True:
            try:
                async with self._one_at_a_time:
                    async with asyncio.timeout(STORE_SECONDS), self._pool.acquire() as connection:
                        stored = await catalogue.load(connection)
                    news = differences(served, stored)
                    for endpoint in news:
                        await self._tell(partial(_as_stored, endpoint))
                log.info("caught up with Postgres", action="caught_up", endpoints=len(stored), differed=len(news))
                return
            except FAILED as error:
                log.warning("what Postgres has cannot be read yet", action="catch_up", error=str(error))
                await asyncio.sleep(CATCH_UP_SECONDS)

    async def _check_arguments(self, frame: Deploy | Rollback) -> Looked:
        """Before anything moves: those of a new engine, and what a node would cut of its model. Raises
        CommandRefused.
        """
        async with asyncio.timeout(STORE_SECONDS), self._pool.acquire() as connection:
            stored = await _stored(connection, frame.name, past=isinstance(frame, Rollback))
        new = self._plan(frame, stored).new_revision
        if new is None or any(
            known.engine == new.engine and known.outcome == "proved" for known in (stored.revisions if stored else ())
        ):
            return Looked()
        if reason := refusal(new.engine_args, self._allowed):
            raise CommandRefused(reason)
        answer = await (await self._tell(lambda reply: ArgumentsAsked(new, reply)))
        if not answer.ok:
            raise CommandRefused(f"vLLM refuses its arguments: {answer.message}")
        unchecked = str(answer.result.get("unchecked", "")) if new.engine_args else ""
        return Looked(unchecked, tuple(answer.result.get("notes", ())))

    def settle(self, name: str, revision_id: str, failure: str) -> None:
        """A revision serves, or has failed: store what follows. Returns at once; `keep_settling` does it."""
        if self._settled.full():
            log.error("too many verdicts wait for Postgres", action="settle_lost", name=name, revision_id=revision_id)
            return
        self._settled.put_nowait((name, revision_id, failure))

    async def keep_settling(self) -> None:
        """Store the reconciler's verdicts for ever. One that Postgres does not take is given again by the
        reconciler.
        """
        while True:
            name, revision_id, failure = await self._settled.get()
            try:
                async with self._one_at_a_time:
                    plan = await self._store_settled(name, revision_id, failure)
                    if plan:
                        await self._tell(partial(_as_stored, plan.endpoint))
            except (CommandRefused, *FAILED) as error:
                log.warning(
                    "a verdict could not be stored",
                    action="settle_failed",
                    name=name,
                    revision_id=revision_id,
                    error=str(error),
                )

    async def keep_sure(self) -> None:
        """After a command whose answer was lost: tell the reconciler what is stored, as soon as Postgres says it."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            while self._unsure:
                name = next(iter(self._unsure))
                del self._unsure[name]  # before it is read: a command that comes meanwhile has it read again
                if not await self._is_reported(name):
                    self._unsure[name] = None
                    await asyncio.sleep(AGAIN_SECONDS)

    async def _is_reported(self, name: str) -> bool:
        try:
            async with self._one_at_a_time, asyncio.timeout(STORE_SECONDS), self._pool.acquire() as connection:
                stored = await _stored(connection, name)
                if stored is not None:
                    await self._tell(lambda reply: EndpointStored(stored, reply, Done(ok=True)))
        except FAILED as error:
            log.warning("cannot read what became of a command", action="unsure", name=name, error=str(error))
            return False
        return True

    async def _store(self, frame: Command) -> tuple[Plan, Ended]:
        async with asyncio.timeout(STORE_SECONDS), self._pool.acquire() as connection, connection.transaction():
            await self._leads(connection)
            stored = await _stored(connection, frame.name, past=isinstance(frame, Rollback))
            plan = self._plan(frame, stored)
            if plan.changed:
                await catalogue.put(connection, plan.endpoint, plan.new_revision)
            ended = await catalogue.end_life(connection, plan.endpoint.endpoint_id) if plan.ends else Ended()
        return plan, ended

    async def _store_settled(self, name: str, revision_id: str, failure: str) -> Plan | None:
        async with asyncio.timeout(STORE_SECONDS), self._pool.acquire() as connection, connection.transaction():
            await self._leads(connection)
            plan = plan_settled(revision_id, failure, await _stored(connection, name))
            if plan and plan.settled:
                await catalogue.put(connection, plan.endpoint, None)
                await catalogue.settle(connection, *plan.settled)
        return plan

    def _plan(self, frame: Command, stored: Endpoint | None) -> Plan:
        if isinstance(frame, Remove):
            return plan_remove(frame, stored)
        if isinstance(frame, Rollback):
            return plan_rollback(frame, stored, new_id=self._new_id)
        return plan_deploy(frame, stored, new_id=self._new_id, created=int(time.time()))

    async def _leads(self, connection: Connection) -> None:
        if await catalogue.leading_epoch(connection) != self._epoch():
            raise NotLeading("this activator does not lead any more; try again")

    async def _tell(self, event: Callable[[Reply], Event]) -> asyncio.Future[Done]:
        """Put an event into the inbox; its answer comes as the future's result."""
        answered: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        await self._inbox.put(event(lambda done: None if answered.done() else answered.set_result(done)))
        return answered


async def _stored(connection: Connection, name: str, *, past: bool = False) -> Endpoint | None:
    found = await catalogue.load(connection, name, past=past)
    return found[0] if found else None


def _as_stored(endpoint: Endpoint, reply: Reply) -> Event:
    return EndpointStored(endpoint, reply, Done(ok=True))


def _done(plan: Plan, ended: Ended, looked: Looked) -> Done:
    wanted = plan.wanted
    return Done(
        ok=True,
        result={
            "name": plan.endpoint.name,
            "endpoint_id": plan.endpoint.endpoint_id,
            "revision_id": wanted.revision_id if wanted else "",
            "number": wanted.number if wanted else 0,
            "changed": plan.changed,
            "pending": bool(wanted and plan.endpoint.next == wanted.revision_id),
            "notes": list(looked.notes),  # what of the model a replica would not serve, and how to have it
            "unchecked": looked.unchecked,  # why nobody has looked at its engine arguments; "" where somebody has
            "revoked_keys": len(ended.keys),
            "revoked_key": ended.keys[0] if ended.keys else "",  # routers that know it no more know none of them
            "prices_ended": ended.prices,
        },
    )
