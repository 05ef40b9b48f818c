"""The lives of this node's replicas, from the order to the last trace. Step 8.

A replica's death is seen by its pidfd within milliseconds; its whole session is then ended, and its folder and shared
memory removed. How it begins is told in `births.py`, how it rests in `parking.py`. The failures to survive: a replica
that hangs, one that ends by itself at any moment, and one that not even SIGKILL ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable

import structlog

from pilotlight.frames import Frame
from pilotlight.settings import Paths, RuntimeSettings
from runtime.control import (
    Beat,
    Born,
    Control,
    Depth,
    DrainNow,
    Failed,
    FromReplica,
    Journaled,
    LoadOutcome,
    Parked,
    PhaseDone,
    Serving,
)
from runtime.node.births import Births
from runtime.node.fork_request import baked
from runtime.node.memory_watch import Weighing
from runtime.node.parking import Resting
from runtime.node.pulse_watch import Listening
from runtime.node.replica_record import Running
from runtime.node.silence import Limits
from runtime.node.sizing import packed_bytes
from runtime.node.staging import Staging
from runtime.node.standby_pool import Standbys
from runtime.node.usage_shipper import Shipping
from runtime.node.watermark import Word
from runtime.reap import Identity, clean, kill_session, remember
from runtime.wire import HUNG, Drain, EngineEnvironment, Park, Phase, Start, Stop, Unpark

log = structlog.get_logger()

LAST_WORDS_SECONDS = 1.0  # for a replica that is ended to write down what runs
DEPTH_SECONDS = 0.1  # between two reports of a replica's depth
KILL_SECONDS = 5.0  # for a killed replica to be gone
FIRST_WEIGH_SECONDS = 1.0  # after ready: when the first answer is out, and little of the cache is touched


class Lives:
    """`standbys`, `shipping` and `word` are given before the first order."""

    standbys: Standbys
    shipping: Shipping
    word: Word

    def __init__(
        self,
        *,
        environment: EngineEnvironment,
        paths: Paths,
        settings: RuntimeSettings,
        staging: Staging,
        tell: Callable[[Frame], None],
    ) -> None:
        self._paths, self._staging, self._tell = paths, staging, tell
        self._replicas: dict[str, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._births = Births(self, environment=environment, paths=paths, settings=settings, staging=staging)
        self._weighing = Weighing(self._changed)
        self._listening = Listening(Limits(silent=settings.silent_seconds, hang=settings.hang_seconds))
        self._resting = Resting(changed=self._changed, end=self._end, give_up=self.give_up, weigh=self.weigh)

    def all(self) -> list[Running]:
        return list(self._replicas.values())

    def obey(self, command: Start | Drain | Stop | Park | Unpark) -> None:
        """One that is not known is not wanted any more, or will be reported."""
        if isinstance(command, Start):
            self._start(command)
        elif running := self._replicas.get(command.replica_id):
            if isinstance(command, Drain):
                self._drain(running, command.seconds)
            elif isinstance(command, Park):
                self._resting.park(running, command)
            elif isinstance(command, Unpark):
                self._resting.unpark(running, command)
            else:
                self._end(running)

    def listen(self, now: float) -> None:
        """Once a second, at `now` in the agent's attentive seconds: end who is hung, have an order that got lost given
        again.
        """
        for replica_id in self.standbys.listen(now):
            if (running := self._replicas.get(replica_id)) and running.control is not None and running.identity is None:
                running.control.sock.shutdown(
                    socket.SHUT_RDWR
                )  # its end is heard as that of a standby that died with the order
        for running, why in list(
            self._listening.look([running for running in self.all() if running.identity is not None], now)
        ):
            self._hung(running, why)

    def _hung(self, running: Running, why: str) -> None:
        """An ordinary death to everyone else. One that not even SIGKILL ends, waiting for a device, is given up all the
        same.
        """
        if running.reason.startswith(HUNG):
            return
        log.error("replica hung; killing it", action="replica_hung", replica_id=running.start.replica_id, reason=why)
        self.give_up(running, why)
        running.reason = why
        asyncio.get_running_loop().call_later(KILL_SECONDS, self.gone, running, why)

    def weigh(self) -> None:
        """Look at what they take of the node's memory."""
        self.spawn(self._weighing.look(self.all()))

    def weigh_with_standbys(self) -> None:
        """And at what those hold that they are forked from."""
        self.weigh()
        self.spawn(self.standbys.weigh())

    def _start(self, start: Start) -> None:
        if start.replica_id in self._replicas:
            return
        running = Running(start, self._paths.replicas / start.replica_id, time.monotonic())
        running.rung = "standby" if self.standbys.report().ready and not start.plain else "staged"
        self._replicas[start.replica_id] = running
        loop = asyncio.get_running_loop()
        running.timer = loop.call_later(
            start.deadline_seconds, self.give_up, running, f"not ready after {start.deadline_seconds:g} s"
        )
        self.spawn(self._births.bring_up(running))

    def hear(self, running: Running, ours: socket.socket, again: Callable[[], None]) -> None:
        """Listen to what is forked, or about to be; `again`: have it forked once more."""
        ours.setblocking(False)
        control = running.control = Control(ours, FromReplica)
        asyncio.get_running_loop().add_reader(ours, lambda: self._heard(running, control, again))

    def _heard(self, running: Running, control: Control, again: Callable[[], None]) -> None:
        try:
            got = control.receive()
        except BlockingIOError:
            return
        if got is None:
            asyncio.get_running_loop().remove_reader(control.sock)
            if running.identity is None and running.state == "starting":
                control.close()
                running.control = None
                self._births.unborn(running, again)
            return
        frame = got[0]
        if isinstance(frame, Beat):
            self._listening.heard(running, frame)
            self.word.heard(
                running.start.replica_id,
                frame.counts,
                turned=frame.loop_seconds == 0,
                rest=frame.rest,
                now=time.monotonic(),
            )
        elif isinstance(frame, Born):
            self.standbys.done_with(running.start.replica_id)
            self._born(running, Identity(frame.pid, frame.start_time))
        elif isinstance(frame, PhaseDone):
            if frame.load is not None:
                self._loaded(running, frame.load)
            self.measured(running, frame.phase)
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

    def _born(self, running: Running, identity: Identity) -> None:
        """From now on its death is seen: before anything that may fail."""
        running.identity = identity
        try:
            running.pidfd = os.pidfd_open(identity.pid)
        except OSError as error:
            if not isinstance(error, ProcessLookupError):  # no descriptor is left, so nobody would see it die
                running.reason = f"{type(error).__name__}: {error}"
            self._dead(running)
            return
        asyncio.get_running_loop().add_reader(running.pidfd, self._dead, running)
        try:
            remember(running.folder, identity)
        except OSError as error:  # only an agent that comes after one killed by -9 would look for it
            log.warning(
                "a replica's identity is not kept",
                action="identity_lost",
                replica_id=running.start.replica_id,
                reason=str(error),
            )
        if running.told:
            self._end(running)

    def _serving(self, running: Running, address: str) -> None:
        if (
            running.staged is not None and not running.staged.whole.done()
        ):  # nothing serves before every byte is verified
            running.staged.whole.add_done_callback(lambda _: self._serving(running, address))
            return
        if (
            running.told
            or running.state == "stopped"
            or (running.staged is not None and running.staged.whole.exception() is not None)
        ):
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
        self._changed(running)
        asyncio.get_running_loop().call_later(FIRST_WEIGH_SECONDS, self.weigh)

    def _drain(self, running: Running, seconds: float) -> None:
        running.told = True
        if running.state not in ("ready", "parking") or running.control is None:  # nothing runs in the others
            self._end(running)
            return
        if running.timer:
            running.timer.cancel()  # of the park that this drain takes the place of
        running.state = "draining"
        running.control.send(DrainNow(seconds=seconds))
        running.timer = asyncio.get_running_loop().call_later(seconds + LAST_WORDS_SECONDS, self._kill, running)
        self._changed(running)

    def _end(self, running: Running) -> None:
        """End it now. Before it is born there is nothing to signal: closing its control socket ends it.

        One that may have answers under way has a moment to write down what it made for them.
        """
        running.told = True
        if (
            running.identity is not None
            and running.control is not None
            and running.state in ("ready", "draining", "parking")
        ):
            with contextlib.suppress(
                BlockingIOError
            ):  # it does not read what it is told: it has nothing to say, either
                running.control.send(DrainNow(seconds=0))
            asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._kill, running)
        elif running.identity is not None:
            kill_session(running.identity)
        elif running.control is not None and running.control.sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(running.control.sock)
            running.control.close()
            self.gone(running, "stopped before it was forked")
        elif running.control is None:
            self.gone(running, "stopped before its snapshot was here")

    def _kill(self, running: Running) -> None:
        running.told = True
        if running.state != "stopped" and running.identity is not None:
            kill_session(running.identity)

    def give_up(self, running: Running, reason: str) -> None:
        """It has failed: end it."""
        running.reason = running.reason or reason
        if running.identity is not None:
            kill_session(running.identity)
        else:  # its control socket goes, and with it whatever was about to be forked
            self.gone(running, running.reason)

    def _dead(self, running: Running) -> None:
        """Its first process is gone: end the rest of its session, remove what it leaves."""
        assert running.identity is not None
        for frame in running.control.waiting() if running.control is not None else ():  # its last words
            if isinstance(frame, Failed):
                self._failed(running, frame)
        kill_session(running.identity)
        self.gone(running, running.reason or "its process ended unexpectedly (killed, or out of memory); see its log")

    def gone(self, running: Running, reason: str) -> None:
        """Nothing of it is left."""
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
        self.standbys.done_with(running.start.replica_id)
        self.word.gone(running.start.replica_id)  # and its journal is whole
        del self._replicas[running.start.replica_id]
        log.info(
            "replica gone",
            action="replica_gone",
            replica_id=running.start.replica_id,
            told=running.told,
            reason=running.reason,
        )
        self._changed(running)

    async def close(self) -> None:
        """Stop every replica and standby; returns when nothing of them is left."""
        for running in list(self._replicas.values()):
            self._end(running)
        self.standbys.close()
        self._staging.close()
        while any(running.identity and running.identity.alive() for running in self._replicas.values()):
            await asyncio.sleep(0.01)
        for running in list(self._replicas.values()):
            self.gone(running, "stopped")

    def _changed(self, running: Running) -> None:
        self._tell(running.describe())

    def _loaded(self, running: Running, outcome: LoadOutcome) -> None:
        """A replica has its weights, and says how."""
        if outcome is LoadOutcome.PLAIN_SNAPSHOT:
            self._staging.unmappable(running.start.digest)
        if outcome in (LoadOutcome.MAPPED, LoadOutcome.BAKED):
            running.to_pack_bytes = packed_bytes(baked(self._paths, running.start.digest))
        self._staging.loaded(running.start.digest, self._births.copy(running.start), outcome)

    def measured(self, running: Running, phase: Phase) -> None:
        """A phase of its start has ended."""
        running.add(phase)
        if running.state == "starting":
            self._changed(running)

    def _depth_later(self, running: Running) -> None:
        def send() -> None:
            running.depth_timer = None
            self._changed(running)

        if running.depth_timer is None:
            running.depth_timer = asyncio.get_running_loop().call_later(DEPTH_SECONDS, send)

    def spawn(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """What a task could foresee it has ended with a reason; what it could not is a mistake of ours, and told."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("background task crashed", action="task_crash", exc_info=error)
