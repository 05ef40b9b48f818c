"""One inference request as its connection sees it, and the sink of its answer. Steps 1 and 2.

Requests of one connection take turns, in order, whatever kind each is (`asgi_turn.py` has the others). `begin` is
called when its turn has come, which may be before its body is here. Until its record is open a request is refused here,
by a plain answer. From then on its call answers it. The failure to survive is a client that is refused or leaves while
it still sends.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl

from router import errors
from router.admission import encoding
from router.admission.auth import Caller, Tenant
from router.admission.body_reader import LARGE, Job
from router.admission.openai import Asked
from router.admission.request import Request, expects_continue, new_event_id
from router.admission.visitors import STRANGERS, Standing
from router.app import Call, open_call
from router.errors import BodyTooLarge, QueueFull, RouterError
from router.shared import Router

PIECE = 256 << 10  # bytes; one that grew to megabytes would be copied again and again
MOST_DISCARDED = 64 << 10  # bytes of a refused request's body that are read so that the connection can be kept


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one client may take of us: bytes and seconds."""

    max_body: int
    header_seconds: float
    keep_alive_seconds: float
    upload_seconds: float  # for a whole request
    unread_seconds: float  # for reading what it was answered


class Connection(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    flow: FlowControl
    caller: Caller
    patient: bool  # whether it is kept although its requests bring no good key

    def proven(self) -> None: ...

    def strange(self, error: RouterError) -> RouterError: ...

    def turn_over(self) -> None: ...


class Exchange:
    """One inference request, from its head to its answer."""

    __slots__ = (
        "_begun", "_connection", "_counted", "_encoding", "_expects_continue", "_for_pages", "_limits", "_pieces", "_reading", "_received", "_refusal", "_request", "_router",
        "_size", "_tenant", "call", "chunked", "complete", "keep_alive",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        router: Router,
        request: Request,
        limits: ClientLimits,
        chunked: bool,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self._router = router
        self._request = request
        self._limits = limits
        self.chunked = chunked
        self.keep_alive = keep_alive
        self._expects_continue = b"expect" in request.headers and expects_continue(request.headers.items())
        origin = request.headers.get(b"origin")
        # of the head of its answer
        self._for_pages = b"" if origin is None else router.cors.lines(origin, request.endpoint)
        self._encoding = ""  # of its body
        self._pieces: list[bytes | bytearray] = []  # of its body, in few places: a byte in tiny chunks is a byte
        self._size = 0
        self._counted = 0  # of these bytes, as coming in
        self._begun = False
        self._received = False
        self.complete = False
        self._tenant: Tenant | None = None
        self._refusal: RouterError | None = None
        self._reading: Job | None = None  # its body, in the process beside us
        self.call: Call | None = None

    @property
    def user(self) -> str:
        """As who it shares what all have."""
        return STRANGERS if self._tenant is None else self._tenant.user

    @property
    def standing(self) -> Standing:
        """Whether it may be cut for others: a stranger's may."""
        return "idle" if self._tenant is None else "served" if self._received else "sending"

    def admit(self) -> bool:
        """The head is here. Returns False when nothing more is to be read on this connection.

        1. No valid key: refused, before anything else is looked at.
           A short body that is coming anyway is read, and the connection kept.
        2. The body will be too long, or comes encoded as nothing we know: refused, unread.
        """
        headers = self._request.headers
        length = int(headers.get(b"content-length", b"-1"))
        try:
            self._tenant = self._connection.caller.tenant(headers)
        except RouterError as error:  # 1
            refusal = self._connection.strange(error.with_traceback(None))  # whose frames refer to us
            if refusal is error and 0 <= length <= MOST_DISCARDED and not self._expects_continue:
                self._refusal, self.keep_alive = refusal, self.keep_alive and self._connection.patient
                return True
            self.refuse(refusal)
            return False
        if not self._connection.caller.proven:
            self._connection.proven()
        try:
            if b"transfer-encoding" in headers:
                encoding.framed(headers[b"transfer-encoding"])
            if b"content-encoding" in headers:
                self._encoding = encoding.named(headers[b"content-encoding"])
            if length > self._limits.max_body:
                raise too_large(self._limits)
        except RouterError as error:  # 2
            self.refuse(error)
            return False
        return True

    def refuse(self, error: RouterError) -> None:
        """Answer with this when its turn comes, and close: the rest of the request is not read."""
        self._refusal = error.with_traceback(None)
        self.keep_alive = False
        self._received = True
        self._read_no_more()
        self._drop_body()
        if self._begun:
            self._go_on()

    def add(self, body: bytes) -> bool:
        """More of the body. Returns False when nothing more is to be read on this connection.

        What belongs to a refusal is not kept, and `admit` has seen that it is short.
        """
        if self._refusal is not None:
            return not self._received
        if self._size + len(body) > self._limits.max_body:
            self.refuse(too_large(self._limits))
            return False
        self._size += len(body)
        last = self._pieces[-1] if self._pieces else b""
        if isinstance(last, bytearray) and len(last) < PIECE:
            last += body
        else:
            self._pieces.append(bytearray(body) if self._pieces else body)
        return True

    def count(self) -> bool:
        """A segment has ended, and the body is not whole: what of it is here counts from now on. Returns as `add`."""
        size, self._counted = self._size - self._counted, self._size
        if size and self._tenant is not None and not self._router.uploads.add(self._tenant.user, self, size):
            self.give_way()
            return False
        return True

    def give_way(self) -> None:
        """More is coming in than there is room for, and its key has most of it."""
        self.refuse(
            QueueFull(
                "This router is receiving as many bytes as it may hold, and this key sends most of them. Try again in a moment."
            )
        )

    def received(self) -> None:
        """The body is whole."""
        self._received = True
        if self._begun:
            self._go_on()
        else:
            self.count()  # it waits for its turn

    def begin(self) -> None:
        """Its turn has come."""
        self._begun = True
        if self._received or self._expects_continue:
            self._go_on()

    def gone(self) -> None:
        """The client has left."""
        self.complete = True
        self._read_no_more()
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
        elif self._refusal is not None:
            self._turn_down(self._refusal)
        elif self._size > LARGE:
            self._hand_over()
        elif self._encoding:
            self._serve_packed()
        else:
            self._serve(b"".join(self._pieces))

    def _serve_packed(self) -> None:
        """A body that is not what it says it is refuses the request; one that is large unpacked is read elsewhere."""
        most = min(LARGE, self._limits.max_body)
        try:
            body = encoding.unpack(b"".join(self._pieces), self._encoding, most=most)
        except RouterError as error:
            if isinstance(error, BodyTooLarge) and most < self._limits.max_body:
                self._hand_over()
            else:
                self._turn_down(error)
        else:
            self._serve(body)

    def _hand_over(self) -> None:
        """A large body is read elsewhere, and counts as coming in meanwhile."""
        if not self.count():
            return
        assert self._tenant is not None
        body, self._pieces = b"".join(self._pieces), []
        self._reading = Job(self._request.route, self._encoding, self._limits.max_body, body, self._read)
        self._router.reader.read(self._tenant.user, self._reading)

    def _read(self, asked: Asked | RouterError, body: bytes) -> None:
        self._reading = None
        if isinstance(asked, RouterError):
            self._turn_down(asked)
        else:
            self._serve(body, asked)

    def _read_no_more(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _turn_down(self, error: RouterError) -> None:
        """Answer it so. It leaves no record."""
        self._drop_body()
        self._router.metrics.refused(error.status)
        form, request_id = self._request.route.form, new_event_id().encode()
        self.write(errors.answer(error, request_id=request_id, keep_alive=self.keep_alive, form=form))
        self.finish()

    def _serve(self, body: bytes, asked: Asked | None = None) -> None:
        """`asked`: what is in the body, where that has been read."""
        self._drop_body()
        assert self._tenant is not None
        self._request.body = body
        try:
            call = self.call = open_call(self._router, self._request, self._tenant, self, asked)
        except RouterError as error:
            self._turn_down(error)
            return
        if self._connection.flow.write_paused:
            call.pause()
        call.start()

    def _drop_body(self) -> None:
        if self._counted:
            self._router.uploads.drop(self)
            self._counted = 0
        self._size = 0
        self._pieces = []


def too_large(limits: ClientLimits) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {limits.max_body} bytes, this server's limit (router.max_body_bytes). Send less."
    )
