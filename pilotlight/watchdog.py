"""Which of our processes stand still: each says once a second that its event loop turns, by systemd's sd_notify.

A process that dies is started again at once; one that is stopped keeps its place and does nothing. So whoever starts
processes listens with a `Watchdog` at a socket of its own, which its children find in `NOTIFY_SOCKET`. It kills those
that have fallen silent, and what restarts the dead restarts them. Under systemd `up` says the same to it.

The failures to survive: silence that is the listener's own (it was stopped, or the machine slept) does not count. A
start that takes long has more patience before the first word. Where the listener is gone, nobody is told and nothing
breaks. A process that died meanwhile may have left its number to another, so each is held by a descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pilotlight.attention import Attention

BEAT_SECONDS = 1.0
START_SECONDS = 120.0  # before a process's first word
VARIABLE = "NOTIFY_SOCKET"
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Notifier:
    """The side that speaks. Without a listener it says nothing."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if address else None

    @staticmethod
    def of_starter() -> Notifier:
        """Whom our starter has told us of. What we start ourselves is not told of it."""
        return Notifier(os.environ.pop(VARIABLE, ""))

    def say(self, words: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the listener is gone, or does not read: that is not a reason to end
                self._socket.sendto(words.encode(), self._address)

    def keep(self) -> None:
        """From now on, once a second, for as long as the running loop turns."""
        self.say("WATCHDOG=1")
        if self._socket is not None:
            asyncio.get_running_loop().call_later(BEAT_SECONDS, self.keep)


@dataclass(slots=True)
class Said:
    """What is known of one watched process."""

    at: float  # attentive seconds: its last word, or when it was first looked for
    spoken: bool = False


def silent(said: Mapping[int, Said], now: float, seconds: float) -> list[int]:
    """Who has said nothing for too long. Pure."""
    return [
        pid for pid, last in said.items() if now - last.at > (seconds if last.spoken else max(seconds, START_SECONDS))
    ]


class Watchdog:
    """The side that listens. `running` gives the processes it watches now; `on_silent` is called with the pid of one it
    kills.
    """

    def __init__(
        self,
        path: Path,
        *,
        running: Callable[[], Iterable[int]],
        silent_seconds: float,
        on_silent: Callable[[int], None],
    ) -> None:
        """Raises OSError."""
        self._running = running
        self._silent_seconds = silent_seconds
        self._on_silent = on_silent
        self._said: dict[int, Said] = {}
        self._held: dict[int, int] = {}  # descriptors of those it watches, which mean them for ever; a number does not
        self._attention = Attention()
        self._now = 0.0
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.environ = {VARIABLE: str(path)}  # of those it watches

    async def run(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self.hear)
        try:
            while True:
                self.look(time.monotonic())
                await asyncio.sleep(BEAT_SECONDS)
        finally:
            loop.remove_reader(self._socket)
            self._socket.close()
            self._watch(set())

    def hear(self) -> None:
        """All that was said meanwhile; the kernel says by whom."""
        while True:
            try:
                words, ancillary, _flags, _address = self._socket.recvmsg(256, socket.CMSG_SPACE(CREDENTIALS.size))
            except BlockingIOError:
                return
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and b"WATCHDOG=1" in words.split(b"\n"):
                    pid, _uid, _gid = CREDENTIALS.unpack(data)
                    self._said[pid] = Said(self._now, spoken=True)

    def look(self, now: float) -> None:
        """At `now`, in monotonic seconds: kill who is silent."""
        self._now = self._attention.look(now)
        self._watch(set(self._running()))
        if not self._silent_seconds:
            return
        for pid in silent(self._said, self._now, self._silent_seconds):
            self._on_silent(pid)
            del self._said[pid]  # its successor has a number of its own
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._held[pid], signal.SIGKILL)

    def _watch(self, running: set[int]) -> None:
        """Those of them that live, and nobody else."""
        for pid in [pid for pid, held in self._held.items() if pid not in running or _dead(held)]:
            os.close(self._held.pop(pid))
            self._said.pop(pid, None)
        for pid in running - self._held.keys():
            # it is gone already, or there is no descriptor for the moment: at the next look
            with contextlib.suppress(OSError):
                self._held[pid] = os.pidfd_open(pid)
        self._said = {pid: self._said.get(pid, Said(self._now)) for pid in self._held}


def _dead(held: int) -> bool:
    look = select.poll()
    look.register(held, select.POLLIN)
    return bool(look.poll(0))
