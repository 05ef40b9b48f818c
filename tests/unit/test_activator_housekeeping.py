"""Housekeeping goes on after a Postgres that was away, and takes batches until one is not full."""

from __future__ import annotations

import asyncio
from typing import cast

import asyncpg
import pytest

from activator.store import housekeeping
from activator.store.connection import Pool
from tests.fakes_activator import FakePool


async def test_housekeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(housekeeping, "EVERY_SECONDS", 0.0)
    pool = FakePool(
        [ConnectionRefusedError(), asyncpg.InterfaceError("closed"), asyncpg.AdminShutdownError("bye")],
        2 * housekeeping.BATCH,
    )
    task = asyncio.create_task(
        housekeeping.keep_house(cast(Pool, pool), keep_days=30.0, audit_days=730.0, most_bytes=100)
    )
    async with asyncio.timeout(5):
        await pool.done.wait()
    task.cancel()
    assert not any(pool.left.values()) and not pool.failures


def test_a_database_too_large_keeps_less_and_less_and_later_more_again() -> None:
    days, tried = 30.0, []
    for too_large in (True,) * 7 + (False,) * 7:
        days = housekeeping.next_days(days, 30.0, too_large=too_large)
        tried.append(days)
    assert tried[:7] == [15.0, 7.5, 3.75, 1.875, 1.0, 1.0, 1.0] and tried[7:] == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert housekeeping.next_days(0.5, 0.5, too_large=True) == 0.5
