"""The line at the gate over a minute of simulated time: routers that lag are served, and cost the others little."""

from __future__ import annotations

import asyncio

import pytest

from runtime.serving.line import Line
from runtime.wire import TURN_HEADER
from tests.fakes_gate import named
from tests.simulated_loop import Simulated

SERVICE_SECONDS = 0.02


async def served(lags: list[float], seconds: float) -> list[int]:
    """How many requests each router gets served by one slot, where each always has one that waits and acts on a turn
    after its lag.
    """
    running = 0
    line = Line(lambda: 1 - running)
    done = [0] * len(lags)
    loop = asyncio.get_running_loop()

    async def router(index: int) -> None:
        nonlocal running
        since = loop.time()
        while True:
            place = line.join(loop.time() - since, f"r{index}")
            assert place is not None
            turn = await place
            await asyncio.sleep(lags[index])
            if line.redeem(named(turn), TURN_HEADER.encode()) or running + line.promised < 1:  # as the gate does
                running += 1
                await asyncio.sleep(SERVICE_SECONDS)
                running -= 1
                done[index] += 1
                since = loop.time()
                line.give()

    routers = [asyncio.create_task(router(index)) for index in range(len(lags))]
    await asyncio.sleep(seconds)
    for task in routers:
        task.cancel()
    return done


@pytest.mark.parametrize(
    ("lags", "all_served"),
    [
        ([0.09, 0.001], True),
        ([0.001, 0.3], True),
        ([0.9, 0.001], True),
        ([0.09, 0.3, 0.001], True),
        ([5.0, 0.001], False),
    ],
)
def test_a_router_that_lags_is_served_and_costs_the_others_little(lags: list[float], all_served: bool) -> None:
    with asyncio.Runner(loop_factory=Simulated) as runner:
        prompt = runner.run(served([0.001] * len(lags), 60.0))
        late = runner.run(served(lags, 60.0))
    assert min(prompt) > 100
    assert not all_served or min(late) >= 5, late
    assert sum(late) > sum(prompt) * 0.6, (late, prompt)


def test_a_router_that_lags_no_more_has_its_turn_again_like_any() -> None:
    lags = [0.09, 0.001]

    async def recovers() -> list[int]:
        asyncio.get_running_loop().call_later(10.0, lags.__setitem__, 0, 0.001)
        return await served(lags, 60.0)

    with asyncio.Runner(loop_factory=Simulated) as runner:
        late, prompt = runner.run(recovers())
    assert late > prompt * 0.6
