"""The gate: the last word on a replica's slots, and the only door to its engine. Step 11.

It is an ASGI application around vLLM's own. It lets through the routes Pilotlight serves and no other: vLLM has control
routes that must not face anybody. It refuses before any work what is over the limit or comes while draining, and tells
the agent its depth. It puts the engine's own token counts into the answer: a header on JSON answers, an SSE comment in
the last event of streams (`streams.py`). Routers that were refused ask here for a turn (`line.py`). It keeps no state
of a request beyond the exchange. It fails closed: a complete answer that nobody counted says `none`, never 0. A slot is
given back before anything else that follows an exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from runtime.serving.line import Line
from runtime.serving.streams import STREAMS, Stream
from runtime.serving.usage import Counts, Journal
from runtime.tasks import BY_PATH, Route
from runtime.wire import ROUTER_HEADER, SEQUENCES_HEADER, TURN_HEADER, TURN_PATH, WAITED_HEADER

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN = frozenset({"/metrics", "/health"})
DISK_FULL = (
    b'{"error":{"message":"This node\'s disk is full, and nothing more can be written down for it. Make room there, and try again.",'
    b'"type":"server_error","param":null,"code":"disk_full"}}'
)

log = structlog.get_logger()


class Gate:
    """The ASGI application in front of vLLM's own: slots, turns, counts and the drain of one replica."""

    def __init__(
        self,
        app: App,
        *,
        slots: int,
        journal: Journal,
        on_depth: Callable[[int], None],
        on_left: Callable[[list[str]], None],
    ) -> None:
        """`on_left` hears of sequences that the engine still works on when the exchange they are for is over."""
        self._app = app
        self._slots = slots
        self._journal = journal
        self._on_depth = on_depth
        self._on_left = on_left
        self.in_flight = (
            0  # sequences: a request with several choices or prompts takes as many slots, at most all of them
        )
        self.draining = False
        self.line = Line(lambda: slots - self.in_flight)
        self._on_empty: Callable[[], None] = lambda: None

    def drain(self, on_empty: Callable[[], None]) -> None:
        """Admit nothing more; `on_empty` is called once nothing runs any more."""
        self.draining, self._on_empty = True, on_empty
        self.line.end()
        if self.in_flight == 0:
            on_empty()

    def reopen(self) -> None:
        """Admit again."""
        self.draining, self._on_empty = False, lambda: None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path in OPEN:
            await self._app(scope, receive, send)
        elif path == TURN_PATH:
            await self._turn(scope, receive, send)
        elif (route := BY_PATH.get(path)) is None:
            await _answer(
                send,
                404,
                b'{"error":{"message":"no such route","type":"invalid_request_error","param":null,"code":null}}',
            )
        elif self.draining:
            await _refuse(send, b"draining")
        elif self._journal.full:
            await _answer(send, 503, DISK_FULL)
        elif (
            not self.line.redeem(scope["headers"], TURN_HEADER.encode())
            and self.in_flight + self.line.promised >= self._slots
        ):
            await _refuse(send, b"full")
        else:
            await self._admit(route, scope, receive, send)

    async def _admit(self, route: Route, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One free slot is enough to come in, whatever it takes: what it has too many waits in the engine, behind its
        own.
        """
        sequences = min(_sequences(scope), self._slots)
        self.in_flight += sequences
        self._on_depth(self.in_flight)
        request_id = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        self._journal.begun(request_id)
        try:
            await self._app(
                scope, receive, _metered(_in_form(send, STREAMS[route.form]), self._journal, request_id, route)
            )
        finally:
            self.in_flight -= sequences  # first: whatever happens behind it, the slot is given back
            self.line.give()
            self._on_depth(self.in_flight)
            if left := self._journal.ended(request_id):
                self._on_left(left)
            if self.draining and self.in_flight == 0:
                self._on_empty()

    async def _turn(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer when it is this router's turn, or nobody's any more; one that leaves gives its place up."""
        place = None if self.draining else self.line.join(_seconds(scope), _said(scope, ROUTER_HEADER))
        if place is None:
            await _refuse(send, b"draining" if self.draining else b"full")
            return
        leaving: asyncio.Future[Any] = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait([place, leaving], return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() or not place.done():
                self.line.leave(place)
            elif turn := place.result():
                await _answer(send, 200, b"{}", (TURN_HEADER.encode(), turn.encode()))
            else:
                await _refuse(send, b"draining")
        except asyncio.CancelledError:
            self.line.leave(place)
            raise
        finally:
            leaving.cancel()


async def _left(receive: Receive) -> None:
    """Returns when the caller has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _seconds(scope: MutableMapping[str, Any]) -> float:
    """How long the router's oldest request has waited; what is not a number counts as 0."""
    said = _said(scope, WAITED_HEADER)
    return float(said) if said.replace(".", "", 1).isdecimal() and said.isascii() else 0.0


def _sequences(scope: MutableMapping[str, Any]) -> int:
    """What is not a number, or 0, counts as 1."""
    said = _said(scope, SEQUENCES_HEADER)
    return max(1, int(said)) if said.isascii() and said.isdecimal() and len(said) < 10 else 1


def _said(scope: MutableMapping[str, Any], header: str) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == header.encode()), "")


def _metered(send: Send, journal: Journal, request_id: str, route: Route) -> Send:
    """Wrap `send` so that the engine's counts travel with the answer.

    1. Not a stream: whole with its head. An error is not billed.
    2. An error event in a stream: what was delivered before it is billed, and without its last word nobody takes it for
       a whole answer.
    3. The last word of a stream: the counts with it.
    4. A stream that ends without one, and without an error: as 2.
    """
    streaming = broken = over = False
    stream = STREAMS[route.form]

    def final_counts() -> bytes:
        counted = journal.settle(request_id) if route.counted else Counts()
        if counted is None:
            log.error("an answer that nobody counted", action="usage_uncounted", request_id=request_id)
        return counts_header(counted)

    def head(message: Message) -> Message:
        nonlocal streaming
        headers = list(message.get("headers", ()))
        streaming = _is_stream(message)
        if streaming:
            return message
        if message["status"] >= 400:  # 1
            journal.void(request_id)
        headers.append((b"x-pilotlight-usage", counts_header(Counts()) if message["status"] >= 400 else final_counts()))
        return {**message, "headers": headers}

    def body(message: Message) -> Message:
        nonlocal broken, over
        event = message.get("body", b"")
        if stream.breaks(event):
            if not broken:
                log.warning(
                    "the engine broke an answer off",
                    action="answer_broken",
                    request_id=request_id,
                    event_bytes=len(event),
                )
            broken, event = True, stream.retold(event)
            message = {**message, "body": event}
        if over or not (stream.ends(event) or not message.get("more_body", False)):
            return message
        over = True
        if broken or not stream.ends(event):  # 2, 4
            return {**message, "body": stream.broken(event, counts_header(journal.so_far(request_id)))}
        return {**message, "body": stream.counted(event, final_counts())}  # 3

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = head(message)
        elif streaming:
            message = body(message)
        await send(message)

    return sending


def _in_form(send: Send, stream: Stream) -> Send:
    """Where the engine's answers of this API have in their `usage` what the API does not: without it. The head of one
    that is no stream waits for its body, whose length it has.
    """
    if not stream.lists_turns:
        return send
    head: Message | None = None
    parts: list[bytes] = []

    async def sending(message: Message) -> None:
        nonlocal head
        if message["type"] == "http.response.start" and not _is_stream(message):
            head = message
        elif head is None:
            await send(message)
        else:
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                body = stream.without_turns(b"".join(parts))
                others = [field for field in head["headers"] if field[0] != b"content-length"]
                await send({**head, "headers": [*others, (b"content-length", b"%d" % len(body))]})
                await send({**message, "body": body})

    return sending


def _is_stream(head: Message) -> bool:
    kind = next((value for name, value in head.get("headers", ()) if name == b"content-type"), b"")
    return bool(kind.startswith(b"text/event-stream"))


def counts_header(counts: Counts | None) -> bytes:
    """ "INPUT;CACHED;OUTPUT", in tokens; "none" where nobody counted them."""
    return b"none" if counts is None else b"%d;%d;%d" % counts


async def _refuse(send: Send, why: bytes) -> None:
    body = b'{"error":{"message":"this replica is %s","type":"server_error","param":null,"code":"%s"}}' % (why, why)
    await _answer(send, 503, body, (b"x-pilotlight-refused", why))


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
