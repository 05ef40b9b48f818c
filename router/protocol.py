"""Step 1: the HTTP/1.1 server's side of one client connection, on top of uvicorn's protocol class.

An inference call takes the hot path: callbacks from the socket to the hold and the relay, no ASGI and no task. All
else becomes uvicorn's usual ASGI cycle. Both kinds may come in any order on one connection, pipelined too: they take turns.

Failures to survive: clients that send slowly, endlessly or nonsense (deadlines and caps, each with its own status), that
read slowly (the replica's connection is paused, and after STALLED_SECONDS cut), and that leave: the end of a client's
stream counts as leaving, as in nginx and Go, because a closed connection looks the same as one closed half.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from router import errors
from router.app import Router
from router.errors import BadRequest, BodyTooLarge, HeadTooLarge, RouterError, TooSlow, UrlTooLong, WrongMethod
from router.exchange import ClientLimits, Exchange, Page
from router.openai import ROUTES
from router.request import KEPT, Request, expects_continue, hot, named_by_host, new_event_id

MOST_HEADERS = 100
LONGEST_HEAD = 64 << 10  # bytes
LONGEST_URL = 8 << 10  # bytes
MOST_TURNS = 32  # requests of one connection whose answers are due; then it is closed after them
MOST_STASHED = 64 << 10  # bytes of pipelined requests not looked at yet; then the client is not read
BODY_STEP = 64 << 10  # bytes of body that must come every header_seconds
STALLED_SECONDS = 300.0  # a client reads nothing for so long
FAREWELL_SECONDS = 0.5  # a TLS client is given so long to say goodbye too; idle ones never do
LINGER_SECONDS = 1.0  # after a refusal the client did not wait for: else its answer is lost in a connection reset

log = structlog.get_logger()


class RouterProtocol(HttpToolsProtocol):
    __slots__ = (
        "_body_bytes", "_body_mark", "_deadline", "_deaf", "_head_bytes", "_in_head", "_in_message", "_leaving", "_limits", "_period",
        "_receiving", "_renewed", "_router", "_stalled", "_stash", "_turns", "_upgrading", "_watch",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        router: Router,
        limits: ClientLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._router, self._limits = router, limits
        self._turns: deque[Exchange | Page] = deque()  # the first is being answered
        self._receiving: Exchange | Page | None = None  # whose body is coming
        self._in_message = self._in_head = self._upgrading = False
        self._deaf = False  # nothing more is read: refused, or the last request of this connection is here
        self._leaving = False  # the server is: close after the answers that are due
        self._head_bytes = self._body_bytes = self._body_mark = 0
        self._stash = bytearray()
        self._deadline = 0.0
        self._renewed = False  # the client has got on with its message: it has `header_seconds` again
        self._watch: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._period = min(limits.header_seconds, limits.keep_alive_seconds)

    @property
    def write_paused(self) -> bool:
        return self.flow.write_paused

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.time() + self._limits.header_seconds
        self._watch = self.loop.call_later(self._period, self._look)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if (self._turns or self._stash) and not self._in_message:
            self._stash += data
            if len(self._stash) > MOST_STASHED:
                self.flow.pause_reading()
            return
        self._feed(data)

    def eof_received(self) -> None:
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self._leave()
        self.flow.resume_writing()
        for timer in (self._watch, self._stalled):
            if timer is not None:
                timer.cancel()
        self.transport.close()
        self.parser = None  # it refers to us, and we to it

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)
        if (call := self._call()) is not None:
            call.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if (call := self._call()) is not None:
            call.resume()

    # Turns

    def turn_over(self) -> None:
        """The answer of the first turn is written."""
        self.server_state.total_requests += 1
        turn = self._turns.popleft()
        if self.transport.is_closing():
            return
        if not turn.keep_alive or (self._leaving and not self._turns):
            self._close()
        elif self._turns:
            self._turns[0].begin()
        elif self._deaf:
            self._close()
        else:
            self._deadline = self.loop.time() + self._limits.keep_alive_seconds
            if self._stash:
                self.loop.call_soon(self._unstash)

    def on_response_complete(self) -> None:
        self.turn_over()

    def shutdown(self) -> None:
        """The server stops: finish what is due, then close."""
        self._leaving = True
        if not self._turns:
            self._shut()
        for turn in self._turns:
            turn.keep_alive = False if turn is self._turns[-1] else turn.keep_alive

    def drained(self) -> None:
        """The time for finishing is over: who waits for an answer is told, and the connection closes behind it."""
        if (call := self._call()) is not None:
            call.drained()
        else:
            self.transport.close()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        if self._deaf:
            return
        self._in_message = self._in_head = self._renewed = True
        self._head_bytes = self._body_bytes = 0
        self._body_mark = BODY_STEP
        self.url, self.headers = b"", []

    def on_url(self, url: bytes) -> None:
        if not self._deaf:
            self.url += url
            if len(self.url) > LONGEST_URL:
                self._refuse(UrlTooLong(f"The URL is longer than {LONGEST_URL} bytes. Send parameters in the body."))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._deaf or not self._in_head:  # a trailer
            return
        if len(self.headers) >= MOST_HEADERS:
            self._refuse(HeadTooLarge(f"The request has more than {MOST_HEADERS} headers. Send fewer."))
            return
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._deaf:
            return
        if self.parser.should_upgrade():
            self._upgrading = True
            return
        if len(self._turns) >= MOST_TURNS:
            self._deaf = True
            return
        self._renewed = True
        parser, called = self.parser, hot(self.url)
        if called is None or parser.get_method() != b"POST":
            self._receive_page()
            return
        route, name = called
        kept = {field: value for field, value in self.headers if field in KEPT}
        if name is None and self._router.domain:
            name = named_by_host(kept.get(b"host", b""), self._router.domain)
        modern = parser.get_http_version() == "1.1"
        self._receiving = exchange = Exchange(
            self,
            self._router,
            Request(route, name, kept),
            self._limits,
            chunked=modern,
            keep_alive=modern and parser.should_keep_alive() and not self._leaving,
        )
        self._deaf = not exchange.admit()
        self._take_turn(exchange)

    def on_body(self, body: bytes) -> None:
        if self._deaf or self._upgrading:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._body_mark:
            self._body_mark = self._body_bytes + BODY_STEP
            self._renewed = True
        if isinstance(receiving := self._receiving, Exchange):
            self._deaf = not receiving.add(body)
        elif self._body_bytes > self._limits.max_body:
            self._refuse(self._too_large())
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._deaf or self._upgrading:
            return
        self._in_message = False
        receiving, self._receiving = self._receiving, None
        if isinstance(receiving, Exchange):
            self._deaf = not receiving.keep_alive
            receiving.received()
        elif receiving is not None:
            self._deaf = not receiving.keep_alive
            super().on_message_complete()

    # Reading

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            log.error("a request could not be taken in", action="protocol", exc_info=error.__context__)
            self.transport.abort()
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(BadRequest(f"This is not HTTP/1.1 as we know it: {error}."))
        else:
            if self._in_message and not self._deaf:  # else it came whole: the way of nearly all
                self._await_rest(len(data))

    def _await_rest(self, size: int) -> None:
        if self._renewed:
            self._renewed = False
            self._deadline = self.loop.time() + self._limits.header_seconds
        if self._in_head:
            self._head_bytes += size
            if self._head_bytes > LONGEST_HEAD:
                self._refuse(HeadTooLarge(f"The request's head is longer than {LONGEST_HEAD} bytes. Send less."))

    def _unstash(self) -> None:
        """What came while others had their turn."""
        if not self._deaf and not self.transport.is_closing() and not self._turns:
            data, self._stash = bytes(self._stash), bytearray()
            self.flow.resume_reading()
            self._feed(data)

    def _without_upgrade(self, rest: bytes) -> None:
        """The client offers another protocol (h2c, WebSocket): we go on with this one, as we may. httptools takes the body for the other's."""
        method = self.parser.get_method()
        self._upgrading = False
        if method == b"CONNECT":
            self._refuse(WrongMethod("This is no proxy. Send requests for paths of this server."))
            return
        fields = [field for field in self.headers if field[0] not in (b"upgrade", b"connection", b"http2-settings")]
        head = b"%s %s HTTP/1.1\r\n%s\r\n" % (method, self.url, b"".join([b"%s: %s\r\n" % field for field in fields]))
        self.parser = httptools.HttpRequestParser(self)
        self._feed(head + rest)

    def _receive_page(self) -> None:
        length = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        if length > self._limits.max_body:
            self._refuse(self._too_large())
            return
        url, headers = self.url, self.headers
        super().on_message_begin()  # makes the scope, and forgets these
        self.url, self.headers, self.expect_100_continue = url, headers, expects_continue(headers)
        self.scope["headers"] = headers
        self.cycle = None  # type: ignore[assignment]  # so that uvicorn begins its task: `_start_asgi_task` gives it its turn
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        page = Page(cycle, app, super()._start_asgi_task)
        self._receiving = page
        self._take_turn(page)

    def _take_turn(self, turn: Exchange | Page) -> None:
        self._turns.append(turn)
        if len(self._turns) == 1:
            turn.begin()

    def _refuse(self, error: RouterError) -> None:
        """What is coming in is not taken. Its answer comes in its turn, then the connection closes."""
        self._deaf = True
        if isinstance(self._receiving, Exchange):
            self._receiving.refuse(error)
            return
        if (page := self._receiving) is not None:  # its body will never be whole
            untold = self._turns[0] is page and not page.cycle.response_started
            self._leave()
            if untold:
                self._router.metrics.refused(error.status)
                self.transport.write(errors.answer(error, request_id=new_event_id().encode(), keep_alive=False))
            self._close()
            return
        exchange = Exchange(
            self,
            self._router,
            Request(ROUTES["completions"], None),
            self._limits,
            chunked=True,
            keep_alive=False,
        )
        exchange.refuse(error)
        self._take_turn(exchange)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body is larger than {self._limits.max_body} bytes, this server's limit (router.max_body_bytes). Send less."
        )

    # Ends

    def _call(self) -> Any:
        turn = self._turns[0] if self._turns else None
        return turn.call if isinstance(turn, Exchange) else None

    def _leave(self) -> None:
        """The client has left: so does all that was done for it."""
        self._deaf = True
        turns, self._turns = self._turns, deque()
        for turn in turns:
            turn.gone()

    def _close(self) -> None:
        """After the last answer. A client that may still be sending gets a moment to read it."""
        self._deaf = True
        if self._in_message and self.transport.can_write_eof():
            self._deadline = self.loop.time() + LINGER_SECONDS
            self.loop.call_later(LINGER_SECONDS, self._shut)
            self.transport.write_eof()
        else:
            self._shut()

    def _shut(self) -> None:
        """Close, and do not wait for a client that says nothing: TLS would, for 30 s, and hold up the end of the server."""
        self.transport.close()
        self.loop.call_later(FAREWELL_SECONDS, self._cut)

    def _cut(self) -> None:
        if self not in self.connections:
            return
        if self.transport.get_write_buffer_size():  # it still reads its answer; STALLED_SECONDS bounds that
            self.loop.call_later(FAREWELL_SECONDS, self._cut)
        else:
            self.transport.abort()

    def _look(self) -> None:
        """One timer a connection, however many requests: it looks whether a deadline has passed."""
        now = self.loop.time()
        waiting_for_client = (self._in_message and not self._deaf) or not self._turns
        if not waiting_for_client or self.flow.read_paused or now < self._deadline:
            left = self._deadline - now if waiting_for_client and now < self._deadline else self._period
            self._watch = self.loop.call_later(min(left, self._period), self._look)
        elif self._in_message and not self._deaf:
            seconds = self._limits.header_seconds
            self._refuse(
                TooSlow(f"The request did not come whole in time: send it, or the next {BODY_STEP >> 10} KiB of it, within {seconds:g} s.")
            )
        else:
            self.transport.close()
