"""The node's agent: obeys the activator, and reports all that changes on this node. Steps 7, 8 and 10.

It never imports the engine: only a standby does. It outlives its caller; an activator that comes back reads the whole
state on connecting. Commands are fenced by (epoch, sequence), and the highest seen is kept in a file. When the agent
itself dies by -9 its replicas end with their control sockets, and the next agent removes what they left
(`take_over`). `supervisor.py` has what it does with each replica, `standby_pool.py` with its standbys.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import structlog

from pilotlight.attention import Attention
from pilotlight.frames import FrameError
from pilotlight.processes import boot_id
from pilotlight.settings import Paths
from runtime.control import Check
from runtime.node.deploy_checks import DeployChecks
from runtime.node.fence import Fence
from runtime.node.peers import Peer, Peers
from runtime.node.replicas import Replicas
from runtime.node.sizing import node_memory
from runtime.node.staging import Staging
from runtime.node.standby_orders import ForkOrders
from runtime.node.standby_pool import StandbyPool
from runtime.node.standby_watch import StandbyWatch
from runtime.node.supervisor import ReplicaSupervisor
from runtime.node.usage_reports import UsageReports
from runtime.wire import (
    Alive,
    CheckArguments,
    Drain,
    EngineEnvironment,
    KeepStandbys,
    NodeReport,
    Park,
    Refused,
    Ship,
    Start,
    Stop,
    Unpark,
    UsageStored,
)
from snapshots.manifest import folder_name, is_digest

log = structlog.get_logger()

WEIGH_TICKS = 5  # seconds between two measurements of what replicas and standbys take of memory

Command = Start | Drain | Stop | Park | Unpark | KeepStandbys


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What an agent consists of; `assembly.py` makes them."""

    peers: Peers
    replicas: Replicas
    supervisor: ReplicaSupervisor
    standbys: StandbyPool
    orders: ForkOrders
    standby_watch: StandbyWatch
    staging: Staging
    usage: UsageReports
    checks: DeployChecks


class Agent:
    """One node's side of its connections with activators, and its once-a-second work."""

    def __init__(self, *, node_id: str, environment: EngineEnvironment, paths: Paths, parts: Parts) -> None:
        self._node_id = node_id
        self._environment = environment
        self._paths = paths
        self._parts = parts
        self._fence = Fence(paths.run / "agent.fence")
        self._attention = Attention()
        self._ticks = 0

    # The activator's side

    async def attend(self, peer: Peer) -> None:
        """One connection, from the whole state to its end."""
        peer.send(self.report())
        self._parts.peers.add(peer)
        self._parts.usage.again()
        try:
            async for frame in peer:
                self._obey(frame, peer)
        except FrameError as error:
            log.error("the activator sent something that is not a frame", action="bad_frame", error=str(error))
        finally:
            self._parts.peers.remove(peer)

    def report(self) -> NodeReport:
        """The whole state of the node."""
        standbys = self._parts.standbys.report()
        return NodeReport(
            node_id=self._node_id,
            boot_id=boot_id(),
            environment=self._environment,
            memory_bytes=node_memory(),
            standbys_ready=standbys.ready,
            standby_bytes=standbys.private_bytes,
            standbys_at_most=self._parts.standbys.at_most,
            highest=self._fence.highest,
            replicas=tuple(record.describe() for record in self._parts.replicas.all()),
        )

    def _obey(self, frame: Command | CheckArguments | UsageStored | Ship | Alive, peer: Peer) -> None:
        match frame:
            case UsageStored():
                self._parts.usage.stored(frame.batch)
            case Ship():
                answer = partial(self._parts.peers.answer_shipped, peer)
                self._parts.usage.ship(frame.token, answer, now=time.monotonic())
            case CheckArguments():
                self._check(frame, peer)
            case Alive():
                pass
            case _:
                self._command(frame, peer)

    def _command(self, command: Command, peer: Peer) -> None:
        """One that is fenced: an older one than the highest seen comes from an activator that leads no more."""
        number = (command.epoch, command.sequence)
        if not self._fence.admit(number):
            reason = f"command {number} is older than {self._fence.highest}: another activator leads"
            peer.send(Refused(replica_id=command.replica_id, reason=reason))
        elif isinstance(command, KeepStandbys):
            self._parts.standbys.keep(command.at_most)
        else:
            self._parts.supervisor.obey(command)

    def _check(self, frame: CheckArguments, peer: Peer) -> None:
        """With the snapshot's own configuration, where it is on the node."""
        folder = self._paths.snapshots / folder_name(frame.digest) if is_digest(frame.digest) else None
        there = folder is not None and (folder / "config.json").is_file()
        if answer := self._parts.checks.look(frame, folder if there else None):
            peer.send(answer)
            return
        check = Check(
            check_id=frame.check_id,
            task=frame.task,
            engine_args=frame.engine_args,
            snapshot=str(folder) if there else "",
        )
        if not self._parts.orders.check(check):
            peer.send(self._parts.checks.unchecked(frame.check_id, "no standby is ready to look at them"))

    # The node's side

    def tick(self, now: float) -> None:
        """Once a second, at `now` (monotonic seconds): heartbeat, what hangs, and the fallback for lost notices. Now
        and then: what takes memory.
        """
        self._parts.peers.tell(Alive())
        attentive = self._attention.look(now)
        self._parts.supervisor.order_again(self._parts.standby_watch.look(attentive))
        self._parts.supervisor.end_hung(attentive)
        self._fence.retry()
        self._parts.usage.tick(now)
        for record in self._parts.replicas.all():
            if record.fetched is not None:
                self._parts.replicas.changed(record)
        self._ticks += 1
        if self._ticks % WEIGH_TICKS == 0:
            self._parts.supervisor.weigh()
            self._parts.standby_watch.weigh()

    async def close(self) -> None:
        """Stop every replica and standby; returns when nothing of them is left."""
        self._parts.supervisor.stop_all()
        self._parts.standbys.close()
        self._parts.staging.close()
        await self._parts.supervisor.ended()
