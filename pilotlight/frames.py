"""Frames: the one way two Pilotlight processes talk to each other, whoever they are.

A frame is a frozen pydantic model with a literal `kind`, sent as one line of JSON over a stream socket. The callee's
package owns its frames (`activator/wire.py`, `runtime/wire.py`); this module only carries them. It must survive a peer
that sends nonsense or a line without end: that one connection ends with `FrameError`. A peer that dies within a line
counts as having left. One that never reads is cut off when `MOST_UNSENT` bytes wait for it.

Two releases talk to each other while one takes the other's place. So contracts only ever gain: a field with a default,
a kind of frame. The sender is strict: a misspelt field is an error where it is made. The reader passes over fields and
kinds it does not know. Each hello carries the sender's `protocol`. Only a change that is not an addition raises it, and
a peer of another one is refused by name (`check_protocol`).

An address is `unix:/path/to.sock` or `tcp:HOST:PORT`; nobody outside this module takes one apart.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

PROTOCOL = 1  # of every contract of this release
OLDEST_PROTOCOL = 1  # that we still talk to: the release before this one
LONGEST_FRAME = 64 << 20  # bytes; a table of 10,000 replicas is about 3 MB
MOST_UNSENT = 2 * LONGEST_FRAME  # bytes waiting for one peer
LONGEST_UNIX_PATH = 107  # bytes; the kernel's sun_path less its closing zero

log = structlog.get_logger()


class FrameError(Exception):
    """The peer sent something that is not a frame of this contract; the connection is of no more use."""


class AddressError(ValueError):
    """An address that is neither unix:/path nor tcp:host:port, or a socket path the kernel cannot hold."""


class Frame(BaseModel):
    """Base of every frame: immutable, and closed, so that a misspelt field, or an infinite number, is an error at the
    sender.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Encoded(NamedTuple):
    """A frame as it goes over the wire, its newline included: written once, for several peers."""

    line: bytes


Received = TypeVar("Received", bound=Frame)
_adapters: dict[Any, TypeAdapter[Any]] = {}


def check_protocol(peer: int, who: str) -> None:
    """Raises FrameError where `who`, with a hello of this protocol, is too old or too new to be understood."""
    if not OLDEST_PROTOCOL <= peer <= PROTOCOL:
        raise FrameError(
            f"{who} speaks protocol {peer}, this process {OLDEST_PROTOCOL} to {PROTOCOL}: upgrade one release at a time"
        )


def is_unknown_kind(error: ValidationError) -> bool:
    """Is it a frame, or line, of a kind that only a newer release knows?"""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    return first["type"] == "union_tag_invalid" and not first["loc"]


class FrameStream(Generic[Received]):
    """Both directions of one connection. `Received` is the union of frames the peer may send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, receives: Any) -> None:
        self._reader, self._writer = reader, writer
        if receives not in _adapters:
            _adapters[receives] = TypeAdapter(receives)
        self._adapter: TypeAdapter[Received] = _adapters[receives]

    def send(self, *frames: Frame | Encoded) -> None:
        """Queue frames for sending; never waits. On a connection already lost this does nothing: the reader's end
        tells.
        """
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > MOST_UNSENT:
            log.warning("a peer that does not read is cut off", action="peer_stuck")
            self._writer.transport.abort()
            return
        self._writer.write(
            b"".join(f.line if isinstance(f, Encoded) else f.model_dump_json().encode() + b"\n" for f in frames)
        )

    async def drain(self) -> None:
        """Wait until the peer has taken enough. Raises ConnectionError when it is gone."""
        await self._writer.drain()

    async def receive(self) -> Received | None:
        """The next frame of a kind we know; None when the peer has left or is lost. Raises FrameError for what is not a
        frame.
        """
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except (asyncio.IncompleteReadError, OSError):
                return None
            except asyncio.LimitOverrunError as error:
                raise FrameError(f"a frame longer than {LONGEST_FRAME} bytes") from error
            try:
                return self._adapter.validate_json(line, extra="ignore")
            except ValidationError as error:
                if is_unknown_kind(error):
                    continue
                first = error.errors(include_input=False, include_url=False)[0]  # what was sent stays out of logs
                raise FrameError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    async def __aiter__(self) -> AsyncIterator[Received]:
        while (frame := await self.receive()) is not None:
            yield frame

    def close(self) -> None:
        """What is queued is sent first, however long the peer takes."""
        self._writer.close()

    def abort(self) -> None:
        """At once: what is queued is lost."""
        self._writer.transport.abort()


def split(address: str) -> tuple[str, str, int]:
    """Take an address apart: ("unix", path, 0) or ("tcp", host, port). Raises AddressError."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix" and rest.startswith("/"):
        if len(os.fsencode(rest)) > LONGEST_UNIX_PATH:
            raise AddressError(
                f"socket path {rest} has more than {LONGEST_UNIX_PATH} bytes: choose a shorter state folder (--state)"
            )
        return "unix", rest, 0
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # tcp:[::1]:80
    if scheme == "tcp" and host and port.isascii() and port.isdigit() and int(port) <= 65535:
        return "tcp", host, int(port)
    raise AddressError(f"{address!r} is not an address: write unix:/path/to.sock or tcp:HOST:PORT")


async def connect(address: str, receives: Any) -> FrameStream[Any]:
    """Connect once. Raises OSError when nobody listens there, AddressError for a bad address."""
    scheme, host, port = split(address)
    if scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(host, limit=LONGEST_FRAME)
    else:
        reader, writer = await asyncio.open_connection(host, port, limit=LONGEST_FRAME)
    return FrameStream(reader, writer, receives)


async def serve(address: str, receives: Any, on_peer: Callable[[FrameStream[Any]], Awaitable[None]]) -> asyncio.Server:
    """Listen; `on_peer` runs once a connection and the connection closes when it returns or raises FrameError.

    A Unix socket is made readable and writable by its owner only, and takes the place of one that is there: who comes
    last serves, and commands of an earlier leader are refused by their epoch. Raises OSError, AddressError.
    """

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await on_peer(FrameStream(reader, writer, receives))
        except FrameError as error:
            log.warning("a peer sent no frame of ours", action="bad_frame", address=address, error=str(error)[:200])
        finally:
            writer.close()

    scheme, host, port = split(address)
    if scheme == "tcp":
        return await asyncio.start_server(greet, host, port, limit=LONGEST_FRAME)
    return await asyncio.start_unix_server(greet, sock=_private_socket(host), limit=LONGEST_FRAME)


def _private_socket(path: str) -> socket.socket:
    """Bound, not yet listening, mode 0600: nobody can connect before the mode is right, and no umask of other tasks is
    touched.
    """
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        Path(path).chmod(0o600)
    except OSError:
        listener.close()
        raise
    return listener
