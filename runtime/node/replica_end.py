"""The end of a replica: drained, stopped, given up or found dead, and everything it leaves removed. Step 8.

    drain      ──► it finishes what runs, within a time; then killed
    stop       ──► it has LAST_WORDS_SECONDS to write down what runs; then killed
    give_up    ──► killed at once: it has failed
    hung       ──► given up; and gone even where not even SIGKILL ends it
    dead       ◄── its pidfd says that its process is gone
        all of them ──► gone: session killed, folder and shared memory removed, its journal ended, its last report sent

Before it is born there is nothing to signal: closing its control socket ends whatever was about to be forked. The
failures to survive: a replica that ends by itself at any moment, and one that hangs. One that waits for a device in the
kernel is ended by nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import structlog

from runtime.control import DrainNow, Failed
from runtime.node.replica_record import ReplicaRecord
from runtime.node.replicas import Replicas
from runtime.node.standby_orders import ForkOrders
from runtime.node.watermark import Watermark
from runtime.reap import clean, kill_session

log = structlog.get_logger()

LAST_WORDS_SECONDS = 1.0  # for a replica that is ended to write down what runs
KILL_SECONDS = 5.0  # for a killed replica to be gone
AT_WORK = ("ready", "draining", "parking")  # states in which answers may be under way


class ReplicaEnd:
    """Ends replicas, and removes what they leave."""

    def __init__(self, replicas: Replicas, *, orders: ForkOrders, watermark: Watermark) -> None:
        self._replicas = replicas
        self._orders = orders
        self._watermark = watermark

    def drain(self, record: ReplicaRecord, seconds: float) -> None:
        """Admit nothing more, finish what runs, end; at the latest after `seconds`."""
        record.end_ordered = True
        if record.state not in ("ready", "parking") or record.control is None:  # nothing runs in the others
            self.stop(record)
            return
        record.state = "draining"
        record.control.send(DrainNow(seconds=seconds))
        latest = asyncio.get_running_loop().call_later(seconds + LAST_WORDS_SECONDS, self._kill, record)
        record.restart_timer(latest)  # also of the park that this drain takes the place of
        self._replicas.changed(record)

    def stop(self, record: ReplicaRecord) -> None:
        """End it now. One that may have answers under way has a moment to write down what it made for them."""
        record.end_ordered = True
        if record.identity is not None and record.control is not None and record.state in AT_WORK:
            with contextlib.suppress(BlockingIOError):  # it does not read: it has nothing to write down, either
                record.control.send(DrainNow(seconds=0))
            asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._kill, record)
        elif record.identity is not None:
            kill_session(record.identity)
        elif record.control is not None and record.control.sock.fileno() >= 0:
            self.gone(record, "stopped before it was forked")
        elif record.control is None:
            self.gone(record, "stopped before its snapshot was here")

    def give_up(self, record: ReplicaRecord, reason: str) -> None:
        """It has failed: end it."""
        record.reason = record.reason or reason
        if record.identity is not None:
            kill_session(record.identity)
        else:  # its control socket goes, and with it whatever was about to be forked
            self.gone(record, record.reason)

    def hung(self, record: ReplicaRecord, reason: str) -> None:
        """To everyone else an ordinary death. One that not even SIGKILL ends is reported gone all the same."""
        if record.hung:
            return
        log.error("replica hung; killing it", action="replica_hung", replica_id=record.replica_id, reason=reason)
        self.give_up(record, reason)
        record.hung = True
        record.reason = reason
        asyncio.get_running_loop().call_later(KILL_SECONDS, self.gone, record, reason)

    def dead(self, record: ReplicaRecord) -> None:
        """Its first process is gone: end the rest of its session, remove what it leaves."""
        assert record.identity is not None
        for frame in record.control.waiting() if record.control is not None else ():  # its last words
            if isinstance(frame, Failed):
                record.failed(frame)
        kill_session(record.identity)
        self.gone(record, record.reason or "its process ended unexpectedly (killed, or out of memory); see its log")

    def gone(self, record: ReplicaRecord, reason: str) -> None:
        """Nothing of it is left. Where it was to end, no reason is reported."""
        if record.state == "stopped":
            return
        _close(record)
        clean(record.folder, record.replica_id)
        record.state = "stopped"
        record.address = ""
        record.in_flight = 0
        if record.staged is not None:
            record.staged.served.set()
        record.reason = "" if record.end_ordered else reason
        self._orders.done_with(record.replica_id)
        self._watermark.gone(record.replica_id)  # and its journal is complete
        self._replicas.remove(record)
        log.info(
            "replica gone",
            action="replica_gone",
            replica_id=record.replica_id,
            told=record.end_ordered,
            reason=record.reason,
        )
        self._replicas.changed(record)

    def _kill(self, record: ReplicaRecord) -> None:
        record.end_ordered = True
        if record.state != "stopped" and record.identity is not None:
            kill_session(record.identity)


def _close(record: ReplicaRecord) -> None:
    """Its timers, its pidfd, its control socket, and whoever waits for its birth."""
    loop = asyncio.get_running_loop()
    for timer in (record.timer, record.depth_timer):
        if timer:
            timer.cancel()
    if record.pidfd >= 0:
        loop.remove_reader(record.pidfd)
        os.close(record.pidfd)
        with contextlib.suppress(ChildProcessError):  # ours only where its standby died before it
            assert record.identity is not None
            os.waitpid(record.identity.pid, os.WNOHANG)
    if record.control is not None and record.control.sock.fileno() >= 0:
        loop.remove_reader(record.control.sock)
        record.control.close()
    if record.birth is not None and not record.birth.done():
        record.birth.set_result(False)
