"""A background task that crashes ends its owner, with a line in the log; one that ends or is left behind does not."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from pilotlight.tasks import Tasks


async def crash() -> None:
    raise ValueError("broken")


async def test_a_crash_ends_the_owner_and_is_logged() -> None:
    reached = False
    with capture_logs() as logs, pytest.raises(ExceptionGroup) as caught:
        async with Tasks() as tasks:
            tasks.spawn(crash(), name="worker")
            await asyncio.Event().wait()
            reached = True
    assert not reached
    assert [str(error) for error in caught.value.exceptions] == ["broken"]
    assert [(entry["action"], entry["task"], entry["log_level"]) for entry in logs] == [
        ("task_crash", "worker", "error")
    ]


async def test_what_still_runs_at_the_end_is_cancelled_and_waited_for() -> None:
    steps: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    async with Tasks() as tasks:
        running = tasks.spawn(forever(), name="forever")
        await asyncio.sleep(0)
    assert steps == ["cleaned up"]
    assert running.cancelled()


async def test_a_task_that_returns_changes_nothing() -> None:
    async def short() -> int:
        return 1

    async with Tasks() as tasks:
        stays = tasks.spawn(asyncio.Event().wait(), name="stays")
        assert await tasks.spawn(short(), name="short") == 1
        await asyncio.sleep(0)
        assert not stays.done()


async def test_a_crash_on_the_way_out_is_not_swallowed() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("broken while stopping")

    with capture_logs(), pytest.raises(ExceptionGroup):
        async with Tasks() as tasks:
            tasks.spawn(stubborn(), name="stubborn")
            await asyncio.sleep(0)


async def test_the_owners_own_error_comes_first() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with Tasks() as tasks:
            tasks.spawn(asyncio.Event().wait(), name="forever")
            raise KeyError("mine")
    assert caught.group_contains(KeyError)
