"""The HTTP/1.1 server's side of one client connection, on top of uvicorn's protocol class. Step 1.

An inference call goes by callbacks from the socket to the hold and the relay: no ASGI and no task. All else becomes
uvicorn's usual ASGI cycle. Both kinds may come in any order on one connection, pipelined too: they take turns.

    head is here ────_queue────→ waits ──_go_on: it is first, and──→ being answered ──turn_over──→ over
     (_receive_call,               │     the client has read most    │                            │ next turn, or
      _receive_asgi)               │     of what it was answered     │                            ├ idle, or
         │                         │                                 │                            └ _close
         └─ _refuse ──→ a turn of its own, whose answer closes       └─ broken_off ──┐
                                   └──── the client leaves: _leave ──────────────────┴──→ gone

Three failures to survive. Clients send slowly, endlessly or nonsense: there are deadlines and caps, each with its own
status. They read slowly or never: nothing more is made for them, and after `unread_seconds` they are cut. They leave:
the end of a client's stream counts as leaving, as in nginx and Go. Reading is never paused, or that would not be seen.
What comes too early is kept up to a bound, or dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

from router.admission.auth import Caller
from router.admission.request import Request, aimed, named_by_host
from router.admission.routes import ROUTES, Route
from router.admission.strangers import MOST_STRANGE
from router.admission.target import fields_of
from router.admission.visitors import LOCAL, STRANGERS, Standing, standing_of
from router.app import Call
from router.edge.asgi_turn import AsgiTurn, Head
from router.edge.door import Visit
from router.edge.exchange import ClientLimits, Exchange
from router.edge.farewell import LOST, Farewell
from router.edge.intake import Intake
from router.edge.patience import LINGER_SECONDS, Patience
from router.errors import BadRequest, RouterError, TooSlow
from router.shared import Router

MOST_TURNS = 32  # requests of one connection whose answers are due; then it is closed after them
MOST_AT_ONCE = 4  # requests of one connection begun in one go; then others have their turn
# bytes of pipelined requests not looked at yet; then the connection ends after the answers that are due
MOST_STASHED = 16 << 10
MOST_UNSENT = 64 << 10  # bytes that wait for a client to read; then nothing more is made for it


class RouterProtocol(Intake):
    """One client connection: its turns, its deadlines and its end. `_deaf`: refused, or its last request is here."""

    __slots__ = (
        "_due", "_farewell", "_ignored", "_leaving", "_limits", "_patience", "_period", "_receiving", "_router", "_stalled", "_stash",
        "_strange", "_turns", "_watch", "caller", "patient", "peer", "visit",
    )  # fmt: skip

    def __init__(self, *uvicorns: Any, router: Router, limits: ClientLimits) -> None:
        super().__init__(*uvicorns)
        self._router = router
        self._limits = limits
        self.caller = Caller(router.keys)
        self._turns: deque[Exchange | AsgiTurn] = deque()  # the first is being answered
        self._receiving: Exchange | AsgiTurn | None = None  # whose body is coming
        self._begin_intake()
        self._leaving = False  # the server is: close after the answers that are due
        self._due = False  # the first turn has come, and waits for the client to read what it was answered before
        self._stash = bytearray()  # what came before its turn
        self._ignored = 0  # bytes that came after the last request that is taken
        self._strange = 0  # requests without a good key
        self.patient = True
        self.peer = LOCAL
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
        else:  # its body may still be coming, where the application did not wait for it
            self._patience.answered(self.loop.time(), complete=not self._in_message)
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
            self._receive_asgi(method.decode("ascii"), version)

    def _receive_call(self, route: Route, name: str | None, fields: dict[bytes, bytes], modern: bool) -> None:
        if name is None and self._router.domain:
            name = named_by_host(fields.get(b"host", b""), self._router.domain)
        keep = modern and self.parser.should_keep_alive() and not self._leaving
        self._receiving = exchange = Exchange(
            self, self._router, Request(route, name, fields), self._limits, modern, keep
        )
        self._deaf = not exchange.admit()
        self._queue(exchange)

    def _receive_asgi(self, method: str, version: str) -> None:
        keep = version == "1.1" and self.parser.should_keep_alive() and not self._leaving
        head = Head(method, self.url, self.headers, version)
        turn = AsgiTurn(self, self._router, self._limits, head, keep_alive=keep)
        try:
            turn.check()
        except RouterError as error:
            turn.gone()
            self._refuse(error, known=turn.known)
            return
        self._receiving = turn
        self._queue(turn)

    def on_message_complete(self) -> None:
        if self._pieces:
            self._receive_body()
        if self._deaf or self._upgrading:
            return
        self._in_message = False
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            self._deaf = not receiving.keep_alive
            receiving.received()

    # A segment was read

    def _await_rest(self, size: int) -> None:
        body = bool(self._pieces)
        if body:
            self._receive_body()
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

    def _queue(self, turn: Exchange | AsgiTurn) -> None:
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
        2. An ASGI turn that has its answer, whole or in part: its body will never be whole, so the connection ends.
        3. One that has none yet, or nothing that is any request: as good as a call that is refused.
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
        self._queue(exchange)

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

    def _call(self) -> Call | None:
        """The call that is being answered."""
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
        if coming and not (isinstance(self._receiving, AsgiTurn) and self._receiving.answered):  # 2
            self._refuse(TooSlow(self._patience.refusal()))
        else:  # 3
            self._farewell.begin()
