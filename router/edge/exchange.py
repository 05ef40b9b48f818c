"""Step 1, one client request as its connection sees it: a hot one, which is also the sink of its answer. (`page.py` has
the others.)

Requests of one connection take turns, in order, whatever kind each is: `begin` is called when its turn has come, which
may be before its body is whole. The failure to survive is a client that is refused or leaves while it still sends.
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
from router.app import Call, Router
from router.errors import BodyTooLarge, QueueFull, RouterError

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
    """One inference call."""

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
        self._connection, self._router, self._request, self._limits = connection, router, request, limits
        self.chunked, self.keep_alive = chunked, keep_alive
        self._expects_continue = b"expect" in request.headers and expects_continue(request.headers.items())
        origin = request.headers.get(b"origin")
        self._for_pages = (
            b"" if origin is None else router.cors.lines(origin, request.endpoint)
        )  # of the head of its answer
        self._encoding = ""  # of its body
        self._pieces: list[bytes | bytearray] = []  # of its body, in few places: a byte in tiny chunks is a byte
        self._size = self._counted = 0
        self._begun = self._received = self.complete = False
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
            told = self._connection.strange(error.with_traceback(None))  # whose frames refer to us
            if told is error and 0 <= length <= MOST_DISCARDED and not self._expects_continue:
                self._refusal, self.keep_alive = told, self.keep_alive and self._connection.patient
                return True
            self.refuse(told)
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
        self._refusal, self.keep_alive, self._received = error.with_traceback(None), False, True
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
            return
        body = self._small() if self._refusal is None else b""
        if body is None:
            self._hand_over()
        else:
            self._answer(body)

    def _small(self) -> bytes | None:
        """The body, unpacked; None where it is large. One that is not what it says it is refuses the request."""
        if self._size > LARGE:
            return None
        body = b"".join(self._pieces)
        if not self._encoding:
            return body
        most = min(LARGE, self._limits.max_body)
        try:
            return encoding.unpack(body, self._encoding, most=most)
        except BodyTooLarge as error:
            if most < self._limits.max_body:
                return None
            self._refusal = error.with_traceback(None)
        except RouterError as error:
            self._refusal = error.with_traceback(None)
        return b""

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
            self._refusal = asked
            self._answer(b"")
        else:
            self._answer(body, asked)

    def _read_no_more(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _answer(self, body: bytes, asked: Asked | None = None) -> None:
        """`asked`: what is in the body, where that has been read."""
        self._drop_body()
        if self._refusal is None:
            self._serve(body, asked)
            return
        self._router.metrics.refused(self._refusal.status)
        form = self._request.route.form
        self.write(
            errors.answer(self._refusal, request_id=new_event_id().encode(), keep_alive=self.keep_alive, form=form)
        )
        self.finish()

    def _serve(self, body: bytes, asked: Asked | None) -> None:
        assert self._tenant is not None
        self._request.body = body
        self.call = call = Call(self._router, self._request, self._tenant, self)
        if self._connection.flow.write_paused:
            call.pause()
        call.run(asked)

    def _drop_body(self) -> None:
        if self._counted:
            self._router.uploads.drop(self)
        self._size = self._counted = 0
        self._pieces = []


def too_large(limits: ClientLimits) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {limits.max_body} bytes, this server's limit (router.max_body_bytes). Send less."
    )
