"""The node's agent: starts, watches and reaps replicas, and tells the activator. Steps 7, 8 and 10.

It never imports the engine: that is the standby's. It outlives its caller; an activator that comes back reads the whole
state on connecting. Commands are fenced by (epoch, sequence), the highest seen is kept in a file. When the agent itself
dies by -9 its replicas end with their control sockets, and the next agent removes what they left. `replicas.py` has
what it does with each replica.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import time
from pathlib import Path

import structlog

from pilotlight.attention import Attention
from pilotlight.frames import Frame, FrameError, FrameStream
from pilotlight.settings import Paths, RuntimeSettings
from runtime.control import Check
from runtime.node.deploy_checks import Looked
from runtime.node.fence import Fence
from runtime.node.last_counts import Counts
from runtime.node.replicas import Lives
from runtime.node.sizing import node_memory
from runtime.node.staging import Staging
from runtime.node.standby_pool import Standbys
from runtime.node.usage_shipper import Shipping
from runtime.node.watermark import Word
from runtime.reap import reap_leftovers
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
    Shipped,
    Start,
    Stop,
    ToAgent,
    Unpark,
    UsageBatch,
    UsageStored,
)
from snapshots.manifest import folder_name, is_digest

log = structlog.get_logger()

PR_SET_CHILD_SUBREAPER = 36
WEIGH_TICKS = 5  # seconds between two looks at what replicas and standbys take of memory

Command = Start | Drain | Stop | Park | Unpark | KeepStandbys


class Agent:
    def __init__(
        self, *, node_id: str, environment: EngineEnvironment, paths: Paths, settings: RuntimeSettings, staging: Staging
    ) -> None:
        self._node_id, self._environment, self._paths, self._staging = node_id, environment, paths, staging
        self._peers: list[FrameStream[ToAgent]] = []
        self._fence = Fence(paths.run / "agent.fence")
        self._lives = Lives(environment=environment, paths=paths, settings=settings, staging=staging, tell=self.tell)
        self.standbys: Standbys
        self.shipping: Shipping
        self.counts: Counts
        self._ticks = 0
        self._unread = False  # the journals, by a disk in trouble
        self._attention = Attention()
        self._looked = Looked(device=environment.device, settings=settings)

    def begin(self, standbys: Standbys) -> None:
        """Inherit orphans, remove what a predecessor left, start the standbys. Raises BlockingIOError where an agent
        runs already.
        """
        self._lock = os.open(self._paths.run / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(
            self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # a second agent here would reap the first one's replicas
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        for replica_id in reap_leftovers(self._paths.replicas):
            log.warning("removed a replica left by a dead agent", action="leftover_reaped", replica_id=replica_id)
        self._staging.in_use = lambda: {running.start.digest for running in self._lives.all()}
        self._staging.start()
        self.standbys = self._lives.standbys = standbys
        self.counts = Counts(self._paths.journal)  # it ends the journals of those the dead agent left
        self.shipping = self._lives.shipping = Shipping(
            self._paths.journal, self._post_usage, unended=self.counts.unwritten
        )
        self._word = self._lives.word = Word(shipping=self.shipping, counts=self.counts, living=self._born)
        standbys.on_checked = lambda told: self.tell(self._looked.checked(told))
        standbys.fill()

    def _born(self) -> list[str]:
        """Replicas that may have a journal of their own."""
        return [running.start.replica_id for running in self._lives.all() if running.identity is not None]

    # The activator's side

    async def attend(self, peer: FrameStream[ToAgent]) -> None:
        """One connection, from the whole state to its end."""
        peer.send(self.report())
        self._peers.append(peer)
        self.shipping.again()
        try:
            async for frame in peer:
                self._obey(frame, peer)
        except FrameError as error:
            log.error("the activator sent what is no frame", action="bad_frame", error=str(error))
        finally:
            self._peers.remove(peer)

    def report(self) -> NodeReport:
        standbys = self.standbys.report()
        return NodeReport(
            node_id=self._node_id,
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            environment=self._environment,
            memory_bytes=node_memory(),
            standbys_ready=standbys.ready,
            standby_bytes=standbys.private_bytes,
            standbys_at_most=self.standbys.at_most,
            highest=self._fence.highest,
            replicas=tuple(running.describe() for running in self._lives.all()),
        )

    def tell(self, frame: Frame) -> None:
        for peer in self._peers:
            peer.send(frame)

    def tick(self) -> None:
        """Once a second: heartbeat, who of ours is hung, and the fallback for lost journal notices. Now and then: who
        takes what memory.
        """
        self.tell(Alive())
        self._lives.listen(self._attention.look(time.monotonic()))
        self._fence.retry()
        self._sweep()
        self._word.retry()
        self.counts.keep(self.shipping.journals())
        self._word.look(now=time.monotonic())
        for running in self._lives.all():
            if running.fetched is not None:
                self.tell(running.describe())
        self._ticks += 1
        if self._ticks % WEIGH_TICKS == 0:
            self._lives.weigh_with_standbys()

    def _sweep(self) -> None:
        """A disk that does not let a journal be read is asked again with the next heartbeat; replicas are led on
        meanwhile.
        """
        try:
            self.shipping.sweep()
        except OSError as error:
            if not self._unread:
                log.error("the journals cannot be read; trying on", action="journal_unread", reason=str(error))
            self._unread = True
        else:
            self._unread = False

    def _post_usage(self, batch: UsageBatch) -> bool:
        if not self._peers:
            return False
        self._peers[-1].send(batch)
        return True

    def _give_word(self, peer: FrameStream[ToAgent], word: Shipped) -> None:
        """Behind the batches it speaks of: they go to the newest peer, and word to another would be none."""
        if self._peers and peer is self._peers[-1]:
            peer.send(word)

    def _check(self, frame: CheckArguments, peer: FrameStream[ToAgent]) -> None:
        """With the snapshot's own configuration, where it is on the node."""
        folder = self._paths.snapshots / folder_name(frame.digest) if is_digest(frame.digest) else None
        there = folder is not None and (folder / "config.json").is_file()
        if answer := self._looked.at(frame, folder if there else None):
            peer.send(answer)
            return
        check = Check(
            check_id=frame.check_id,
            task=frame.task,
            engine_args=frame.engine_args,
            snapshot=str(folder) if there else "",
        )
        if not self.standbys.check(check):
            peer.send(self._looked.unchecked(frame.check_id, "no standby is ready to look at them"))

    def _obey(self, frame: Command | CheckArguments | UsageStored | Ship | Alive, peer: FrameStream[ToAgent]) -> None:
        if isinstance(frame, UsageStored):
            self.shipping.stored(frame.batch)
        elif isinstance(frame, Ship):
            self._word.ask(frame.token, lambda word: self._give_word(peer, word), now=time.monotonic())
        elif isinstance(frame, CheckArguments):
            self._check(frame, peer)
        elif isinstance(frame, Alive):
            pass
        elif not self._fence.admit((frame.epoch, frame.sequence)):
            reason = (
                f"command {(frame.epoch, frame.sequence)} is older than {self._fence.highest}: another activator leads"
            )
            peer.send(Refused(replica_id=frame.replica_id, reason=reason))
        elif isinstance(frame, KeepStandbys):
            self.standbys.keep(frame.at_most)
        else:
            self._lives.obey(frame)

    async def close(self) -> None:
        """Stop every replica and standby; returns when nothing of them is left."""
        await self._lives.close()
