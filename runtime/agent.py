"""The node's agent: starts, watches and reaps replicas, and tells the activator. Steps 7, 8 and 10.

It never imports the engine: that is the standby's. It outlives its caller; an activator that comes back reads the whole
state on connecting. Commands are fenced by (epoch, sequence), the highest seen is kept in a file. A replica's death is
seen by its pidfd within milliseconds, its whole session is then ended and its folder and shared memory removed. When
the agent itself dies by -9 its replicas end with their control sockets, and the next agent removes what they left.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from pilotlight.frames import Frame, FrameError, FrameStream
from pilotlight.settings import Paths, RuntimeSettings
from runtime.control import (
    Born,
    Control,
    Depth,
    DrainNow,
    Failed,
    FromReplica,
    Journaled,
    Parked,
    PhaseDone,
    Serving,
)
from runtime.fence import Fence
from runtime.orders import distrust
from runtime.orders import order as order_of
from runtime.reap import Identity, clean, kill_session, reap_leftovers, remember
from runtime.resting import Resting
from runtime.running import Running
from runtime.shipping import Shipping
from runtime.sizing import Sizing, cache_bytes, node_memory, size
from runtime.staging import Staged, Staging
from runtime.standbys import Standbys
from runtime.weighing import Weighing
from runtime.wire import (
    Alive,
    Drain,
    EngineEnvironment,
    KeepStandbys,
    NodeReport,
    Park,
    Phase,
    Refused,
    Start,
    Stop,
    ToAgent,
    Unpark,
    UsageBatch,
    UsageStored,
)

log = structlog.get_logger()

PR_SET_CHILD_SUBREAPER = 36
FORK_TRIES = 3  # standbys that may die with the same order in hand
DEPTH_SECONDS = 0.1  # between two reports of a replica's depth
WEIGH_TICKS = 5  # seconds between two looks at what replicas take of memory
FIRST_WEIGH_SECONDS = 1.0  # after ready: when the first answer is out, and little of the cache is touched

Command = Start | Drain | Stop | Park | Unpark | KeepStandbys


class Agent:
    def __init__(self, *, node_id: str, environment: EngineEnvironment, paths: Paths, settings: RuntimeSettings, staging: Staging) -> None:
        self._node_id, self._environment, self._paths, self._settings, self._staging = node_id, environment, paths, settings, staging
        self._replicas: dict[str, Running] = {}
        self._peers: list[FrameStream[ToAgent]] = []
        self._fence = Fence(paths.run / "agent.fence")
        self.standbys: Standbys
        self.shipping: Shipping
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticks = 0
        self._weighing = Weighing(self._changed)
        self._resting = Resting(changed=self._changed, end=self._end, give_up=self._give_up, weigh=self._weigh)

    def begin(self, standbys: Standbys) -> None:
        """Inherit orphans, remove what a predecessor left, start the standbys. Raises BlockingIOError where an agent runs already."""
        self._lock = os.open(self._paths.run / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a second agent here would reap the first one's replicas
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        for replica_id in reap_leftovers(self._paths.replicas):
            log.warning("removed a replica left by a dead agent", action="leftover_reaped", replica_id=replica_id)
        self._staging.in_use = lambda: {running.start.digest for running in self._replicas.values()}
        self._staging.start()
        self.standbys = standbys
        self.shipping = Shipping(self._paths.journal, self._post_usage)
        standbys.fill()

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
            replicas=tuple(running.describe() for running in self._replicas.values()),
        )

    def tell(self, frame: Frame) -> None:
        for peer in self._peers:
            peer.send(frame)

    def _changed(self, running: Running) -> None:
        self.tell(running.describe())

    def tick(self) -> None:
        """Once a second: heartbeat, and the fallback for lost journal notices. Now and then: what replicas take of memory."""
        self.tell(Alive())
        self.shipping.sweep()
        for running in self._replicas.values():
            if running.fetched is not None:
                self.tell(running.describe())
        self._ticks += 1
        if self._ticks % WEIGH_TICKS == 0:
            self._weigh()

    def _post_usage(self, batch: UsageBatch) -> bool:
        if not self._peers:
            return False
        self._peers[-1].send(batch)
        return True

    def _obey(self, frame: Command | UsageStored | Alive, peer: FrameStream[ToAgent]) -> None:
        if isinstance(frame, UsageStored):
            self.shipping.stored(frame.batch)
        elif isinstance(frame, Alive):
            pass
        elif not self._fence.admit((frame.epoch, frame.sequence)):
            reason = f"command {(frame.epoch, frame.sequence)} is older than {self._fence.highest}: another activator leads"
            peer.send(Refused(replica_id=frame.replica_id, reason=reason))
        elif isinstance(frame, Start):
            self._start(frame)
        elif isinstance(frame, KeepStandbys):
            self.standbys.keep(frame.at_most)
        elif running := self._replicas.get(frame.replica_id):
            self._told(running, frame)

    def _told(self, running: Running, command: Drain | Stop | Park | Unpark) -> None:
        if isinstance(command, Drain):
            self._drain(running, command.seconds)
        elif isinstance(command, Park):
            self._resting.park(running, command)
        elif isinstance(command, Unpark):
            self._resting.unpark(running, command)
        else:
            self._end(running)

    # A replica's life

    def _start(self, start: Start) -> None:
        if start.replica_id in self._replicas:
            return
        running = Running(start, self._paths.replicas / start.replica_id, time.monotonic())
        running.rung = "standby" if self.standbys.report().ready and not start.plain else "staged"
        self._replicas[start.replica_id] = running
        loop = asyncio.get_running_loop()
        running.timer = loop.call_later(start.deadline_seconds, self._give_up, running, f"not ready after {start.deadline_seconds:g} s")
        self._spawn(self._bring_up(running))

    async def _bring_up(self, running: Running) -> None:
        start = running.start
        try:
            if start.plain:
                await asyncio.to_thread(distrust, self._paths, start.digest)
            staged = await self._staged(running)
            if running.state == "stopped":
                return  # told to, or given up, meanwhile
            sizing = size(staged.folder, slots=start.slots, settings=self._settings)
            running.kv_cache_bytes = cache_bytes(start.engine_args, sizing) if self._environment.device == "cpu" else 0
            running.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.shipping.opened(start.replica_id)
        except Exception as error:
            self._gone(running, f"{type(error).__name__}: {error}")
            return
        if staged.whole.done():
            self._fetched(running)
        else:  # it begins while the last bytes are on their way
            staged.whole.add_done_callback(lambda _: self._fetched(running))
        await self._fork(running, staged, sizing)

    async def _staged(self, running: Running) -> Staged:
        """Its snapshot, here or so far here that it can begin. Raises SnapshotError, OSError."""
        start = running.start
        staged = running.staged = await self._staging.bring(start.digest)
        if staged.fetched:
            running.rung = "stored"
        if staged.arriving is not None:
            waits = start.plain or self._environment.device != "cpu" or {"load-format", "load_format"} & start.engine_args.keys()
            if waits:  # for these vLLM's own loaders read, which know nothing of bytes on their way
                await asyncio.shield(staged.whole)
        return staged

    def _fetched(self, running: Running) -> None:
        """Every byte of its snapshot is verified, or will never be."""
        assert running.staged is not None
        if (error := running.staged.whole.exception()) is not None:
            running.reason = f"{type(error).__name__}: {error}"  # the engine only saw that its bytes did not come
            self._give_up(running, running.reason)
        elif running.state != "stopped":
            self._phase(running, Phase(name="fetch", at=running.begun, seconds=time.monotonic() - running.begun))

    async def _fork(self, running: Running, staged: Staged, sizing: Sizing) -> None:
        start = running.start
        running.tries += 1
        ours, theirs = Control.pair()
        ours.setblocking(False)
        control = Control(ours, FromReplica)
        order = order_of(
            running,
            staged=staged,
            sizing=sizing,
            journal=self.shipping.path_of(start.replica_id),
            environment=self._environment,
            paths=self._paths,
            settings=self._settings,
        )
        running.control = control

        def heard() -> None:
            self._heard(running, control, lambda: self._spawn(self._fork(running, staged, sizing)))

        asyncio.get_running_loop().add_reader(ours, heard)
        with theirs:
            await self.standbys.fork(order, theirs, fresh=start.plain and running.tries == 1)

    def _heard(self, running: Running, control: Control, again: Callable[[], None]) -> None:
        try:
            got = control.receive()
        except BlockingIOError:
            return
        if got is None:
            asyncio.get_running_loop().remove_reader(control.sock)
            if running.identity is None and running.state == "starting":
                self._unborn(running, again)
            return
        frame = got[0]
        if isinstance(frame, Born):
            self._born(running, Identity(frame.pid, frame.start_time))
        elif isinstance(frame, PhaseDone):
            self._phase(running, frame.phase)
        elif isinstance(frame, Serving):
            self._serving(running, frame.address)
        elif isinstance(frame, Depth):
            running.in_flight = frame.in_flight
            self._depth_later(running)
        elif isinstance(frame, Journaled):
            self.shipping.grown(running.start.replica_id)
        elif isinstance(frame, Parked):
            self._resting.parked(running)
        elif isinstance(frame, Failed):
            self._failed(running, frame)

    def _failed(self, running: Running, frame: Failed) -> None:
        running.reason, running.mismatch = running.reason or frame.reason, running.mismatch or frame.mismatch

    def _unborn(self, running: Running, again: Callable[[], None]) -> None:
        """The standby died with the order in hand."""
        if running.told or running.tries >= FORK_TRIES:
            self._gone(running, running.reason or f"{running.tries} standbys died while they forked this replica")
        else:
            log.warning("a standby died during a fork; asking another", action="fork_again", replica_id=running.start.replica_id)
            again()

    def _born(self, running: Running, identity: Identity) -> None:
        running.identity = identity
        try:
            running.pidfd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            self._dead(running)
            return
        remember(running.folder, identity)
        asyncio.get_running_loop().add_reader(running.pidfd, self._dead, running)
        if running.told:
            self._end(running)

    def _serving(self, running: Running, address: str) -> None:
        if running.staged is not None and not running.staged.whole.done():  # nothing serves before every byte is verified
            running.staged.whole.add_done_callback(lambda _: self._serving(running, address))
            return
        if running.told or running.state == "stopped" or (running.staged is not None and running.staged.whole.exception() is not None):
            return
        if running.timer:
            running.timer.cancel()
        if running.staged is not None:
            asyncio.get_running_loop().call_later(FIRST_WEIGH_SECONDS, running.staged.served.set)
        running.address, running.state = address, "ready"
        log.info(
            "replica ready",
            action="replica_ready",
            replica_id=running.start.replica_id,
            rung=running.rung,
            seconds=round(time.monotonic() - running.begun, 3),
        )
        self.tell(running.describe())
        asyncio.get_running_loop().call_later(FIRST_WEIGH_SECONDS, self._weigh)

    def _weigh(self) -> None:
        self._spawn(self._weighing.look(list(self._replicas.values())))

    def _drain(self, running: Running, seconds: float) -> None:
        running.told = True
        if running.state != "ready" or running.control is None:
            self._end(running)
            return
        running.state = "draining"
        running.control.send(DrainNow())
        running.timer = asyncio.get_running_loop().call_later(seconds, self._end, running)
        self.tell(running.describe())

    def _end(self, running: Running) -> None:
        """End it now. Before it is born there is nothing to signal: closing its control socket ends it."""
        running.told = True
        if running.identity is not None:
            kill_session(running.identity)
        elif running.control is not None and running.control.sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(running.control.sock)
            running.control.close()
            self._gone(running, "stopped before it was forked")
        elif running.control is None:
            self._gone(running, "stopped before its snapshot was here")

    def _give_up(self, running: Running, reason: str) -> None:
        running.reason = running.reason or reason
        if running.identity is not None:
            kill_session(running.identity)
        else:  # its control socket goes, and with it whatever was about to be forked
            self._gone(running, running.reason)

    def _dead(self, running: Running) -> None:
        """Its first process is gone: end the rest of its session, remove what it leaves."""
        assert running.identity is not None
        for frame in running.control.waiting() if running.control is not None else ():  # its last words
            if isinstance(frame, Failed):
                self._failed(running, frame)
        kill_session(running.identity)
        self._gone(running, running.reason or "its process ended unexpectedly (killed, or out of memory); see its log")

    def _gone(self, running: Running, reason: str) -> None:
        loop = asyncio.get_running_loop()
        if running.state == "stopped":
            return
        for timer in (running.timer, running.depth_timer):
            if timer:
                timer.cancel()
        if running.pidfd >= 0:
            loop.remove_reader(running.pidfd)
            os.close(running.pidfd)
            with contextlib.suppress(ChildProcessError):  # ours only where its standby died before it
                assert running.identity is not None
                os.waitpid(running.identity.pid, os.WNOHANG)
        if running.control is not None and running.control.sock.fileno() >= 0:
            loop.remove_reader(running.control.sock)
            running.control.close()
        clean(running.folder, running.start.replica_id)
        running.state, running.address, running.in_flight = "stopped", "", 0
        if running.staged is not None:
            running.staged.served.set()
        running.reason = "" if running.told else reason
        self.shipping.finished(running.start.replica_id)
        del self._replicas[running.start.replica_id]
        log.info("replica gone", action="replica_gone", replica_id=running.start.replica_id, told=running.told, reason=running.reason)
        self.tell(running.describe())

    async def close(self) -> None:
        """Stop every replica and standby; returns when nothing of them is left."""
        for running in list(self._replicas.values()):
            self._end(running)
        self.standbys.close()
        self._staging.close()
        while any(running.identity and running.identity.alive() for running in self._replicas.values()):
            await asyncio.sleep(0.01)
        for running in list(self._replicas.values()):
            self._gone(running, "stopped")

    def _phase(self, running: Running, phase: Phase) -> None:
        if phase.note.startswith("plain: ") and not phase.note.startswith("plain: no "):
            self._staging.unmappable(running.start.digest)
        running.add(phase)
        if running.state == "starting":
            self.tell(running.describe())

    def _depth_later(self, running: Running) -> None:
        def send() -> None:
            running.depth_timer = None
            self.tell(running.describe())

        if running.depth_timer is None:
            running.depth_timer = asyncio.get_running_loop().call_later(DEPTH_SECONDS, send)

    def _spawn(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
