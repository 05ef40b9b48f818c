"""What replicas take, looked at: those that serve, those that are parked, and what changed meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.node.memory_watch import Weighing
from runtime.node.replica_record import Running
from runtime.reap import Identity
from runtime.wire import Start


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    start = Start(epoch=1, sequence=1, replica_id="r1", revision_id="rev", endpoint="a", digest="sha256:0")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield Running(
            start,
            tmp_path,
            0.0,
            state="ready",
            identity=Identity.of(process.pid),
            kv_cache_bytes=8 << 20,
            to_pack_bytes=4 << 20,
        )
        process.kill()


async def test_one_that_serves_counts_with_its_cache_and_what_is_to_be_packed(running: Running) -> None:
    told: list[Running] = []
    running.private_bytes = 64 << 20
    await Weighing(told.append).look([running])
    assert told == [running] and 0 < running.private_bytes == running.first_bytes < 16 << 20
    assert running.memory_bytes == running.first_bytes + (12 << 20)
    await Weighing(told.append).look([running])
    assert len(told) == 1, "no news"


async def test_one_that_is_parked_counts_what_it_holds(running: Running) -> None:
    running.state, running.parked_bytes = "parked", 64 << 20
    await Weighing(lambda changed: None).look([running])
    assert 0 < running.memory_bytes == running.parked_bytes < 16 << 20 and running.private_bytes == 0


@pytest.mark.parametrize(
    ("before", "after"), [("ready", "parked"), ("parked", "starting"), ("ready", "stopped"), ("starting", "starting")]
)
async def test_what_was_seen_of_one_that_changed_meanwhile_says_nothing(
    running: Running, before: str, after: str
) -> None:
    told: list[Running] = []
    running.state, running.private_bytes, running.parked_bytes = before, 64 << 20, 64 << 20
    looking = asyncio.ensure_future(Weighing(told.append).look([running]))
    await asyncio.sleep(0)  # it is being looked at, in a thread
    running.state = after
    await looking
    assert told == []
