"""Step 1, one client request as its connection sees it: a hot one, which is also the sink of its answer, or a page's.

Requests of one connection take turns, in order, whatever kind each is: `begin` is called when its turn has come, which
may be before its body is whole. The failure to survive is a client that is refused or leaves while it still sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from router import encoding, errors
from router.app import Call, Router
from router.auth import Tenant
from router.errors import BodyTooLarge, QueueFull, RouterError
from router.request import Request, expects_continue, new_event_id

MOST_DISCARDED = 64 << 10  # bytes of a refused request's body that are read so that the connection can be kept


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one client may take of us: bytes and seconds."""

    max_body: int
    max_uploading: int  # bodies coming in on all connections of this machine
    header_seconds: float
    keep_alive_seconds: float


class Connection(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport

    def turn_over(self) -> None: ...

    @property
    def write_paused(self) -> bool: ...


class Exchange:
    """One inference call."""

    __slots__ = (
        "_begun", "_connection", "_encoding", "_expects_continue", "_for_pages", "_limits", "_pieces", "_received", "_refusal", "_request", "_router", "_size",
        "_tenant", "call", "chunked", "complete", "keep_alive",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        router: Router,
        request: Request,
        limits: ClientLimits,
        *,
        chunked: bool,
        keep_alive: bool,
    ) -> None:
        self._connection, self._router, self._request, self._limits = connection, router, request, limits
        self.chunked, self.keep_alive = chunked, keep_alive
        self._expects_continue = b"expect" in request.headers and expects_continue(request.headers.items())
        origin = request.headers.get(b"origin")
        self._for_pages = b"" if origin is None else router.cors.lines(origin, request.endpoint)  # of the head of its answer
        self._encoding = ""  # of its body
        self._pieces: list[bytes] = []
        self._size = 0
        self._begun = self._received = self.complete = False
        self._tenant: Tenant | None = None
        self._refusal: RouterError | None = None
        self.call: Call | None = None

    def admit(self) -> bool:
        """The head is here. Returns False when nothing more is to be read on this connection.

        1. No valid key: refused, before anything else is looked at.
           A short body that is coming anyway is read, and the connection kept.
        2. The body will be too long, or comes encoded as nothing we know: refused, unread.
        """
        length = int(self._request.headers.get(b"content-length", b"-1"))
        try:
            self._tenant = self._router.admit(self._request)
        except RouterError as error:  # 1
            if 0 <= length <= MOST_DISCARDED and not self._expects_continue:
                self._refusal = error
                return True
            self.refuse(error)
            return False
        try:
            encoding.framed(self._request.headers.get(b"transfer-encoding"))
            self._encoding = encoding.named(self._request.headers.get(b"content-encoding"))
            if length > self._limits.max_body:
                raise self._too_large()
        except RouterError as error:  # 2
            self.refuse(error)
            return False
        return True

    def refuse(self, error: RouterError) -> None:
        """Answer with this when its turn comes, and close: the rest of the request is not read."""
        self._refusal, self.keep_alive, self._received = error, False, True
        self._drop_body()
        if self._begun:
            self._go_on()

    def add(self, body: bytes) -> bool:
        """More of the body. Returns False when nothing more is to be read on this connection."""
        size = len(body)
        self._size += size
        uploading = self._router.upload(size)
        if self._size > self._limits.max_body:
            self.refuse(self._refusal or self._too_large())
            return False
        if uploading > self._limits.max_uploading:
            self.refuse(QueueFull("This router is receiving as many bytes as it may hold. Try again in a moment."))
            return False
        self._pieces.append(body)
        return True

    def received(self) -> None:
        """The body is whole."""
        self._received = True
        if self._begun:
            self._go_on()

    def begin(self) -> None:
        """Its turn has come."""
        self._begun = True
        if self._received or self._expects_continue:
            self._go_on()

    def gone(self) -> None:
        """The client has left."""
        self.complete = True
        self._drop_body()
        call, self.call = self.call, None
        if call is not None:
            call.gone()

    # The sink of its answer

    def write(self, data: bytes) -> None:
        if self.complete:
            return
        if self._for_pages:  # the first bytes are a head, whoever wrote it
            status, end, rest = data.partition(b"\r\n")
            data, self._for_pages = b"".join((status, end, self._for_pages, rest)), b""
        self._connection.transport.write(data)

    def finish(self) -> None:
        if not self.complete:
            self.complete = True
            self.call = None  # it refers to us: a cycle, which would cost more to find than all of a warm request
            self._connection.turn_over()

    def cut(self) -> None:
        self._connection.transport.abort()

    def _go_on(self) -> None:
        if not self._received:
            if self._expects_continue:
                self._expects_continue = False
                self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        body = b"" if self._refusal is not None else self._whole()
        self._drop_body()
        if self._refusal is None:
            self._serve(body)
            return
        self._router.metrics.refused(self._refusal.status)
        form = self._request.route.form
        self.write(errors.answer(self._refusal, request_id=new_event_id().encode(), keep_alive=self.keep_alive, form=form))
        self.finish()

    def _whole(self) -> bytes:
        """The body, unpacked. One that is not what it says it is refuses the request."""
        body = b"".join(self._pieces)
        try:
            return encoding.unpack(body, self._encoding, most=self._limits.max_body) if self._encoding else body
        except RouterError as error:
            self._refusal = error
            return b""

    def _serve(self, body: bytes) -> None:
        assert self._tenant is not None
        self._request.body = body
        self.call = call = Call(self._router, self._request, self._tenant, self)
        if self._connection.write_paused:
            call.pause()
        call.run()

    def _drop_body(self) -> None:
        if self._size:
            self._router.upload(-self._size)
        self._size = 0
        self._pieces = []

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body is larger than {self._limits.max_body} bytes, this server's limit (router.max_body_bytes). Send less."
        )


class Page:
    """A request that goes to the ASGI application: uvicorn's own cycle, in its turn."""

    __slots__ = ("_app", "_start", "cycle")

    def __init__(
        self, cycle: RequestResponseCycle, app: ASGI3Application, start: Callable[[RequestResponseCycle, ASGI3Application], None]
    ) -> None:
        self.cycle, self._app, self._start = cycle, app, start

    @property
    def keep_alive(self) -> bool:
        return self.cycle.keep_alive

    @keep_alive.setter
    def keep_alive(self, keep: bool) -> None:
        self.cycle.keep_alive = keep

    def begin(self) -> None:
        self._start(self.cycle, self._app)

    def gone(self) -> None:
        self.cycle.disconnected = True
        self.cycle.message_event.set()
