"""What a replica says, heard from the order to fork it until its end. Step 8 and 10.

Its control socket brings frames; its pidfd brings its death, within milliseconds. Each frame is one arrow of the states
in `replica_record.py`: `Born` gives it a process, `Serving` makes it ready, `Parked` parks it. The failures to survive:
a standby may die with the order in hand, and then the socket ends before `Born`. Nobody might see a process die. A full
disk may not keep its identity.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time

import structlog

from pilotlight.settings import Paths
from runtime.control import (
    Beat,
    Born,
    Control,
    Depth,
    Failed,
    FromReplica,
    Journaled,
    LoadOutcome,
    Parked,
    PhaseDone,
    Serving,
)
from runtime.node.fork_request import baked
from runtime.node.memory_watch import MemoryWatch
from runtime.node.parking import Parking
from runtime.node.pulse_watch import PulseWatch
from runtime.node.replica_end import ReplicaEnd
from runtime.node.replica_record import ReplicaRecord
from runtime.node.replicas import Replicas
from runtime.node.sizing import packed_bytes
from runtime.node.staging import Staging
from runtime.node.usage_shipper import UsageShipper
from runtime.reap import Identity, remember

log = structlog.get_logger()

DEPTH_SECONDS = 0.1  # between two reports of a replica's depth
FIRST_WEIGH_SECONDS = 1.0  # after ready: when the first answer is out, and little of the cache is touched


class ReplicaWatch:
    """Hears replicas, and hands on what they say to the part that it concerns."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        end: ReplicaEnd,
        parking: Parking,
        pulses: PulseWatch,
        memory: MemoryWatch,
        shipper: UsageShipper,
        staging: Staging,
        paths: Paths,
    ) -> None:
        self._replicas = replicas
        self._end = end
        self._parking = parking
        self._pulses = pulses
        self._memory = memory
        self._shipper = shipper
        self._staging = staging
        self._paths = paths

    def attend(self, record: ReplicaRecord, ours: socket.socket) -> asyncio.Future[bool]:
        """Hear what is about to be forked. True once it is born; False where its standby died, or it is ended
        before.
        """
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        control = record.control = Control(ours, FromReplica)
        birth = record.birth = loop.create_future()
        loop.add_reader(ours, self._readable, record, control, birth)
        return birth

    def _readable(self, record: ReplicaRecord, control: Control, birth: asyncio.Future[bool]) -> None:
        try:
            got = control.receive()
        except BlockingIOError:
            return
        if got is not None:
            self._heard(record, got[0])
            return
        asyncio.get_running_loop().remove_reader(control.sock)
        if record.identity is None and record.state == "starting":
            control.close()
            record.control = None
            if not birth.done():
                birth.set_result(False)

    def _heard(self, record: ReplicaRecord, frame: object) -> None:
        match frame:
            case Beat():
                self._pulses.heard(record, frame)
            case Born():
                self._born(record, Identity(frame.pid, frame.start_time))
            case PhaseDone():
                if frame.load is not None:
                    self._loaded(record, frame.load)
                self._replicas.phase_done(record, frame.phase)
            case Serving():
                self._serving(record, frame.address)
            case Depth():
                record.in_flight = frame.in_flight
                self._report_depth(record)
            case Journaled():
                self._shipper.grown(record.replica_id)
            case Parked():
                self._parking.parked(record)
            case Failed():
                record.failed(frame)

    def _born(self, record: ReplicaRecord, identity: Identity) -> None:
        """From now on its death is seen: before anything that may fail."""
        record.identity = identity
        if record.birth is not None and not record.birth.done():
            record.birth.set_result(True)
        try:
            record.pidfd = os.pidfd_open(identity.pid)
        except OSError as error:
            if not isinstance(error, ProcessLookupError):  # no descriptor is left, so nobody would see it die
                record.reason = f"{type(error).__name__}: {error}"
            self._end.dead(record)
            return
        asyncio.get_running_loop().add_reader(record.pidfd, self._end.dead, record)
        try:
            remember(record.folder, identity)
        except OSError as error:  # only an agent that comes after one killed by -9 would look for it
            log.warning(
                "a replica's identity is not kept",
                action="identity_lost",
                replica_id=record.replica_id,
                reason=str(error),
            )
        if record.end_ordered:
            self._end.stop(record)

    def _loaded(self, record: ReplicaRecord, outcome: LoadOutcome) -> None:
        """It has its weights, and says how."""
        if outcome in (LoadOutcome.MAPPED, LoadOutcome.BAKED):
            record.to_pack_bytes = packed_bytes(baked(self._paths, record.start.digest))
        self._staging.loaded(record.start.digest, record.copy_key, outcome)

    def _serving(self, record: ReplicaRecord, address: str) -> None:
        """Nothing serves before every byte of its snapshot is verified."""
        staged = record.staged
        if staged is not None and not staged.verified.done():
            staged.verified.add_done_callback(lambda _: self._serving(record, address))
            return
        if record.end_ordered or record.state == "stopped" or (staged is not None and staged.verified.exception()):
            return
        record.restart_timer()
        if staged is not None:
            asyncio.get_running_loop().call_later(FIRST_WEIGH_SECONDS, staged.served.set)
        record.address = address
        record.state = "ready"
        log.info(
            "replica ready",
            action="replica_ready",
            replica_id=record.replica_id,
            rung=record.rung,
            seconds=round(time.monotonic() - record.begun, 3),
        )
        self._replicas.changed(record)
        asyncio.get_running_loop().call_later(FIRST_WEIGH_SECONDS, self._memory.weigh)

    def _report_depth(self, record: ReplicaRecord) -> None:
        """One report for all changes within DEPTH_SECONDS."""

        def report() -> None:
            record.depth_timer = None
            self._replicas.changed(record)

        if record.depth_timer is None:
            record.depth_timer = asyncio.get_running_loop().call_later(DEPTH_SECONDS, report)
