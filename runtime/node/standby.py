"""One standby as its agent sees it: a process that is started, rehearsed, given orders, and let go. Step 7.

    started ──Rehearsed──► ready ──retire──► retired: it reads its orders to their end, and exits
       │                     │                  │
       │ retire, or silent   │ silent           │ silent
       └───── killed ◄───────┴──────────────────┘        gone: its pidfd (`StandbyPool._died`)

One that is made `beside` the others, for one order, is not among those that are kept until it has been given it. The
failure to survive is a standby that is stopped or hung. It neither dies nor answers, so what it owes is counted, and
since when.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pilotlight import children
from runtime.control import Ask, Control, Fork, Rehearsed
from runtime.node.confinement import confine

LATE_ANSWERS = 5  # after an order, a second apart: by then who was forked has said so
MOST_UNANSWERED = 8  # asks on their way to a standby: more would only fill its socket


@dataclass(frozen=True)
class StandbyProgram:
    """What a standby runs, and with what."""

    model: Path  # that it rehearses
    environ: dict[str, str]
    log_file: Path
    module: str = "runtime.fork.standby"

    def launch(self, control: socket.socket) -> subprocess.Popen[bytes]:
        """Start one that has this end of a control socket. Raises OSError, subprocess.SubprocessError."""
        with self.log_file.open("ab") as output:
            return subprocess.Popen(
                children.python(self.module, str(control.fileno()), str(self.model)),
                pass_fds=[control.fileno()],
                env=self.environ,
                cwd=children.FOLDER,
                preexec_fn=confine,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


class Standby:
    """One standby process. Moments are the agent's attentive seconds."""

    def __init__(self, process: subprocess.Popen[bytes], control: Control, *, beside: bool = False) -> None:
        self.process = process
        self.control = control
        self.beside = beside  # made for one order, and not (yet) one of those that are kept
        self.pidfd = os.pidfd_open(process.pid)
        self.decided = asyncio.Event()  # it is rehearsed, or is gone
        self.rehearsed: Rehearsed | None = None
        self.private_bytes = 0  # as measured last
        self.retired = False
        self.killed = False  # it was silent
        self.asked = 0
        self.answered = 0
        self.sign = True  # something came from it, or began to be owed, since the agent looked last
        self.signed_at = 0.0  # when the agent looked last before that
        self.orders: dict[str, int] = {}  # given and unborn: replica, and how many asks were before the order

    @property
    def kept(self) -> bool:
        return not self.retired and not self.beside and not self.killed

    @property
    def takes_orders(self) -> bool:
        return self.kept and self.rehearsed is not None

    @property
    def owes(self) -> bool:
        """Something should come from it: its rehearsal, an answer, a birth, its end."""
        return self.asked > self.answered or bool(self.orders) or self.retired or self.rehearsed is None

    def give(self, order: Fork, replica_end: socket.socket) -> bool:
        """False where it is gone. Raises BlockingIOError where its socket is full, OSError."""
        if not self.control.send(order, (replica_end.fileno(),)):
            return False
        if not self.owes:
            self.sign = True
        self.orders[order.replica_id] = self.asked
        return True

    def done_with(self, replica_id: str) -> None:
        """This replica is born, or given up."""
        if self.orders.pop(replica_id, None) is not None:
            self.sign = True

    def ask(self, now: float) -> None:
        """Ask whether it is there."""
        if self.asked - self.answered < MOST_UNANSWERED:
            if not self.owes:
                self.signed_at = now
            try:
                self.asked += self.control.send(Ask())
            except BlockingIOError:
                return  # full of orders: they will be its signs

    def lost(self) -> list[str]:
        """Replicas whose order it has read (it has answered what it was asked later), a while ago, and nobody was born.
        Named once.
        """
        found = [replica_id for replica_id, asked in self.orders.items() if self.answered > asked + LATE_ANSWERS]
        for replica_id in found:
            del self.orders[replica_id]
        return found

    def retire(self) -> None:
        """Let it go: one that is rehearsed after the orders in its socket, one that is not, at once."""
        self.retired = True
        self.sign = True
        if self.rehearsed:
            self.control.sock.shutdown(socket.SHUT_WR)
        else:
            self.process.kill()

    def close(self) -> None:
        """It is gone: nothing more is heard of it."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.pidfd)
        loop.remove_reader(self.control.sock)
        loop.remove_writer(self.control.sock)
        os.close(self.pidfd)
        self.control.close()
        self.decided.set()
