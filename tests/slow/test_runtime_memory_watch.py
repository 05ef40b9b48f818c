"""What replicas take, looked at: those that serve, those that are parked, and what changed meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.node.background import Background
from runtime.node.memory_watch import MemoryWatch
from runtime.node.replica_record import ReplicaRecord
from runtime.node.replicas import Replicas
from runtime.reap import Identity
from runtime.wire import ReplicaState, Start


@pytest.fixture
def record(tmp_path: Path) -> Iterator[ReplicaRecord]:
    start = Start(epoch=1, sequence=1, replica_id="r1", revision_id="rev", endpoint="a", digest="sha256:0")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield ReplicaRecord(
            start,
            tmp_path,
            0.0,
            state="ready",
            identity=Identity.of(process.pid),
            kv_cache_bytes=8 << 20,
            to_pack_bytes=4 << 20,
        )
        process.kill()


def watch(record: ReplicaRecord, tell: Callable[[Any], None] = lambda report: None) -> MemoryWatch:
    replicas = Replicas(tell)
    replicas.add(record)
    return MemoryWatch(replicas, Background())


async def test_one_that_serves_counts_with_its_cache_and_what_is_to_be_packed(record: ReplicaRecord) -> None:
    told: list[Any] = []
    record.private_bytes = 64 << 20
    await watch(record, told.append).measure()
    assert len(told) == 1 and 0 < record.private_bytes == record.first_bytes < 16 << 20
    assert record.memory_bytes == record.first_bytes + (12 << 20)
    await watch(record, told.append).measure()
    assert len(told) == 1, "no news"


async def test_one_that_is_parked_counts_what_it_holds(record: ReplicaRecord) -> None:
    record.state, record.parked_bytes = "parked", 64 << 20
    await watch(record).measure()
    assert 0 < record.memory_bytes == record.parked_bytes < 16 << 20 and record.private_bytes == 0


@pytest.mark.parametrize(
    ("before", "after"), [("ready", "parked"), ("parked", "starting"), ("ready", "stopped"), ("starting", "starting")]
)
async def test_what_was_seen_of_one_that_changed_meanwhile_says_nothing(
    record: ReplicaRecord, before: ReplicaState, after: ReplicaState
) -> None:
    told: list[Any] = []
    record.state, record.private_bytes, record.parked_bytes = before, 64 << 20, 64 << 20
    looking = asyncio.ensure_future(watch(record, told.append).measure())
    await asyncio.sleep(0)  # it is being looked at, in a thread
    record.state = after
    await looking
    assert told == []
