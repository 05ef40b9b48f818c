"""Words about parking cross, come late, or never: what the agent makes of them. And memory that goes back to the
kernel.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pilotlight.frames import Frame
from runtime.control import Control, FromReplica, ParkNow, ToReplica, UnparkNow
from runtime.engine.pages import Pages
from runtime.node.parking import Parking
from runtime.node.replica_record import ReplicaRecord
from runtime.node.replicas import Replicas
from runtime.wire import Park, Phase, ReplicaReport, Start, Unpark
from tests.router_world import until


class Scene:
    """One replica that serves, the agent's side of it, and what was done about it."""

    def __init__(self, tmp_path: Path) -> None:
        start = Start(epoch=1, sequence=1, replica_id="r1", revision_id="rev", endpoint="a", digest="sha256:0")
        self.record = ReplicaRecord(start, tmp_path, 0.0, state="ready", private_bytes=9, kv_cache_bytes=5)
        self.record.phases = [Phase(name="load", at=1.0, seconds=1.0)]
        ours, theirs = Control.pair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.record.control, self.replica = Control(ours, FromReplica), Control(theirs, ToReplica)
        self.told: list[str] = []
        ours_too: Any = self
        self.parking = Parking(Replicas(self._tell), end=ours_too, memory=ours_too)

    def _tell(self, frame: Frame) -> None:
        assert isinstance(frame, ReplicaReport)
        self.told.append(frame.state)

    # In the place of `ReplicaEnd` and `MemoryWatch`

    def stop(self, record: ReplicaRecord) -> None:
        self.told.append("end")

    def give_up(self, record: ReplicaRecord, reason: str) -> None:
        self.told.append(reason)

    def weigh(self) -> None:
        self.told.append("weigh")

    def heard(self) -> list[type]:
        return [type(frame) for frame in self.replica.waiting()]

    def park(self, seconds: float = 30.0) -> None:
        self.parking.park(self.record, Park(epoch=1, sequence=2, replica_id="r1", seconds=seconds))

    def unpark(self, climb: int = 1, seconds: float = 30.0) -> None:
        self.parking.unpark(
            self.record, Unpark(epoch=1, sequence=3, replica_id="r1", climb=climb, deadline_seconds=seconds)
        )

    def close(self) -> None:
        if self.record.timer:
            self.record.timer.cancel()
        assert self.record.control
        self.record.control.close()
        self.replica.close()


async def test_there_and_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.park()
    scene.parking.parked(scene.record)
    scene.record.parked_bytes = 3
    report = scene.record.describe()
    assert (report.state, report.private_bytes, report.kv_cache_bytes, report.memory_bytes) == ("parked", 3, 0, 3)
    scene.unpark()
    assert scene.told == ["parking", "parked", "weigh", "starting"] and scene.heard() == [ParkNow, UnparkNow]
    report = scene.record.describe()
    assert (report.climb, report.rung, report.phases, report.private_bytes) == (1, "parked", (), 9)
    scene.close()


async def test_its_last_word_comes_after_it_was_told_to_serve_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.park()
    scene.unpark()
    scene.parking.parked(scene.record)
    assert scene.record.state == "starting" and scene.told == ["parking", "starting"]
    scene.close()


async def test_only_what_serves_is_parked_and_only_what_rests_comes_up(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.unpark()
    scene.record.state = "draining"
    scene.park()
    assert scene.told == [] and scene.heard() == []
    scene.close()


async def test_what_never_ends_is_ended(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.park(seconds=0.0)
    await until(lambda: len(scene.told) == 2)
    assert scene.told == ["parking", "end"]
    scene.unpark(seconds=0.0)
    await until(lambda: len(scene.told) == 4)
    assert scene.told[2:] == ["starting", "not ready 0 s after it was un-parked"]
    scene.close()


def test_a_replica_that_is_gone_is_not_parked(tmp_path: Path) -> None:
    async def scene() -> None:
        made = Scene(tmp_path)
        made.replica.close()
        made.park()
        assert made.told == [], "its death will be noticed"
        made.close()

    asyncio.run(scene())


def test_pages_given_back_are_zero_again_and_take_no_memory() -> None:
    pages = Pages()
    taken = pages.allocate(1 << 20)
    taken[:] = b"x" * (1 << 20)
    assert pages.give_back() == 1 << 20
    assert taken[:] == bytes(1 << 20)
