"""Commands of the admin API, one at a time: plan, store, tell the reconciler, and answer once the routers know. Step 6.

What must survive is a crash or a lost connection in the middle: a command is one transaction that first makes sure, under
a lock, that this activator still leads. Whether it committed or not, the next command and the next activator begin from
what is stored, and a deploy that is repeated makes nothing twice.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

import asyncpg
import structlog

from activator.deploy import Plan, plan_deploy, plan_remove
from activator.errors import CommandRefused
from activator.events import EndpointStored, Event, Reply, StatusAsked
from activator.store import catalogue
from activator.store.catalogue import Ended
from activator.store.connection import FAILED, Connection, Pool
from activator.wire import Deploy, Done, Remove, Status

log = structlog.get_logger()

STORE_SECONDS = 10.0


class Commands:
    def __init__(self, *, pool: Pool, inbox: asyncio.Queue[Event], epoch: Callable[[], int]) -> None:
        self._pool, self._inbox, self._epoch = pool, inbox, epoch
        self._one_at_a_time = asyncio.Lock()  # so that the reconciler hears of changes in the order they were stored

    async def execute(self, frame: Deploy | Remove | Status) -> Done:
        """Carry out a command. Never raises for what the caller or Postgres did wrong: `Done` says it."""
        if isinstance(frame, Status):
            return await (await self._tell(StatusAsked))
        try:
            async with self._one_at_a_time:
                plan, ended = await self._store(frame)
                answer = await self._tell(lambda reply: EndpointStored(plan.endpoint, reply, _done(plan, ended)))
            log.info(
                f"{frame.kind} stored", action=frame.kind, endpoint_id=plan.endpoint.endpoint_id, name=frame.name, changed=plan.changed
            )
            return await answer
        except CommandRefused as refused:
            return Done(ok=False, message=str(refused))
        except asyncpg.ForeignKeyViolationError:
            return Done(ok=False, message=f"there is no organisation {frame.org_id!r}")
        except FAILED as error:
            log.error("a command could not be stored", action="command_failed", kind=frame.kind, name=frame.name, error=str(error))
            return Done(ok=False, message="Postgres does not answer, so nothing was promised; what is deployed goes on serving; try again")

    async def _store(self, frame: Deploy | Remove) -> tuple[Plan, Ended]:
        async with asyncio.timeout(STORE_SECONDS), self._pool.acquire() as connection, connection.transaction():
            if await catalogue.leading_epoch(connection) != self._epoch():
                raise CommandRefused("this activator does not lead any more; try again")
            plan = await self._plan(connection, frame)
            if plan.changed:
                await catalogue.put(connection, plan.endpoint, plan.new_revision)
            ended = await catalogue.end_life(connection, plan.endpoint.endpoint_id) if plan.ends else Ended()
        return plan, ended

    async def _plan(self, connection: Connection, frame: Deploy | Remove) -> Plan:
        found = await catalogue.load(connection, frame.name)
        stored = found[0] if found else None
        if isinstance(frame, Remove):
            return plan_remove(frame, stored)
        return plan_deploy(frame, stored, new_id=lambda prefix: prefix + secrets.token_hex(6), created=int(time.time()))

    async def _tell(self, event: Callable[[Reply], Event]) -> asyncio.Future[Done]:
        """Put an event into the inbox; its answer comes as the future's result."""
        answered: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        await self._inbox.put(event(lambda done: None if answered.done() else answered.set_result(done)))
        return answered


def _done(plan: Plan, ended: Ended) -> Done:
    newest = plan.endpoint.revision(plan.endpoint.route[0][0]) if plan.endpoint.route else None
    return Done(
        ok=True,
        result={
            "name": plan.endpoint.name,
            "endpoint_id": plan.endpoint.endpoint_id,
            "revision_id": newest.revision_id if newest else "",
            "number": newest.number if newest else 0,
            "changed": plan.changed,
            "revoked_keys": len(ended.keys),
            "revoked_key": ended.keys[0] if ended.keys else "",  # routers that know it no more know none of them
            "prices_ended": ended.prices,
        },
    )
