"""What is billed is what the engine made: three wakes through the real router, and every client that left is in the
sums.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Any

import asyncpg
import httpx
import pytest

from loadtests.bench import metering
from tests.integration.system import System


async def test_over_three_wakes_the_rows_sum_up_to_the_engines_own_counters(system: System) -> None:
    key = await asyncio.to_thread(system.deploy, "meter", "--idle-timeout", f"{metering.IDLE_SECONDS}", "--slots", "16")
    dice, wakes, calls = random.Random(), list[metering.Wake](), list[metering.Call]()

    async def replicas() -> list[dict[str, Any]]:
        return await asyncio.to_thread(system.replicas, "meter")

    async with system.async_client(key) as client:
        for _ in range(metering.WAKES):
            plan = metering.plan(dice)
            calls += plan
            wakes.append(await metering.wake(client, "meter", plan, replicas))
    rows = await asyncio.to_thread(system.usage, "meter", len(calls))
    assert len(rows) == len({row["event_id"] for row in rows}) == len(calls)
    assert len({life.replica_id for life in wakes}) == metering.WAKES
    for life in wakes:
        found = [row for row in rows if row["replica_id"] == life.replica_id]
        assert (life.prompt, life.generation) == (
            sum(row["input_tokens"] for row in found),
            sum(row["output_tokens"] for row in found),
        )
        assert {row["start"] for row in found} == {"cold", "warm"} and life.generation > 1000
    for row in rows:
        assert row["replica_id"] or not row["output_tokens"], "who was never dispatched got nothing"
    ends = Counter((row["streamed"], row["finish"]) for row in rows)
    meant = Counter((call.stream, "client_disconnect" if call.leaves else "complete") for call in calls)
    assert ends == meant
    billed = [row for row in rows if row["finish"] == "client_disconnect" and row["output_tokens"]]
    assert all(row["count_source"] in ("journal", "none") for row in rows if row["finish"] == "client_disconnect")
    assert len(billed) >= metering.WAKES * 5, "most of those who left had been served for a while"


async def test_an_export_through_the_router_is_whole_or_visibly_cut_off(system: System) -> None:
    connection = await asyncpg.connect(system.paths.database_dsn.read_text().strip())
    columns = (
        "event_id, org_id, endpoint_id, key_id, path, streamed, status, finish, start, admitted_at, hold_ms, total_ms"
    )
    await connection.execute(
        f"INSERT INTO usage ({columns}, input_tokens, cached_tokens, output_tokens, count_source, price_version, cost) "
        "SELECT 'many' || n, 'default', 'ep_gone', 'k', repeat('/', 500), true, 200, 'complete', 'warm', "
        "to_timestamp(n), 0, 0, n, 0, n, 'engine', 1, 0 FROM generate_series(1, 20000) AS n"
    )
    query = {"format": "jsonl", "until": "20001"}
    async with system.async_client(system.paths.admin_key.read_text().strip()) as client:
        answer = await client.get("/api/v1/usage/export", params=query)
        assert answer.status_code == 200
        assert [json.loads(line)["output_tokens"] for line in answer.text.splitlines()] == list(range(1, 20001))
        async with client.stream("GET", "/api/v1/usage/export", params=query) as cut:
            assert cut.status_code == 200
            ended = await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pilotlight admin export'"
            )
            assert ended == 1
            with pytest.raises(httpx.RemoteProtocolError):
                await cut.aread()
    await connection.close()
