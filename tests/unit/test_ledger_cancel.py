"""The ledger's loops end when they are told to, also in the very moment in which what they wait for happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from router.ledger.follow import Follower
from router.ledger.join import Join
from router.ledger.policy import LiveKeys, Policies
from router.ledger.settle import Settler
from router.ledger.shelf import Shelf
from router.ledger.tail import Tail
from router.ledger.waits import Waits, asking
from tests.fakes_ledger import FakeStore
from tests.router_world import nobody, until

Loop = tuple[Callable[[], Coroutine[Any, Any, None]], Callable[[], None]]  # and what wakes it


async def no_keys() -> LiveKeys:
    return LiveKeys(())


def follower(folder: Path) -> Loop:
    made = Follower(tail=Tail(folder), join=Join(), workers=nobody(), settle=lambda: None)
    return made.run, made.wake


def policies(folder: Path) -> Loop:
    made = Policies(file=folder / "policy.json", load=no_keys)
    return made.run, made.invalidate


def settler(folder: Path) -> Loop:
    made = Settler(join=Join(), store=FakeStore(), reject=lambda lines, source: None, shelf=Shelf(folder))
    return made.run_unpriced, made.prices_changed


def waiting(folder: Path) -> Loop:
    made = Waits(join=Join(), store=FakeStore(), ask=asking(f"unix:{folder}/none"), settle=lambda: None, longest=1.0)
    return made.run_look_up, made.journal_arrived


def waits(task: asyncio.Task[None]) -> bool:
    """Whether the innermost of what it awaits is an event."""
    inner: Any = task.get_coro()
    while inner is not None and getattr(inner, "cr_await", None) is not None:
        if inner.__qualname__ == "Event.wait":
            return True
        inner = inner.cr_await
    return False


@pytest.mark.parametrize("make", [follower, policies, settler, waiting])
@pytest.mark.parametrize("steps", range(4))
def test_a_cancellation_that_meets_the_event_is_not_lost(
    tmp_path: Path, make: Callable[[Path], Loop], steps: int
) -> None:
    async def scene() -> None:
        run, wake = make(tmp_path)
        task = asyncio.create_task(run())
        await until(lambda: waits(task))
        wake()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=0.1)
        task.cancel()
        assert done, "asyncio.wait_for of Python 3.11 loses it: use asyncio.timeout"

    asyncio.run(scene())
