"""The agent's side of its standbys: start them, hand them forks, replace the dead. Step 7 to 8.

`fork` asks for the outcome: it returns when the order is in a rehearsed standby's socket, however long the rehearsal
still takes, and however full that socket is: orders are given one after the other, first come, first served. An order
that trusts nothing kept gets a standby of its own, made beside the others, and only then may that one take the place of
another: what one endpoint distrusts costs no other its wake. A standby that dies with an order in hand closes the
replica's control socket with it; the caller sees that end of file before any `Born` and asks again. One that is stopped
or hung neither dies nor answers: it is asked once a second whether it is there, and killed when it has answered
nothing, and forked nothing, for `silent_seconds`. Where fewer are kept than it takes to fork, one is made for the
orders there are, and let go after them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import structlog

from pilotlight import children
from runtime.control import Ask, Beat, Check, Checked, Control, Exited, Failed, Fork, FromStandby, Rehearsed
from runtime.node.confinement import confine
from runtime.node.sizing import is_news, own_bytes
from runtime.wire import StandbyReport

log = structlog.get_logger()

REFUSED_SECONDS = 1.0  # before one is asked for again that the machine refused
LATE_ANSWERS = 5  # after an order, a second apart: by then who was forked has said so
MOST_UNANSWERED = 8  # asks on their way to a standby: more would only fill its socket
BACKOFF_SECONDS = (0.0, 1.0, 5.0, 30.0)  # before a standby's restart, by how often it died before it was ready


class Standby:
    """One standby process. `ready` once rehearsed; `beside`: made for one order, and not (yet) one of those that are
    kept.
    """

    def __init__(self, process: subprocess.Popen[bytes], control: Control, *, beside: bool = False) -> None:
        self.process, self.control, self.beside = process, control, beside
        self.decided = asyncio.Event()  # it is rehearsed, or is gone
        self.pidfd = os.pidfd_open(process.pid)
        self.rehearsed: Rehearsed | None = None
        self.private_bytes = 0  # as weighed last
        self.retired = False  # it does what it was told before, and goes
        self.killed = False  # it was hung
        self.asked = self.answered = 0
        self.signed_at = (
            0.0  # attentive seconds: begun, its last answer or birth, or when it was first asked for the next
        )
        self.orders: dict[str, int] = {}  # given and unborn: replica, and how many asks were before the order

    @property
    def owes(self) -> bool:
        """Something should come from it: its rehearsal, an answer, a birth, its end."""
        return self.asked > self.answered or bool(self.orders) or self.retired or self.rehearsed is None

    def sign(self, now: float) -> None:
        self.signed_at = now

    def lost(self) -> list[str]:
        """Replicas whose order it has read (it has answered what it was asked later), a while ago, and nobody was born.
        Told once.
        """
        found = [replica_id for replica_id, asked in self.orders.items() if self.answered > asked + LATE_ANSWERS]
        for replica_id in found:
            del self.orders[replica_id]
        return found

    @property
    def takes_orders(self) -> bool:
        return self.kept and self.rehearsed is not None

    @property
    def kept(self) -> bool:
        return not self.retired and not self.beside and not self.killed


class Standbys:
    def __init__(
        self,
        *,
        count: int,
        model: Path,
        environ: dict[str, str],
        log_file: Path,
        on_change: Callable[[StandbyReport], None],
        silent_seconds: float = 5.0,
        rehearsal_seconds: float = 300.0,
        module: str = "runtime.fork.standby",
    ) -> None:
        self._module = module
        self._silent_seconds, self._rehearsal_seconds = silent_seconds, rehearsal_seconds
        self._attentive = 0.0  # seconds, as the agent counts them
        self._configured, self._count, self._model, self._environ, self._log_file, self._on_change = (
            count,
            count,
            model,
            environ,
            log_file,
            on_change,
        )
        self._all: list[Standby] = []
        self._turn = asyncio.Lock()  # of the one order that is given next
        self._news = asyncio.Event()  # a standby is rehearsed, or has room for another order
        self._deaths = 0  # in a row, before ready
        self._reason = ""
        self._closing = False
        self._again: asyncio.TimerHandle | None = None  # after the machine refused one
        self._asking = 0  # orders that wait for a standby
        self.at_most: int | None = None  # as told last

        self.on_checked: Callable[[Checked], None] = lambda told: None

    def report(self) -> StandbyReport:
        ready = [standby.private_bytes for standby in self._all if standby.takes_orders]
        return StandbyReport(ready=len(ready), private_bytes=max(ready, default=0), reason=self._reason)

    def fill(self) -> None:
        """Start as many as are missing. What the machine refuses (a full disk, no process, no descriptor) is asked for
        again.
        """
        while sum(standby.kept for standby in self._all) < self._count and not self._closing:
            try:
                self._start()
            except (OSError, subprocess.SubprocessError) as error:
                self._reason = f"no standby can be started: {error}"
                log.error("a standby cannot be started; trying again", action="standby_refused", reason=str(error))
                self._on_change(self.report())
                self._fill_later()
                return

    def _fill_later(self) -> None:
        if self._again is None:
            self._again = asyncio.get_running_loop().call_later(REFUSED_SECONDS, self._fill_again)

    def _fill_again(self) -> None:
        self._again = None
        self.fill()

    def keep(self, at_most: int | None) -> None:
        """Keep so many from now on, never more than configured; None: as many as configured. One that is asked for
        stays.
        """
        self.at_most = at_most
        self._let_surplus_go()
        self.fill()

    def _let_surplus_go(self) -> None:
        self._count = self._configured if self.at_most is None else min(self.at_most, self._configured)
        self._count = max(self._count, 1 if self._asking else 0)
        kept = sorted((standby for standby in self._all if standby.kept), key=lambda standby: not standby.takes_orders)
        for standby in kept[self._count :]:
            self._retire(standby)
        if kept[self._count :]:
            self._on_change(self.report())

    async def fork(self, order: Fork, replica_end: socket.socket, *, fresh: bool = False) -> None:
        """Give the order, and the replica's end of its control socket, to a rehearsed standby; `fresh`: to one made for
        it.

        Raises OSError, and ChildProcessError where the one that was made did not come to be rehearsed.
        """
        if fresh:
            await self._fork_beside(order, replica_end)
            return
        self._count = max(self._count, 1)
        self.fill()
        self._asking += 1
        try:
            async with self._turn:
                while not self._give(order, replica_end):
                    self._news.clear()
                    await self._news.wait()
        finally:
            self._asking -= 1
            if not self._asking:
                self._let_surplus_go()  # one that was made for these orders goes after them

    async def _fork_beside(self, order: Fork, replica_end: socket.socket) -> None:
        standby = self._start(beside=True)
        try:
            await standby.decided.wait()
            if standby.rehearsed is None:
                raise ChildProcessError(
                    f"the standby made for this start alone ended before it was rehearsed: {self._reason or 'see its log'}"
                )
            self._order(standby, order, replica_end)
            self._join(standby)
        finally:
            if standby.beside and standby in self._all:
                self._retire(standby)

    def _join(self, standby: Standby) -> None:
        """It has done what it was made for, and takes the place of the oldest: whatever had gone wrong in that one is
        gone with it.
        """
        standby.beside = False
        kept = [other for other in self._all if other.kept]
        if len(kept) > self._count:
            self._retire(next(other for other in kept if other.takes_orders))
        self._on_change(self.report())

    def _give(self, order: Fork, replica_end: socket.socket) -> bool:
        """False where no standby can take it now; `_news` tells when to try again. Raises OSError."""
        for standby in self._all:
            try:
                if standby.takes_orders and self._order(standby, order, replica_end):
                    return True
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(standby.control.sock, self._has_room, standby)
        return False

    def _order(self, standby: Standby, order: Fork, replica_end: socket.socket) -> bool:
        """False where it is gone. Raises BlockingIOError, OSError."""
        if not standby.control.send(order, (replica_end.fileno(),)):
            return False
        if not standby.owes:
            standby.sign(self._attentive)
        standby.orders[order.replica_id] = standby.asked
        return True

    def check(self, order: Check) -> bool:
        """Have a rehearsed standby look at arguments; it tells `on_checked`. False where there is none to ask."""
        for standby in self._all:
            try:
                if standby.takes_orders and standby.control.send(order):
                    return True
            except BlockingIOError:
                continue
        return False

    def _has_room(self, standby: Standby) -> None:
        asyncio.get_running_loop().remove_writer(standby.control.sock)
        self._news.set()

    def listen(self, now: float) -> list[str]:
        """Once a second, at `now` in the agent's attentive seconds: ask who is there, kill who is silent.

        Returns the replicas of orders that a standby has read, and of which nobody was born.
        """
        self._attentive = now
        for standby in self._all:
            patience = self._silent_seconds if standby.rehearsed else self._rehearsal_seconds
            if standby.owes and now - standby.signed_at > patience and not standby.killed:
                self._hung(
                    standby,
                    f"hung: it has {'answered nothing' if standby.rehearsed else 'not been rehearsed'} for {patience:g} s",
                )
            elif standby.takes_orders:
                self._ask(standby)
        return [replica_id for standby in self._all for replica_id in standby.lost()]

    def _hung(self, standby: Standby, reason: str) -> None:
        """Its death, a moment from now, has it replaced, and its orders given again."""
        log.error("standby hung; killing it", action="standby_hung", pid=standby.process.pid, reason=reason)
        standby.killed, self._reason = True, reason
        standby.process.kill()

    def _ask(self, standby: Standby) -> None:
        if standby.asked - standby.answered < MOST_UNANSWERED:
            if not standby.owes:
                standby.sign(self._attentive)
            try:
                standby.asked += standby.control.send(Ask())
            except BlockingIOError:
                return  # full of orders: they will be its signs

    def done_with(self, replica_id: str) -> None:
        """It is born, or given up."""
        for standby in self._all:
            if standby.orders.pop(replica_id, None) is not None:
                standby.sign(self._attentive)

    async def weigh(self) -> None:
        """Look at what the ready ones hold. What they share with their forks is theirs; of the forks it is not
        counted.
        """
        ready = {standby.process.pid: standby for standby in self._all if standby.takes_orders}
        found = await asyncio.to_thread(own_bytes, ready.keys()) if ready else {}
        news = [pid for pid, now in found.items() if is_news(ready[pid].private_bytes, now)]
        for pid in news:
            ready[pid].private_bytes = found[pid]
        if news and not self._closing:
            self._on_change(self.report())

    def _retire(self, standby: Standby) -> None:
        """Let it go: one that is rehearsed after the orders in its socket, which it reads to their end; one that is
        not, at once.
        """
        standby.retired = True
        standby.sign(self._attentive)
        log.info("standby not wanted", action="standby_retire", pid=standby.process.pid)
        if standby.rehearsed:
            standby.control.sock.shutdown(socket.SHUT_WR)
        else:
            standby.process.kill()

    def close(self) -> None:
        """End every standby. Their replicas are not touched."""
        self._closing = True
        for standby in list(self._all):
            standby.process.kill()
            self._forget(standby)
            standby.process.wait()

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
        standby.sign(self._attentive)
        self._all.append(standby)
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, self._heard, standby)
        loop.add_reader(standby.pidfd, self._died, standby)
        log.info("standby starting", action="standby_start", pid=process.pid, beside=beside)
        return standby

    def _launch(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        with self._log_file.open("ab") as output:
            return subprocess.Popen(
                children.python(self._module, str(theirs.fileno()), str(self._model)),
                pass_fds=[theirs.fileno()],
                env=self._environ,
                cwd=children.FOLDER,
                preexec_fn=confine,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _heard(self, standby: Standby) -> None:
        got = standby.control.receive()
        if got is None:
            asyncio.get_running_loop().remove_reader(standby.control.sock)
            return
        frame = got[0]
        standby.sign(self._attentive)
        if isinstance(frame, Beat):
            standby.answered += 1
        elif isinstance(frame, Rehearsed):
            standby.rehearsed, standby.private_bytes = frame, frame.private_bytes
            standby.decided.set()
            self._deaths, self._reason = 0, ""
            log.info(
                "standby ready",
                action="standby_ready",
                pid=standby.process.pid,
                seconds=round(frame.seconds, 2),
                threads=frame.threads,
            )
            self._on_change(self.report())
            self._news.set()
        elif isinstance(frame, Checked):
            self.on_checked(frame)
        elif isinstance(frame, Failed):
            self._reason = frame.reason
        elif isinstance(frame, Exited):
            how = (
                signal.Signals(os.WTERMSIG(frame.status)).name
                if os.WIFSIGNALED(frame.status)
                else f"exit {os.waitstatus_to_exitcode(frame.status)}"
            )
            log.info("child of a standby gone", action="replica_exit", pid=frame.pid, how=how)

    def _died(self, standby: Standby) -> None:
        was_ready = standby.rehearsed is not None
        self._forget(standby)
        status = standby.process.wait()
        if self._closing:
            return
        if standby.retired or standby.beside:
            self.fill()
            return
        self._deaths += 0 if was_ready else 1
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
        loop = asyncio.get_running_loop()
        loop.remove_reader(standby.pidfd)
        loop.remove_reader(standby.control.sock)
        loop.remove_writer(standby.control.sock)
        os.close(standby.pidfd)
        standby.control.close()
        self._all.remove(standby)
        standby.decided.set()
