"""Step 1: the HTTP/1.1 server's side of one client connection, on top of uvicorn's protocol class.

An inference call takes the hot path: callbacks from the socket to the hold and the relay, no ASGI and no task. All else
becomes uvicorn's usual ASGI cycle. Both kinds may come in any order on one connection, pipelined too: they take turns.

Failures to survive: clients that send slowly, endlessly or nonsense (deadlines and caps, each with its own status),
that read slowly or never (nothing more is made for them, and after `unread_seconds` they are cut), and that leave: the
end of a client's stream counts as leaving, as in nginx and Go. Reading is never paused, or it would not be seen; what
comes too early is kept up to a bound, or dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import httptools
import structlog
from uvicorn.protocols.http.flow_control import FlowControl

from router.admission.auth import Caller
from router.admission.request import Request, aimed, named_by_host
from router.admission.routes import ROUTES, Route
from router.admission.strangers import MOST_STRANGE
from router.admission.target import fields_of, without_offer
from router.admission.visitors import LOCAL, STRANGERS, Standing, standing_of
from router.edge.door import Visit
from router.edge.exchange import ClientLimits, Exchange
from router.edge.farewell import LOST, Farewell
from router.edge.intake import Enough, Intake
from router.edge.page import Head, Page
from router.edge.patience import LINGER_SECONDS, Patience
from router.errors import BadRequest, RouterError, TooSlow, WrongMethod
from router.shared import Router

MOST_TURNS = 32  # requests of one connection whose answers are due; then it is closed after them
MOST_AT_ONCE = 4  # requests of one connection begun in one go; then others have their turn
MOST_STASHED = (
    16 << 10
)  # bytes of pipelined requests not looked at yet; then the connection ends after the answers that are due
MOST_UNSENT = 64 << 10  # bytes that wait for a client to read; then nothing more is made for it

log = structlog.get_logger()


class RouterProtocol(Intake):
    """`_deaf`: refused, or the last request of this connection is here."""

    __slots__ = (
        "_at_once", "_due", "_farewell", "_ignored", "_leaving", "_limits", "_patience", "_period", "_receiving", "_router", "_stalled", "_stash",
        "_strange", "_turns", "_watch", "caller", "patient", "peer", "visit",
    )  # fmt: skip

    def __init__(self, *uvicorns: Any, router: Router, limits: ClientLimits) -> None:
        super().__init__(*uvicorns)
        self._router, self._limits = router, limits
        self.caller = Caller(router.keys)
        self._turns: deque[Exchange | Page] = deque()  # the first is being answered
        self._receiving: Exchange | Page | None = None  # whose body is coming
        self._take_in()
        self._leaving = False  # the server is: close after the answers that are due
        self._due = False  # the first turn has come, and waits for the client to read what it was answered before
        self._ignored = self._at_once = self._strange = 0
        self._stash = bytearray()
        self.patient, self.peer = True, LOCAL
        self._patience = Patience(limits, self.loop.time())
        self.visit: Visit | None = None  # set by whoever accepted it
        self._watch: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._period = min(limits.header_seconds, limits.keep_alive_seconds)

    @property
    def standing(self) -> Standing:
        return standing_of(turn.standing for turn in self._turns)

    def give_way(self) -> None:
        self.transport.abort()

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else LOCAL
        transport.set_write_buffer_limits(high=MOST_UNSENT)
        self._farewell = Farewell(transport, self.loop, unread_seconds=self._limits.unread_seconds)
        if self.visit is not None:
            self.visit.guest = self
        self._watch = self.loop.call_later(self._period, self._look)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._ignored += len(data)
            if self._ignored > self._limits.max_body + MOST_STASHED:  # more than any request that was refused
                self.transport.abort()
        elif (self._turns or self._stash) and not self._in_message:
            self._stash += data
            if len(self._stash) > MOST_STASHED:
                self._end_after_turns()
        else:
            self._feed(data)

    def eof_received(self) -> None:
        self._leave()
        self._farewell.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        if self.visit is not None:
            self.visit.over()
            self.visit = None
        self._leave()
        self._router.unread.drop(self)
        self._farewell.over()
        self.flow.resume_writing()
        for timer in (self._watch, self._stalled):
            if timer is not None:
                timer.cancel()
        self.transport.close()
        self.transport, self.flow = LOST, FlowControl(LOST)  # all that refer to us, and we to them, are let go at once
        self.parser = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self._limits.unread_seconds, self.transport.abort)
        if (call := self._call()) is not None:
            call.pause()
        if not self._router.unread.add(
            self._turns[0].user if self._turns else STRANGERS, self, self.transport.get_write_buffer_size()
        ):
            self.transport.abort()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._router.unread.drop(self)
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if (call := self._call()) is not None:
            call.resume()
        self._go_on()

    # Turns

    def turn_over(self) -> None:
        """The answer of the first turn is written."""
        self.server_state.total_requests += 1
        turn = self._turns.popleft()
        if self.transport.is_closing():
            return
        if not turn.keep_alive or ((self._leaving or self._deaf) and not self._turns):
            self._close()
            return
        if self._turns:
            self._due = True
        else:  # of a page the body may still be coming
            self._patience.answered(self.loop.time(), whole=not self._in_message)
        if self._due or self._stash:
            self._go_on()

    def broken_off(self) -> None:
        """The answer of the first turn ends amid."""
        self._leave()
        self._farewell.begin()

    def _go_on(self) -> None:
        """Begin the turn that is due, or look at what came meanwhile: not before the client has read most of what it
        was answered.
        """
        if self.flow.write_paused or self.transport.is_closing():
            return
        if self._due:
            self._due = False
            self._turns[0].begin()
        elif self._stash and not self._turns:
            self.loop.call_soon(self._unstash)

    def _end_after_turns(self) -> None:
        """The client sends more, ahead of its turn, than is kept for it."""
        self._deaf = True
        self._stash.clear()
        if self._turns:
            self._turns[-1].keep_alive = False
        else:
            self._close()

    def shutdown(self) -> None:
        """The server stops: finish what is due, then close."""
        self._leaving = True
        if not self._turns:
            self._farewell.begin()
        for turn in self._turns:
            turn.keep_alive = False if turn is self._turns[-1] else turn.keep_alive

    def drained(self) -> None:
        """The time for finishing is over: who waits for an answer is told, and the connection closes behind it."""
        if (call := self._call()) is not None:
            call.drained()
        else:
            self._farewell.begin()

    # httptools' callbacks

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._deaf:
            return
        self._upgrading = self.parser.should_upgrade()
        self._deaf = len(self._turns) >= MOST_TURNS
        if self._upgrading or self._deaf:
            return
        method, version = self.parser.get_method(), self.parser.get_http_version()
        try:
            self.url, called = aimed(self.url, method)
            fields = fields_of(self._kept, version)
        except BadRequest as error:
            self._refuse(error)
            return
        if called is not None:
            self._receive_call(called[0], called[1], fields, version == "1.1")
        else:
            self._receive_page(method.decode("ascii"), version)

    def _receive_call(self, route: Route, name: str | None, fields: dict[bytes, bytes], modern: bool) -> None:
        if name is None and self._router.domain:
            name = named_by_host(fields.get(b"host", b""), self._router.domain)
        keep = modern and self.parser.should_keep_alive() and not self._leaving
        self._receiving = exchange = Exchange(
            self, self._router, Request(route, name, fields), self._limits, modern, keep
        )
        self._deaf = not exchange.admit()
        self._take_turn(exchange)

    def on_message_complete(self) -> None:
        if self._pieces:
            self._take_body()
        if self._deaf or self._upgrading:
            return
        self._in_message = False
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            self._deaf = not receiving.keep_alive
            receiving.received()

    def _take_body(self) -> None:
        """What has come of it in this segment."""
        body = self._body()
        try:
            self._deaf = self._deaf or (self._receiving is not None and not self._receiving.add(body))
        except RouterError as error:
            self._refuse(error)

    # Reading

    def _feed(self, data: bytes) -> None:
        self._at_once = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._deaf:
                self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, Enough):
                log.error("a request could not be taken in", action="protocol", exc_info=error.__context__)
                self.transport.abort()
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(BadRequest(f"This is not HTTP/1.1 as we know it: {error}."))
        else:
            if self._in_message and not self._deaf:  # else it came whole: the way of nearly all
                self._await_rest(len(data))

    def _await_rest(self, size: int) -> None:
        body = bool(self._pieces)
        if body:
            self._take_body()
        if self._deaf:
            return
        self._patience.rest(self.loop.time(), self._messages, not self._in_head, self._body_bytes)
        if isinstance(self._receiving, Exchange):
            self._deaf = not self._receiving.count()
        self._count(size, body=body)

    def _unstash(self) -> None:
        """What came while others had their turn."""
        if not self._deaf and not self.transport.is_closing() and not self._turns:
            data, self._stash = bytes(self._stash), bytearray()
            self._feed(data)

    def _without_upgrade(self, rest: bytes) -> None:
        """The client offers another protocol (h2c, WebSocket): we go on with this one, as we may. httptools takes the
        body for the other's.
        """
        method = self.parser.get_method()
        self._upgrading = False
        if method == b"CONNECT":
            self._refuse(WrongMethod("This is no proxy. Send requests for paths of this server."))
            return
        self.parser = httptools.HttpRequestParser(self)
        self._feed(without_offer(method, self.url, self.headers) + rest)

    def _receive_page(self, method: str, version: str) -> None:
        keep = version == "1.1" and self.parser.should_keep_alive() and not self._leaving
        head = Head(method, self.url, self.headers, version)
        page = Page(self, self._router, self._limits, head, keep_alive=keep)
        try:
            page.check()
        except RouterError as error:
            page.gone()
            self._refuse(error, known=page.known)
            return
        self._receiving = page
        self._take_turn(page)

    def _take_turn(self, turn: Exchange | Page) -> None:
        self._turns.append(turn)
        if len(self._turns) == 1:
            self._due = True
            self._at_once += 1
            if self._at_once > MOST_AT_ONCE:
                self.loop.call_soon(self._go_on)
            else:
                self._go_on()

    def _refuse(self, error: RouterError, *, known: bool = False) -> None:
        """What is coming in is not taken. Its answer comes in its turn, then the connection closes. `known`: it has a
        good key.

        1. A call: it is answered so.
        2. A page that has its answer, whole or in part: its body will never be whole, so the connection ends.
        3. A page that has none yet, or nothing that is any request: as good as a call that is refused.
        """
        self._deaf = True
        receiving, self._receiving = self._receiving, None
        self._pieces.clear()
        if isinstance(receiving, Exchange):  # 1
            receiving.refuse(error)
            return
        if receiving is not None:
            if receiving.answered or receiving.cycle.response_started:  # 2
                receiving.gone()
                self._close()
                return
            self._turns.remove(receiving)  # 3
            receiving.gone()
            known = receiving.known
        exchange = Exchange(
            self, self._router, Request(ROUTES["completions"], None), self._limits, chunked=True, keep_alive=False
        )
        exchange.refuse(error if known else self.strange(error))
        self._take_turn(exchange)

    # Strangers

    def proven(self) -> None:
        """A good key has come by it, the first."""
        self.caller.proven = True
        if self.visit is not None:
            self.visit.proven()

    def strange(self, error: RouterError) -> RouterError:
        """What a request is told that came without a good key, and is refused with `error`. Whether the connection is
        kept: `patient`.
        """
        self._strange += 1
        self.patient = self._strange < MOST_STRANGE
        return self._router.strangers.refusal(error, self.peer, self.headers or ())

    # Ends

    def _call(self) -> Any:
        turn = self._turns[0] if self._turns else None
        return turn.call if isinstance(turn, Exchange) else None

    def _leave(self) -> None:
        """The client has left: so does all that was done for it."""
        self._deaf, self._receiving = True, None
        turns, self._turns = self._turns, deque()
        for turn in turns:
            turn.gone()

    def _close(self) -> None:
        """After the last answer. A client that may still be sending gets a moment to read it."""
        self._deaf = True
        if self._in_message and self.transport.can_write_eof():
            self._patience.linger(self.loop.time())
            self.loop.call_later(LINGER_SECONDS, self._farewell.begin)
            self.transport.write_eof()
        else:
            self._farewell.begin()

    def _look(self) -> None:
        """One timer a connection, however many requests: it looks whether a deadline has passed.

        1. Nothing is due from the client, or there is time left.
        2. A request came in part: told so, but where its answer was given before it was whole.
        3. An idle connection.
        """
        left = self._patience.until - self.loop.time()
        coming = self._in_message and not self._deaf
        waiting = coming or not self._turns
        self._watch = self.loop.call_later(
            min(left, self._period) if waiting and left > 0 else self._period, self._look
        )
        if not waiting or left > 0 or self.transport.is_closing():  # 1
            return
        if coming and not (isinstance(self._receiving, Page) and self._receiving.answered):  # 2
            self._refuse(TooSlow(self._patience.told()))
        else:  # 3
            self._farewell.begin()
