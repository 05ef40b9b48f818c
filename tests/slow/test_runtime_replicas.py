"""A replica's beginning and end as the agent sees them, with a standby and a snapshot that are only told of."""

from __future__ import annotations

import asyncio
import errno
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pilotlight.frames import Frame
from pilotlight.settings import load
from runtime.control import (
    Beat,
    Born,
    Control,
    Depth,
    DrainNow,
    LoadOutcome,
    Parked,
    ParkNow,
    PhaseDone,
    Serving,
    ToReplica,
)
from runtime.node.background import Background
from runtime.node.bring_up import FORK_TRIES
from runtime.node.last_counts import Counts
from runtime.node.replica_record import ReplicaRecord
from runtime.node.replicas import Replicas
from runtime.node.supervisor import ReplicaSupervisor
from runtime.node.usage_shipper import UsageShipper
from runtime.node.watermark import Watermark
from runtime.reap import Identity
from runtime.wire import Drain, EngineEnvironment, Park, Phase, ReplicaReport, Start, Stop
from tests.fakes_runtime import FakeOrders, FakeStaging, Forking

DIGEST = "sha256:" + "0" * 64


class Replica:
    """What was forked: a process that does nothing, and its end of the control socket, for which the test speaks."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "60"], start_new_session=True)
        found = Identity.of(self.process.pid)
        assert found
        self.identity = found
        self.control: Control | None = None

    async def forked(self, end: socket.socket) -> None:
        self.control = Control(end.dup(), ToReplica)
        self.say(Born(pid=self.identity.pid, start_time=self.identity.start_time))

    def say(self, frame: Frame) -> None:
        assert self.control
        self.control.send(frame)

    def die(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.control:
            self.control.close()


class Scene:
    def __init__(self, tmp_path: Path, *does: Forking) -> None:
        settings = load(state_dir=tmp_path)
        self.paths = settings.paths
        self.paths.make()
        self.told: list[ReplicaReport] = []
        staged = tmp_path / "snapshot"
        staged.mkdir()
        engine = EngineEnvironment(engine="vllm", version="0", device="cpu")
        self.staging = FakeStaging(staged)
        staging: Any = self.staging
        orders: Any = FakeOrders(*does)
        self.standbys: FakeOrders = orders
        self.counts = Counts(self.paths.journal)
        shipper = UsageShipper(self.paths.journal, lambda batch: True)
        self.replicas = Replicas(self._told)
        self.background = Background()
        self.supervisor = ReplicaSupervisor(
            self.replicas,
            orders=orders,
            staging=staging,
            shipper=shipper,
            watermark=Watermark(shipper=shipper, counts=self.counts, living=list),
            environment=engine,
            paths=self.paths,
            settings=settings.runtime,
            background=self.background,
        )

    def _told(self, frame: Frame) -> None:
        assert isinstance(frame, ReplicaReport)
        self.told.append(frame)

    def start(self) -> None:
        self.supervisor.obey(
            Start(epoch=1, sequence=1, replica_id="r1", revision_id="rev", endpoint="e", digest=DIGEST)
        )

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    async def ended(self) -> ReplicaReport:
        """Its last report; everything of it is gone by then."""
        await self.until(lambda: self.told and self.told[-1].state == "stopped")
        assert self.replicas.all() == [] and not list(self.paths.replicas.iterdir())
        return self.told[-1]


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    made = Replica()
    yield made
    made.die()


async def loses_it(end: socket.socket) -> None:
    """The standby dies with the order in hand: the agent's own copy of the end is the last."""


async def no_descriptor(end: socket.socket) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


async def test_an_order_that_cannot_be_given_ends_the_replica_with_the_reason_at_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, no_descriptor)
    scene.start()
    report = await scene.ended()
    assert report.failed and report.reason == "OSError: [Errno 24] Too many open files"
    assert len(scene.standbys.orders) == 1, "no standby has died, and no other is asked"


async def ours_to_mend(end: socket.socket) -> None:
    raise KeyError("a mistake of ours")


@pytest.mark.parametrize(("does", "crashes"), [(no_descriptor, []), (ours_to_mend, ["start_crash"])])
async def test_a_start_that_fails_by_a_mistake_of_ours_leaves_a_traceback_in_the_log(
    tmp_path: Path, does: Forking, crashes: list[str]
) -> None:
    scene = Scene(tmp_path, does)
    with capture_logs() as logs:
        scene.start()
        assert (await scene.ended()).failed
    assert [line["action"] for line in logs if "exc_info" in line] == crashes


async def test_no_pair_of_sockets_ends_the_replica_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pair() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    scene = Scene(tmp_path, loses_it)
    monkeypatch.setattr(Control, "pair", staticmethod(pair))
    scene.start()
    assert "Too many open files" in (await scene.ended()).reason


async def test_standbys_that_die_with_the_order_in_hand_are_followed_by_others_but_not_for_ever(tmp_path: Path) -> None:
    scene = Scene(tmp_path, loses_it)
    scene.start()
    report = await scene.ended()
    assert len(scene.standbys.orders) == FORK_TRIES == 3
    assert report.failed and report.reason == "3 standbys died while they forked this replica"


async def test_the_next_standby_forks_what_the_first_did_not(tmp_path: Path, replica: Replica) -> None:
    scene = Scene(tmp_path, loses_it, replica.forked)
    scene.start()
    await scene.until(lambda: scene.replicas.all() and scene.replicas.all()[0].pidfd >= 0)
    assert len(scene.standbys.orders) == 2
    replica.process.kill()
    report = await scene.ended()
    assert report.failed and "ended unexpectedly" in report.reason


async def test_one_that_is_stopped_while_its_order_is_given_is_not_forked_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path, loses_it)

    async def lose_and_stop(end: socket.socket) -> None:
        scene.supervisor.obey(Stop(epoch=1, sequence=2, replica_id="r1"))

    scene.standbys._does[:] = [lose_and_stop]
    scene.start()
    report = await scene.ended()
    await scene.until(lambda: scene.background.idle)  # nothing of it is still to be done
    assert not report.failed and len(scene.standbys.orders) == 1


async def test_its_death_is_seen_although_its_identity_could_not_be_kept(tmp_path: Path, replica: Replica) -> None:
    async def forked_on_a_full_disk(end: socket.socket) -> None:
        shutil.rmtree(scene.paths.replicas / "r1")
        await replica.forked(end)

    broken: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
    scene = Scene(tmp_path, forked_on_a_full_disk)
    scene.start()
    await scene.until(lambda: scene.replicas.all() and scene.replicas.all()[0].identity)
    replica.process.kill()
    assert (await scene.ended()).failed and broken == []


async def test_one_whose_death_could_not_be_seen_is_ended(
    tmp_path: Path, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pidfd_open(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    scene = Scene(tmp_path, replica.forked)
    monkeypatch.setattr("os.pidfd_open", pidfd_open)
    scene.start()
    report = await scene.ended()
    assert report.failed and "Too many open files" in report.reason
    assert replica.process.wait(5) == -9


@pytest.mark.parametrize("load", [*LoadOutcome, None])
async def test_mapped_weights_will_be_packed_and_count(
    tmp_path: Path, replica: Replica, load: LoadOutcome | None
) -> None:
    scene = Scene(tmp_path, replica.forked)
    scene.start()
    await scene.until(lambda: scene.replicas.all() and scene.replicas.all()[0].pidfd >= 0)
    copies = scene.paths.baked / DIGEST.replace(":", "-")
    copies.mkdir(parents=True)
    (copies / "key.safetensors").write_bytes(b"x" * 30)
    replica.say(PhaseDone(phase=Phase(name="load", at=time.monotonic(), seconds=0.1), load=load))
    (record,) = scene.replicas.all()
    await scene.until(lambda: [phase.name for phase in record.phases] == ["fetch", "load"])
    record.first_bytes = record.private_bytes = 100
    to_pack = 30 if load in (LoadOutcome.MAPPED, LoadOutcome.BAKED) else 0
    assert record.memory_bytes == 100 + record.kv_cache_bytes + to_pack
    replica.process.kill()
    await scene.ended()


async def test_how_it_was_loaded_is_known_of_the_copy_that_it_looked_for(tmp_path: Path, replica: Replica) -> None:
    scene = Scene(tmp_path, replica.forked)
    scene.start()
    await scene.until(lambda: scene.replicas.all() and scene.replicas.all()[0].pidfd >= 0)
    replica.say(PhaseDone(phase=Phase(name="load", at=time.monotonic(), seconds=0.1), load=LoadOutcome.PLAIN_SNAPSHOT))
    replica.say(PhaseDone(phase=Phase(name="init", at=time.monotonic(), seconds=0.1)))
    (record,) = scene.replicas.all()
    await scene.until(lambda: [phase.name for phase in record.phases] == ["fetch", "load", "init"])
    assert scene.staging.loads == [(record.copy_key, LoadOutcome.PLAIN_SNAPSHOT)] and "generate" in record.copy_key
    replica.process.kill()
    await scene.ended()


# Silence


async def serving(scene: Scene, replica: Replica) -> ReplicaRecord:
    scene.start()
    await scene.until(lambda: scene.replicas.all() and scene.replicas.all()[0].pidfd >= 0)
    replica.say(Beat(core_beats=1))
    replica.say(Serving(address="unix:/r1"))
    (record,) = scene.replicas.all()
    await scene.until(lambda: record.state == "ready")
    scene.supervisor.end_hung(0.0)
    return record


@pytest.mark.parametrize("signal_number", [signal.SIGSTOP, signal.SIGCONT])  # stopped; or alive, and dead-locked
async def test_a_silent_replica_is_killed_and_told_as_an_ordinary_death_with_the_reason(
    tmp_path: Path, replica: Replica, signal_number: signal.Signals
) -> None:
    scene = Scene(tmp_path, replica.forked)
    await serving(scene, replica)
    replica.process.send_signal(signal_number)
    scene.supervisor.end_hung(5.0)
    assert scene.told[-1].state == "ready"
    scene.supervisor.end_hung(5.1)
    report = await scene.ended()
    assert report.failed and report.reason == "hung: its API process has said nothing for 5 s"
    assert not replica.identity.alive()


async def test_one_that_beats_lives(tmp_path: Path, replica: Replica) -> None:
    scene = Scene(tmp_path, replica.forked)
    record = await serving(scene, replica)
    for second in range(1, 100):
        replica.say(Beat(core_beats=1 + second))
        replica.say(Depth(in_flight=second))  # heard after the beat
        await scene.until(lambda second=second: record.in_flight == second)  # type: ignore[misc]
        scene.supervisor.end_hung(float(second))
    assert record.state == "ready"
    replica.process.kill()
    await scene.ended()


async def test_one_that_not_even_sigkill_ends_is_given_up(
    tmp_path: Path, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a device, in the kernel."""
    scene = Scene(tmp_path, replica.forked)
    await serving(scene, replica)
    monkeypatch.setattr("runtime.node.replica_end.kill_session", lambda identity: None)
    monkeypatch.setattr("runtime.node.replica_end.KILL_SECONDS", 0.0)
    scene.supervisor.end_hung(6.0)
    report = await scene.ended()
    assert report.failed and report.reason.startswith("hung: ")


async def test_an_order_that_is_lost_is_given_again(tmp_path: Path, replica: Replica) -> None:
    held: list[socket.socket] = []

    async def forks_one_that_hangs(end: socket.socket) -> None:
        held.append(end.dup())

    scene = Scene(tmp_path, forks_one_that_hangs, replica.forked)
    scene.start()
    await scene.until(lambda: held)
    scene.supervisor.order_again(["r1"])
    await scene.until(lambda: scene.replicas.all()[0].pidfd >= 0)
    assert len(scene.standbys.orders) == 2
    with held[0]:
        assert not Control(held[0], ToReplica).send(Born(pid=1, start_time=1)), "what hangs ends when it goes on"
    replica.process.kill()
    await scene.ended()


async def test_one_that_is_parking_is_drained_and_not_cut(tmp_path: Path, replica: Replica) -> None:
    scene = Scene(tmp_path, replica.forked)
    record = await serving(scene, replica)
    scene.supervisor.obey(Park(epoch=1, sequence=2, replica_id="r1", seconds=30.0))
    parks = record.timer
    scene.supervisor.obey(Drain(epoch=1, sequence=3, replica_id="r1", seconds=60.0))
    assert record.state == "draining" and parks and parks.cancelled(), "what runs in it has the time of the drain"
    assert replica.control
    replica.control.sock.setblocking(False)
    assert [type(frame) for frame in replica.control.waiting()] == [ParkNow, DrainNow]
    replica.say(Parked())
    replica.say(Depth(in_flight=7))
    await scene.until(lambda: record.in_flight == 7)
    assert record.state == "draining"
    replica.process.kill()
    assert not (await scene.ended()).failed
