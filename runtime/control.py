"""The frames between agent, standby and replica, over SOCK_SEQPACKET pairs, file descriptors along with them.

A packet is one frame, all of it or nothing. So two processes of a replica (API and engine core) may write to the same
socket. The standby reads it blocking; the agent reads it from its event loop. End of file on it is a death notice,
never the only one. A replica's engine core holds the socket too, so the agent also watches a pidfd. Beats are for those
that neither speak nor die (`silence.py`); they never take the place of what must be said.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from pilotlight.frames import Frame
from runtime.tasks import Task
from runtime.wire import DeviceKind, Phase, RequestCount

LARGEST_PACKET = 128 << 10  # bytes
MOST_UNREAD = 0.5  # of a socket's buffer that what may be lost fills: the rest is for what must be said

# Agent → standby


class Fork(Frame):
    """Fork a replica; its end of the control socket comes along as a file descriptor."""

    kind: Literal["fork"] = "fork"
    replica_id: str
    endpoint: str
    snapshot: str  # verified folder
    task: Task
    engine_args: dict[str, str | int | float | bool]
    slots: int
    folder: str  # run folder: TMPDIR, sockets
    baked: str  # folder of the snapshot's baked copies; "": there is no room for any
    journal: str  # file the usage goes to
    canary: str  # file of the recorded answer; made at the first boot
    log: str  # file stdout and stderr go to
    threads: int
    kv_cache_bytes: int
    max_model_len: int
    asked_at: float  # monotonic seconds: where the phase `spawn` begins
    arriving: str = ""  # partial folder (`snapshots/arrival.py`) where bytes of the snapshot are still on their way
    parks: bool = False
    plain: bool = False  # vLLM's own loader, whatever copies there are
    allow: tuple[str, ...] = ()
    media_hosts: tuple[str, ...] = ()


class Ask(Frame):
    """Once a second to a standby that is rehearsed, which answers with a `Beat`."""

    kind: Literal["ask"] = "ask"


class Check(Frame):
    """Would the engine take these arguments? Answered by a child, with `Checked`; not at all where that ends
    otherwise.
    """

    kind: Literal["check"] = "check"
    check_id: str
    task: Task
    engine_args: dict[str, str | int | float | bool]
    snapshot: str = ""  # verified folder; "": of none, and the arguments are only parsed


# Standby → agent


class Rehearsed(Frame):
    """A standby is ready for orders."""

    kind: Literal["rehearsed"] = "rehearsed"
    engine: str
    version: str
    device: DeviceKind
    seconds: float
    private_bytes: int
    threads: int  # alive in the standby: each is a risk at a fork


class Exited(Frame):
    """A child of the standby is gone; `status` as waitpid gives it."""

    kind: Literal["exited"] = "exited"
    pid: int
    status: int


class Checked(Frame):
    """The answer to `Check`."""

    kind: Literal["checked"] = "checked"
    check_id: str
    reason: str  # why it would not, naming the argument; "": it would


class Beat(Frame):
    """Once a second from a replica, unasked and whatever it does; from a standby, all zero, when it is asked."""

    kind: Literal["beat"] = "beat"
    steps: int = 0  # that the engine has done
    core_beats: int = 0  # how often its engine core has beaten; 0: there is none yet
    in_work: int = 0  # requests the engine works on
    loop_seconds: float = 0.0  # that the event loop of the API process has not turned
    counts: tuple[RequestCount, ...] = ()  # of what is in work; more than a packet holds come in several frames
    rest: bool = False  # `counts` go on from the frame before


# Replica → agent


class LoadOutcome(StrEnum):
    """How a replica got its weights."""

    MAPPED = "mapped"  # from a baked copy that was there
    BAKED = "baked"  # from a baked copy that it has just written
    RING = "ring"  # through the pinned ring, to a GPU
    PLAIN_SNAPSHOT = "plain_snapshot"  # by vLLM's own loader: this snapshot has no baked copy, now or later
    PLAIN_START = "plain_start"  # by vLLM's own loader, for a reason of this one start


class Born(Frame):
    """A replica's first words: which process it is."""

    kind: Literal["born"] = "born"
    pid: int
    start_time: int


class PhaseDone(Frame):
    """A step of its start has ended."""

    kind: Literal["phase"] = "phase"
    phase: Phase
    load: LoadOutcome | None = None  # of the phase `load`; its note says the same for people


class Serving(Frame):
    """It admits requests at this address."""

    kind: Literal["serving"] = "serving"
    address: str


class Depth(Frame):
    """How many requests its gate has let through and not answered."""

    kind: Literal["depth"] = "depth"
    in_flight: int


class Journaled(Frame):
    """The journal has grown; the agent reads it."""

    kind: Literal["journaled"] = "journaled"


class Failed(Frame):
    """Why it ends, in the engine's own words."""

    kind: Literal["failed"] = "failed"
    reason: str
    mismatch: bool = False  # it answered its canary otherwise than recorded


class Parked(Frame):
    """It has given its memory back."""

    kind: Literal["parked"] = "parked"


# Agent → replica


class DrainNow(Frame):
    """Admit nothing more, finish what runs, exit."""

    kind: Literal["drain"] = "drain"
    seconds: float | None = (
        None  # so long it may take; what runs then is written down as far as it came. None: as long as it takes
    )


class ParkNow(Frame):
    """Admit nothing more, finish what runs, give the memory back."""

    kind: Literal["park"] = "park"


class UnparkNow(Frame):
    """Serve again, after the canary."""

    kind: Literal["unpark"] = "unpark"
    asked_at: float  # monotonic seconds: where the phase `spawn` of this climb begins


ToStandby = Annotated[Fork | Ask | Check, Field(discriminator="kind")]
FromStandby = Annotated[Rehearsed | Exited | Failed | Beat | Checked, Field(discriminator="kind")]
FromReplica = Annotated[
    Born | PhaseDone | Serving | Depth | Journaled | Failed | Parked | Beat, Field(discriminator="kind")
]
ToReplica = Annotated[DrainNow | ParkNow | UnparkNow, Field(discriminator="kind")]

_adapters: dict[Any, TypeAdapter[Any]] = {}


class Control:
    """One end of a control socket. `receives` is the frame type, or union, the other end sends."""

    def __init__(self, sock: socket.socket, receives: Any) -> None:
        self.sock = sock
        if receives not in _adapters:
            _adapters[receives] = TypeAdapter(receives)
        self._adapter = _adapters[receives]

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def send(self, frame: Frame, fds: tuple[int, ...] = ()) -> bool:
        """Send one frame; False when the other end is gone. Raises BlockingIOError on a full non-blocking socket."""
        data = frame.model_dump_json().encode()
        try:
            if fds:
                socket.send_fds(self.sock, [data], list(fds))
            else:
                self.sock.send(data)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF):
                return False
            raise
        return True

    def offer(self, frame: Frame) -> bool:
        """Send what may be lost, from any thread, without waiting: it is lost while much is unread. False when the
        other end is gone.
        """
        buffer = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        try:
            (unread,) = struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)))
            if unread < buffer * MOST_UNREAD:
                self.sock.send(frame.model_dump_json().encode(), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF):
                return False
            raise
        return True

    def receive(self) -> tuple[Any, list[int]] | None:
        """The next frame and the descriptors with it; None at the end. Raises BlockingIOError when there is none
        yet.
        """
        try:
            data, fds, _flags, _address = socket.recv_fds(self.sock, LARGEST_PACKET, 4)
        except ConnectionResetError:
            return None
        if not data:
            for fd in fds:
                os.close(fd)
            return None
        return self._adapter.validate_json(data), fds

    def waiting(self) -> Iterator[Any]:
        """The frames that are there now, of a non-blocking socket that may be closed already."""
        while self.sock.fileno() >= 0:
            try:
                got = self.receive()
            except BlockingIOError:
                return
            if got is None:
                return
            yield got[0]

    def close(self) -> None:
        self.sock.close()
