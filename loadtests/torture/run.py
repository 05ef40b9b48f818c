"""The torture of the ledger: calls of every kind, one in five left in the middle, while one process after the other is
killed.

All of Pilotlight is real, the engine apart: routers, ledger, activator, agent, Postgres. Afterwards every row is held
against the oracle (`judge.py`).
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg
import httpx

from loadtests.bench.installation import Bench, running
from loadtests.torture import calls, oracle
from loadtests.torture.chaos import Chaos, Step, schedule
from loadtests.torture.engine import STEP_SECONDS
from loadtests.torture.judge import Row, Verdict, judge
from pilotlight.database import embedded
from pilotlight.settings import Paths

MODEL = Path(__file__).parents[2] / "snapshots" / "demo" / "model"
NAME = "torture"
SETTLED_SECONDS = 120.0  # until every row is there, after the last call


class Plan(NamedTuple):
    """How much of it."""

    calls: int
    at_once: int
    steps: list[Step]
    away: dict[str, float]  # seconds Postgres and the activator are away
    seed: int = 0


FULL = Plan(
    10_000, 40, schedule(routers=20, ledgers=12, replicas=12, agents=3), {"postgres": 300.0, "activator": 120.0}
)
SHORT = Plan(1_200, 30, schedule(routers=6, ledgers=4, replicas=4, agents=1), {"postgres": 6.0, "activator": 5.0})


class OwnPostgres:
    """A Postgres beside the installation, that can be stopped and started."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._server: embedded.EmbeddedPostgres | None = None
        self.dsn = ""

    async def again(self) -> None:
        self._server = await embedded.start(self._paths)
        self.dsn = self._server.dsn

    async def stop(self) -> None:
        if self._server:
            await self._server.stop()


@asynccontextmanager
async def installation(folder: Path) -> AsyncIterator[tuple[Bench, OwnPostgres]]:
    """One with a stand-in for its engine and a Postgres of its own. The oracle writes below `folder`."""
    (folder / "oracle").mkdir()
    (folder / "pg").mkdir(mode=0o711)
    postgres = OwnPostgres(Paths(folder / "pg"))
    os.environ["PILOTLIGHT_ORACLE"] = str(folder / "oracle")
    await postgres.again()
    try:
        engine = {"standby_module": "loadtests.torture.standin", "environment": "PILOTLIGHT_ORACLE"}
        async with running(database_url=postgres.dsn, runtime=engine) as bench:  # type: ignore[arg-type]
            yield bench, postgres
    finally:
        await postgres.stop()
        del os.environ["PILOTLIGHT_ORACLE"]


async def torture(plan: Plan) -> Verdict:
    dice, heard = random.Random(plan.seed), calls.Heard()
    folder = Path(tempfile.mkdtemp(prefix="pl-torture-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        async with installation(folder) as (bench, postgres):
            key = await bench.deploy(NAME, MODEL, idle_timeout_seconds=2.0, slots=16, max_replicas=2)
            chaos = Chaos(bench, postgres, dice, away=plan.away)
            await _call(plan, bench, key, dice, heard, chaos)
            verdict = await _judged(postgres.dsn, folder / "oracle", heard, chaos)
            counted = {
                "calls": plan.calls,
                "told whole": heard.complete,
                "left": heard.left,
                "broken off": heard.broken,
            }
            counted |= {f"asked again after {why}": count for why, count in sorted(heard.refused.items())}
            kills = {f"kills: {name}": chaos.done.count(name) for name in sorted(set(chaos.done))}
            return Verdict(verdict.faults, counted | kills | verdict.figures)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _call(plan: Plan, bench: Bench, key: str, dice: random.Random, heard: calls.Heard, chaos: Chaos) -> None:
    """All calls, and all steps of the chaos."""
    wanted, done, turn = calls.plan(dice, plan.calls), 0, asyncio.Semaphore(plan.at_once)
    context, headers = ssl.create_default_context(cafile=bench.api.ca_file), {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=plan.at_once)
    async with httpx.AsyncClient(
        base_url=bench.api.url,
        verify=context,
        headers=headers,
        timeout=calls.CALL_SECONDS,
        limits=limits,
        trust_env=False,
    ) as client:

        async def one(call: calls.Call) -> None:
            nonlocal done
            async with turn:
                await calls.make(client, f"/e/{NAME}/v1/completions", call, STEP_SECONDS, heard)
            done += 1

        making = asyncio.gather(*map(one, wanted))
        await chaos.run(plan.steps, lambda: done / plan.calls)
        await making


async def _judged(dsn: str, folder: Path, heard: calls.Heard, chaos: Chaos) -> Verdict:
    """The verdict, once it is good, or nothing more is to come."""
    connection = await asyncpg.connect(dsn)
    try:
        deadline = asyncio.get_running_loop().time() + SETTLED_SECONDS
        while True:
            verdict = judge(await rows(connection), oracle.read(folder), seen=heard.ids, killed=chaos.killed)
            if not verdict.faults or asyncio.get_running_loop().time() > deadline:
                return verdict
            await asyncio.sleep(1.0)
    finally:
        await connection.close()


ROWS = """
    SELECT row.event_id, row.replica_id, row.input_tokens + coalesce(later.input_tokens, 0), row.output_tokens + coalesce(later.output_tokens, 0),
        coalesce(later.count_source, row.count_source), row.finish, row.streamed, row.cost + coalesce(later.cost, 0)
    FROM usage row
    LEFT JOIN (
        SELECT corrects, sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens, sum(cost)::bigint AS cost,
            (array_agg(count_source ORDER BY settled_at DESC))[1] AS count_source
        FROM usage WHERE corrects IS NOT NULL GROUP BY corrects
    ) later ON later.corrects = row.event_id
    WHERE row.corrects IS NULL
"""


async def rows(connection: asyncpg.Connection[asyncpg.Record]) -> list[Row]:
    """Every request's row, what was added to it later included."""
    return [Row(*record) for record in await connection.fetch(ROWS)]
