"""Work of a caller's making is tried in a fork, and ended where it takes too much."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from runtime.serving.trial import FAILS, TAKES_LONG, TAKES_MEMORY, Limits, Trials, tried

QUICK = Limits(cpu_seconds=1, wall_seconds=20.0, memory_bytes=64 << 20)


def forever() -> None:
    while True:
        pass


def takes_all() -> None:
    kept = [bytearray(1 << 20) for _ in range(4096)]
    forever() if kept else None


def cannot() -> None:
    raise ValueError("no such thing " + "x" * 10_000)


def nothing() -> None:
    pass


async def test_what_can_be_done_has_no_reason_against_it() -> None:
    assert await tried(nothing, QUICK) == ""


async def test_what_never_ends_is_ended() -> None:
    assert await tried(forever, QUICK) == TAKES_LONG


async def test_what_waits_for_nothing_is_ended_by_the_clock() -> None:
    assert await tried(lambda: time.sleep(3600), Limits(cpu_seconds=5, wall_seconds=0.05)) == TAKES_LONG


async def test_what_takes_all_memory_is_ended() -> None:
    assert await tried(takes_all, QUICK) == TAKES_MEMORY


async def test_what_crashes_is_no_crash_of_ours() -> None:
    assert await tried(os.abort, QUICK) == TAKES_MEMORY


async def test_what_is_wrong_says_so_in_short() -> None:
    reason = await tried(cannot, QUICK)
    assert reason.startswith(f"{FAILS}: no such thing")
    assert len(reason) <= 300


async def test_an_outcome_is_remembered() -> None:
    trials = Trials(QUICK)
    assert await trials.outcome(b"k", "a", cannot) == await trials.outcome(b"k", "b", nothing)
    assert await trials.outcome(b"l", "b", nothing) == await trials.outcome(b"l", "a", cannot) == ""


async def test_one_caller_holds_up_nobody_else() -> None:
    trials = Trials(Limits(cpu_seconds=60, wall_seconds=60.0))
    slow = [asyncio.ensure_future(trials.outcome(b"%d" % n, "a", lambda: time.sleep(3600))) for n in range(5)]
    try:
        async with asyncio.timeout(10):
            assert await trials.outcome(b"other", "b", nothing) == ""
        assert not any(each.done() for each in slow)
    finally:
        for each in slow:
            each.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_nothing_is_left_of_one_whose_caller_leaves() -> None:
    before = children()
    leaving = asyncio.ensure_future(tried(lambda: time.sleep(3600), Limits()))
    while children() == before:
        await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert children() == before


async def test_descriptors_of_others_are_not_kept_open() -> None:
    reading, writing = os.pipe()
    trial = asyncio.ensure_future(tried(lambda: time.sleep(3600), Limits()))
    await asyncio.sleep(0)
    os.close(writing)
    loop, closed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(reading, closed.set)
    async with asyncio.timeout(10):
        await closed.wait()
    assert os.read(reading, 1) == b"" and not trial.done()
    loop.remove_reader(reading)
    os.close(reading)
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)


def children() -> set[str]:
    return set(Path("/proc/self/task", str(os.getpid()), "children").read_text().split())
