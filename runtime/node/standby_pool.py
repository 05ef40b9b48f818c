"""The standby pool: how many standbys are kept, which start, and which go. Step 7.

As many as configured are kept, fewer where the activator says so. While an order waits it is at least one, which is
made for the orders there are and goes after them. One that dies is replaced, after a pause where it died before it was
ready. The failures to survive: a machine that refuses to start one, which is asked again, and standbys that die one
after the other. The death of one that was made for a single order concerns that order alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from runtime.control import Beat, Checked, Control, Exited, Failed, FromStandby, Rehearsed
from runtime.node.standby import Standby
from runtime.wire import StandbyReport

log = structlog.get_logger()

REFUSED_SECONDS = 1.0  # before one is asked for again that the machine refused
BACKOFF_SECONDS = (0.0, 1.0, 5.0, 30.0)  # before a standby's restart, by how often it died before it was ready

Launch = Callable[[socket.socket], "subprocess.Popen[bytes]"]


class StandbyPool:
    """The standbys of one node. `on_checked` hears what a standby says of arguments it was asked about."""

    def __init__(
        self,
        *,
        count: int,
        launch: Launch,
        on_change: Callable[[StandbyReport], None],
        on_checked: Callable[[Checked], None],
    ) -> None:
        self._configured = count
        self._launch = launch
        self._on_change = on_change
        self._on_checked = on_checked
        self._standbys: list[Standby] = []
        self._orders = 0  # that wait for a standby
        self._deaths = 0  # in a row, before ready
        self._reason = ""
        self._closing = False
        self._refused: asyncio.TimerHandle | None = None  # until one is asked for again
        self.at_most: int | None = None  # as the activator said last
        self.news = asyncio.Event()  # a standby is rehearsed, or has room for another order

    def all(self) -> list[Standby]:
        return list(self._standbys)

    def ready(self) -> list[Standby]:
        return [standby for standby in self._standbys if standby.takes_orders]

    @property
    def reason(self) -> str:
        """Why there is none, or was none last; "": nothing failed."""
        return self._reason

    def report(self) -> StandbyReport:
        ready = self.ready()
        private_bytes = max((standby.private_bytes for standby in ready), default=0)
        return StandbyReport(ready=len(ready), private_bytes=private_bytes, reason=self._reason)

    def changed(self) -> None:
        """Report the pool as it is now."""
        if not self._closing:
            self._on_change(self.report())

    def fill(self) -> None:
        """Start as many as are missing. What the machine refuses (a full disk, no process, no descriptor) is asked for
        again.
        """
        while sum(standby.kept for standby in self._standbys) < self._wanted and not self._closing:
            try:
                self._start()
            except (OSError, subprocess.SubprocessError) as error:
                self._reason = f"no standby can be started: {error}"
                log.error("a standby cannot be started; trying again", action="standby_refused", reason=str(error))
                self._on_change(self.report())
                self._fill_later()
                return

    def keep(self, at_most: int | None) -> None:
        """Keep so many from now on, never more than configured; None: as many as configured."""
        self.at_most = at_most
        self._retire_surplus()
        self.fill()

    @contextmanager
    def needed(self) -> Iterator[None]:
        """At least one is kept meanwhile; one that is surplus afterwards goes."""
        self._orders += 1
        self.fill()
        try:
            yield
        finally:
            self._orders -= 1
            if not self._orders:
                self._retire_surplus()

    def start_beside(self) -> Standby:
        """One more, for one order. Raises OSError, subprocess.SubprocessError."""
        return self._start(beside=True)

    def keep_beside(self, standby: Standby) -> None:
        """It has done what it was made for, and takes the place of the oldest: whatever had gone wrong in that one is
        gone with it.
        """
        standby.beside = False
        kept = [other for other in self._standbys if other.kept]
        if len(kept) > self._wanted:
            self.retire(next(other for other in kept if other.takes_orders))
        self._on_change(self.report())

    def retire(self, standby: Standby) -> None:
        """Let it go, after the orders it has."""
        log.info("standby not wanted", action="standby_retire", pid=standby.process.pid)
        standby.retire()

    def kill(self, standby: Standby, reason: str) -> None:
        """It is silent. Its death, a moment from now, has it replaced, and its orders given again."""
        log.error("standby hung; killing it", action="standby_hung", pid=standby.process.pid, reason=reason)
        standby.killed = True
        self._reason = reason
        standby.process.kill()

    def close(self) -> None:
        """End every standby. Their replicas are not touched."""
        self._closing = True
        for standby in self.all():
            standby.process.kill()
            self._forget(standby)
            standby.process.wait()

    @property
    def _wanted(self) -> int:
        count = self._configured if self.at_most is None else min(self.at_most, self._configured)
        return max(count, 1 if self._orders else 0)

    def _retire_surplus(self) -> None:
        kept = [standby for standby in self._standbys if standby.kept]
        surplus = sorted(kept, key=lambda standby: not standby.takes_orders)[self._wanted :]
        for standby in surplus:
            self.retire(standby)
        if surplus:
            self._on_change(self.report())

    def _fill_later(self) -> None:
        def fill() -> None:
            self._refused = None
            self.fill()

        if self._refused is None:
            self._refused = asyncio.get_running_loop().call_later(REFUSED_SECONDS, fill)

    def _start(self, *, beside: bool = False) -> Standby:
        ours, theirs = Control.pair()
        try:
            with theirs:
                process = self._launch(theirs)
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        standby = Standby(process, Control(ours, FromStandby), beside=beside)
        self._standbys.append(standby)
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, self._readable, standby)
        loop.add_reader(standby.pidfd, self._died, standby)
        log.info("standby starting", action="standby_start", pid=process.pid, beside=beside)
        return standby

    def _readable(self, standby: Standby) -> None:
        got = standby.control.receive()
        if got is None:
            asyncio.get_running_loop().remove_reader(standby.control.sock)
            return
        standby.sign = True
        match got[0]:
            case Beat():
                standby.answered += 1
            case Rehearsed() as rehearsed:
                self._rehearsed(standby, rehearsed)
            case Checked() as checked:
                self._on_checked(checked)
            case Failed() as failed:
                self._reason = failed.reason
            case Exited() as exited:
                how = _how(exited.status)
                log.info("child of a standby gone", action="replica_exit", pid=exited.pid, how=how)

    def _rehearsed(self, standby: Standby, rehearsed: Rehearsed) -> None:
        standby.rehearsed = rehearsed
        standby.private_bytes = rehearsed.private_bytes
        standby.decided.set()
        self._deaths = 0
        self._reason = ""
        log.info(
            "standby ready",
            action="standby_ready",
            pid=standby.process.pid,
            seconds=round(rehearsed.seconds, 2),
            threads=rehearsed.threads,
        )
        self._on_change(self.report())
        self.news.set()

    def _died(self, standby: Standby) -> None:
        """Replace it: at once where it was let go or was ready, else after a pause."""
        self._forget(standby)
        status = standby.process.wait()
        if self._closing:
            return
        if standby.retired or standby.beside:
            self.fill()
            return
        self._deaths += 0 if standby.rehearsed else 1
        pause = BACKOFF_SECONDS[min(self._deaths, len(BACKOFF_SECONDS) - 1)]
        log.warning(
            "standby died",
            action="standby_died",
            pid=standby.process.pid,
            status=status,
            reason=self._reason,
            restart_in=pause,
        )
        self._on_change(self.report())
        asyncio.get_running_loop().call_later(pause, self.fill)

    def _forget(self, standby: Standby) -> None:
        standby.close()
        self._standbys.remove(standby)


def _how(status: int) -> str:
    """How a process ended, from its wait status."""
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit {os.waitstatus_to_exitcode(status)}"
