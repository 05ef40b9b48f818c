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
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from pilotlight.frames import Frame, FrameError, FrameStream
from pilotlight.settings import Paths, RuntimeSettings
from runtime.control import Born, Control, Depth, DrainNow, Failed, Fork, FromReplica, Journaled, PhaseDone, Serving
from runtime.fence import Fence
from runtime.reap import Identity, clean, kill_session, reap_leftovers, remember
from runtime.running import Running
from runtime.shipping import Shipping
from runtime.sizing import Sizing, cache_bytes, node_memory, private_bytes, size
from runtime.standbys import Standbys
from runtime.wire import (
    Alive,
    Drain,
    EngineEnvironment,
    NodeReport,
    Phase,
    Refused,
    Start,
    Stop,
    ToAgent,
    UsageBatch,
    UsageStored,
)

log = structlog.get_logger()

PR_SET_CHILD_SUBREAPER = 36
FORK_TRIES = 3  # standbys that may die with the same order in hand
DEPTH_SECONDS = 0.1  # between two reports of a replica's depth
WEIGH_TICKS = 5  # seconds between two looks at what replicas take of memory
FIRST_WEIGH_SECONDS = 1.0  # after ready: when the first answer is out, and little of the cache is touched
NEWS_BYTES = 1 << 20  # what a replica takes is told anew when it differs by more than this, and by a hundredth

Stage = Callable[[str], Awaitable[Path]]  # digest → verified folder; raises OSError or snapshots.SnapshotError


class Agent:
    def __init__(self, *, node_id: str, environment: EngineEnvironment, paths: Paths, settings: RuntimeSettings, stage: Stage) -> None:
        self._node_id, self._environment, self._paths, self._settings, self._stage = node_id, environment, paths, settings, stage
        self._replicas: dict[str, Running] = {}
        self._peers: list[FrameStream[ToAgent]] = []
        self._fence = Fence(paths.run / "agent.fence")
        self.standbys: Standbys
        self.shipping: Shipping
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticks = 0
        self._weighing = False

    def begin(self, standbys: Standbys) -> None:
        """Inherit orphans, remove what a predecessor left, start the standbys. Raises BlockingIOError where an agent runs already."""
        self._lock = os.open(self._paths.run / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a second agent here would reap the first one's replicas
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        for replica_id in reap_leftovers(self._paths.replicas):
            log.warning("removed a replica left by a dead agent", action="leftover_reaped", replica_id=replica_id)
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
            highest=self._fence.highest,
            replicas=tuple(running.describe() for running in self._replicas.values()),
        )

    def tell(self, frame: Frame) -> None:
        for peer in self._peers:
            peer.send(frame)

    def tick(self) -> None:
        """Once a second: heartbeat, and the fallback for lost journal notices. Now and then: what replicas take of memory."""
        self.tell(Alive())
        self.shipping.sweep()
        self._ticks += 1
        if self._ticks % WEIGH_TICKS == 0:
            self._weigh()

    def _post_usage(self, batch: UsageBatch) -> bool:
        if not self._peers:
            return False
        self._peers[-1].send(batch)
        return True

    def _obey(self, frame: Start | Drain | Stop | UsageStored | Alive, peer: FrameStream[ToAgent]) -> None:
        if isinstance(frame, UsageStored):
            self.shipping.stored(frame.batch)
        elif isinstance(frame, Alive):
            pass
        elif not self._fence.admit((frame.epoch, frame.sequence)):
            reason = f"command {(frame.epoch, frame.sequence)} is older than {self._fence.highest}: another activator leads"
            peer.send(Refused(replica_id=frame.replica_id, reason=reason))
        else:
            if isinstance(frame, Start):
                self._start(frame)
            elif running := self._replicas.get(frame.replica_id):
                self._drain(running, frame.seconds) if isinstance(frame, Drain) else self._end(running)

    # A replica's life

    def _start(self, start: Start) -> None:
        if start.replica_id in self._replicas:
            return
        running = Running(start, self._paths.replicas / start.replica_id, time.monotonic())
        self._replicas[start.replica_id] = running
        loop = asyncio.get_running_loop()
        running.timer = loop.call_later(start.deadline_seconds, self._give_up, running, f"not ready after {start.deadline_seconds:g} s")
        self._spawn(self._bring_up(running))

    async def _bring_up(self, running: Running) -> None:
        start = running.start
        try:
            snapshot = await self._stage(start.digest)
            sizing = size(snapshot, slots=start.slots, settings=self._settings)
            running.kv_cache_bytes = cache_bytes(start.engine_args, sizing) if self._environment.device == "cpu" else 0
            running.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.shipping.opened(start.replica_id)
        except Exception as error:
            self._gone(running, f"{type(error).__name__}: {error}")
            return
        staged = time.monotonic()
        self._phase(running, Phase(name="fetch", at=running.begun, seconds=staged - running.begun))
        await self._fork(running, snapshot, sizing)

    async def _fork(self, running: Running, snapshot: Path, sizing: Sizing) -> None:
        start = running.start
        running.tries += 1
        ours, theirs = Control.pair()
        ours.setblocking(False)
        control = Control(ours, FromReplica)
        order = Fork(
            replica_id=start.replica_id,
            endpoint=start.endpoint,
            snapshot=str(snapshot),
            task=start.task,
            engine_args=start.engine_args,
            slots=start.slots,
            folder=str(running.folder),
            baked=str(self._paths.baked / start.digest.replace(":", "-")),
            journal=str(self.shipping.path_of(start.replica_id)),
            canary=str(self._paths.canaries / f"{self._canary_key(start)}.json"),
            log=str(self._paths.logs / f"{start.endpoint}.log"),
            threads=self._settings.threads or os.cpu_count() or 1,
            kv_cache_bytes=sizing.kv_cache_bytes,
            max_model_len=sizing.max_model_len,
            asked_at=time.monotonic(),
        )
        running.control = control

        def heard() -> None:
            self._heard(running, control, lambda: self._spawn(self._fork(running, snapshot, sizing)))

        asyncio.get_running_loop().add_reader(ours, heard)
        with theirs:
            await self.standbys.fork(order, theirs)

    def _canary_key(self, start: Start) -> str:
        """Everything that may change an answer: the snapshot, the engine, its arguments, how many threads sum."""
        deciding = [start.digest, self._environment.model_dump(), start.task, start.engine_args, self._settings.threads or os.cpu_count()]
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:24]

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
        elif isinstance(frame, Failed):
            running.reason = running.reason or frame.reason

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
        if running.timer:
            running.timer.cancel()
        running.address, running.state = address, "ready"
        log.info(
            "replica ready", action="replica_ready", replica_id=running.start.replica_id, seconds=round(time.monotonic() - running.begun, 3)
        )
        self.tell(running.describe())
        asyncio.get_running_loop().call_later(FIRST_WEIGH_SECONDS, self._weigh)

    def _weigh(self) -> None:
        """Look at what those that serve take of memory, one look at a time."""
        served = {r.identity.pid: r for r in self._replicas.values() if r.identity and r.state in ("ready", "draining")}
        if served and not self._weighing:
            self._weighing = True
            self._spawn(self._weighed(served))

    async def _weighed(self, served: dict[int, Running]) -> None:
        try:
            found = await asyncio.to_thread(private_bytes, served.keys())
        finally:
            self._weighing = False
        for session, running in served.items():
            now, before = found[session], running.private_bytes
            if now and running.state != "stopped" and abs(now - before) > max(NEWS_BYTES, before // 100):
                running.private_bytes, running.first_bytes = now, running.first_bytes or now
                self.tell(running.describe())

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

    def _give_up(self, running: Running, reason: str) -> None:
        running.reason = running.reason or reason
        if running.identity is not None:
            kill_session(running.identity)
        else:
            self._end(running)

    def _dead(self, running: Running) -> None:
        """Its first process is gone: end the rest of its session, remove what it leaves."""
        assert running.identity is not None
        while running.control is not None and running.control.sock.fileno() >= 0:  # its last words
            try:
                got = running.control.receive()
            except BlockingIOError:
                break
            if got is None:
                break
            if isinstance(got[0], Failed):
                running.reason = running.reason or got[0].reason
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
        running.reason = "" if running.told else reason
        self.shipping.finished(running.start.replica_id)
        del self._replicas[running.start.replica_id]
        log.info("replica gone", action="replica_gone", replica_id=running.start.replica_id, told=running.told, reason=running.reason)
        self.tell(running.describe())

    def bury(self) -> None:
        """SIGCHLD: collect the orphans we inherited (an engine core whose API process died, a replica whose standby did)."""
        for entry in os.listdir("/proc"):
            if entry.isdigit() and _is_orphan_of_ours(int(entry)):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(entry), os.WNOHANG)

    async def close(self) -> None:
        """Stop every replica and standby; returns when nothing of them is left."""
        for running in list(self._replicas.values()):
            self._end(running)
        self.standbys.close()
        while any(running.identity and running.identity.alive() for running in self._replicas.values()):
            await asyncio.sleep(0.01)
        for running in list(self._replicas.values()):
            self._gone(running, "stopped")

    def _phase(self, running: Running, phase: Phase) -> None:
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


def _is_orphan_of_ours(pid: int) -> bool:
    """A dead child of this process. Standbys are children too, but their own watcher waits for them."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    state, parent, _group, session = stat[stat.rindex(")") + 2 :].split()[:4]
    return state == "Z" and int(parent) == os.getpid() and int(session) != pid
