"""Sends one request to one replica and streams the answer back. Step 11; knows neither uvicorn nor ASGI.

    head ──_begin──→ raw, framed: passed on ──complete──────→ over
      │       ├────→ refused: by the gate ────undelivered───→ over
      │       └────→ collect: an error ───────engine_refused→ over
      └─ (before) lost on a kept connection: once more, on a new one; else, and from every state: failed

What the replica sends is passed on raw, chunk framing included, wherever a segment is whole chunks. Else whole chunks
are framed anew and the rest waits for its end. So a stream can always be closed properly behind the last whole event.
Of its head only what is on a list goes on. An answer that is no 200 is read to its end and told in our own words
(`engine_words.py`).

Failures to survive: a gate that refuses and a replica that cannot be reached (back to the hold, unnoticed). A kept
connection had gone stale: one retry, on a new one. A replica dies before or within its answer.
"""

from __future__ import annotations

import asyncio
from typing import Literal, Protocol

from router.errors import RouterError, UpstreamError
from router.hold.pool import Pool, Upstream
from router.hold.slot import Mark
from router.relay.answer import EVENTS, JSON, Answer, lines_of
from router.relay.meter import has_last_event, reported_tokens
from router.spool.record import Tokens
from runtime.forms import TOKEN, Form

MOST_CARRIED = 256 << 10  # bytes of one unfinished chunk; a longer one is passed on in parts
MOST_COLLECTED = 64 << 10  # bytes of an error's body
_PASSED = frozenset({b"content-length", b"transfer-encoding", b"date"})  # of a replica's head
_REFRAMED = _PASSED - {b"transfer-encoding"}  # where its body is framed anew
KINDS = (b"application/json", b"text/event-stream")  # of a replica's body


class Handler(Protocol):
    """Who had the request sent. Of `undelivered`, `engine_refused`, `failed` and `complete` exactly one is called,
    unless it calls `stop`.
    """

    def response_headers(self) -> bytes:
        """The replica's head is here. Returns the lines to put behind the status line."""

    def first_byte(self) -> None:
        """The first of the body is here."""

    def timing_comment(self) -> bytes:
        """The same as a comment, for a stream whose head went out before."""

    def undelivered(self, mark: Mark) -> None:
        """The replica never had the request: it may go elsewhere."""

    def engine_refused(self, status: int, body: bytes) -> None:
        """The engine's answer is an error, whole."""

    def failed(self, error: RouterError) -> None:
        """There will be no whole answer."""

    def complete(self, status: int, tokens: Tokens | None, last: bytes) -> None:
        """The answer is whole with its `last` bytes, which are for the handler to write."""


class Relay:
    """One request at one replica."""

    __slots__ = (
        "_answer", "_begun", "_body", "_connecting", "_form", "_handler", "_mode", "_paused", "_pool", "_refusal", "_request", "_retried",
        "broken", "upstream",
    )  # fmt: skip

    def __init__(self, request: bytes, pool: Pool, answer: Answer, handler: Handler, form: Form = "openai") -> None:
        self._form = form
        self._request = request
        self._pool = pool
        self._answer = answer
        self._handler = handler
        self.upstream: Upstream | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._retried = False
        self._begun = False
        self._paused = False
        self.broken = False  # the replica has closed the connection before its answer was whole
        self._mode: Literal["head", "raw", "framed", "refused", "collect", "over"] = "head"
        self._refusal: Mark = "full"
        self._body = b""

    def start(self) -> None:
        """Send the request: at once where a connection is idle."""
        upstream = self._pool.reuse()
        if upstream is not None:
            self._send(upstream)
        else:
            self._connect()

    def stop(self) -> None:
        """The answer is not wanted any more: close the connection, so that the replica stops its work."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self.upstream is not None:
            self.upstream.abort(self)

    def pause(self) -> None:
        """The client does not keep up."""
        self._paused = True
        if self.upstream is not None:
            self.upstream.pause()

    def resume(self) -> None:
        self._paused = False
        if self.upstream is not None:
            self.upstream.resume()

    def _connect(self) -> None:
        self._connecting = asyncio.get_running_loop().create_task(self._connected(), name="connect to replica")

    async def _connected(self) -> None:
        try:
            upstream = await self._pool.connect()
        except (OSError, ValueError):  # AddressError is a ValueError, TimeoutError an OSError
            self._connecting = None
            self._handler.undelivered("dead")
            return
        self._connecting = None
        self._send(upstream)

    def _send(self, upstream: Upstream) -> None:
        self.upstream = upstream
        upstream.send(self, self._request, TOKEN[self._form])
        if self._paused:
            upstream.pause()

    # The upstream's news

    def received(self, upstream: Upstream, segment: bytes, head: bool) -> None:
        out = self._begin(upstream) if head else b""
        mode = self._mode
        if mode == "over":  # its owner has heard of it
            return
        if mode == "raw" and (upstream.aligned or not upstream.chunked):
            upstream.pieces.clear()
            upstream.complete = 0
            out = out + segment if out else segment
        elif mode == "raw" or mode == "framed":
            out += self._answer.framed(self._taken(upstream), last=upstream.done)
        else:
            self._swallow(upstream)
            return
        if segment and not self._begun:
            self._begun = True
            self._handler.first_byte()
        if upstream.done:
            self._handler.complete(upstream.status, reported_tokens(upstream), out)
        elif out:
            self._answer.write(out)

    def lost(self, upstream: Upstream, why: str, *, closed: bool) -> None:
        """There is no more.

        1. A kept connection that was stale: once more, on a new one.
        2. A stream that had said its last word: it is whole, only the last chunk is missing.
        3. All else is for the client to know.
        """
        if closed and upstream.reused and not upstream.heard and not self._retried:  # 1
            self._retried = True
            self.upstream = None
            self._connect()
            return
        if self._mode in ("raw", "framed") and self._answer.streaming and has_last_event(upstream):  # 2
            last = self._answer.framed(b"".join(upstream.read(partial=True)), last=True)
            self._handler.complete(upstream.status, reported_tokens(upstream), last)
            return
        self.broken = closed
        when = "before it answered" if self._mode == "head" else "within its answer"  # 3
        self._handler.failed(UpstreamError(f"The replica {why} {when}. Send the request again."))

    def _begin(self, upstream: Upstream) -> bytes:
        """The replica's head is here. Returns what the client gets of it.

        1. The gate refused before any work: nothing; the request goes back.
        2. Neither a length nor chunks: the end could not be told from a death, so it is an error.
        3. An error, or what is neither JSON nor a stream: nothing yet.
        4. Our own head went out while the request was held: a comment; what is no stream becomes an error event.
        5. A head of ours, with what is passed on of the replica's.
        """
        fields, status = dict(upstream.headers), upstream.status
        if status == 503 and b"x-pilotlight-refused" in fields:  # 1
            self._mode = "refused"
            self._refusal = "draining" if fields[b"x-pilotlight-refused"] == b"draining" else "full"
            return b""
        if not upstream.chunked and b"content-length" not in fields and status not in (204, 304):  # 2
            self._mode = "over"
            upstream.abort(self)
            self._handler.failed(
                UpstreamError("The replica answered without a length. Its engine's server must send one, or chunks.")
            )
            return b""
        kind = fields.get(b"content-type", b"").lower()
        if status != 200 or not kind.startswith(KINDS):  # 3
            self._mode = "collect"
            return b""
        streaming = kind.startswith(KINDS[1])
        ours = self._handler.response_headers()
        self._request = b""  # it will not be sent again
        if self._answer.committed:  # 4
            self._mode = "framed" if streaming else "collect"
            return self._answer.framed(self._handler.timing_comment()) if streaming else b""
        self._mode = "raw" if self._answer.sink.chunked or not upstream.chunked else "framed"  # 5
        wanted = _PASSED if self._mode == "raw" else _REFRAMED
        passed = lines_of([field for field in upstream.headers if field[0] in wanted])
        endless = streaming and upstream.chunked  # one with a length has no room for an event of ours
        return self._answer.head(status, ours, EVENTS if streaming else JSON, passed, streaming=endless)

    def _taken(self, upstream: Upstream) -> bytes:
        partial = not self._answer.streaming or not upstream.chunked or sum(map(len, upstream.pieces)) > MOST_CARRIED
        return b"".join(upstream.read(partial=partial))

    def _swallow(self, upstream: Upstream) -> None:
        """An answer the client does not get as it is: a refusal, or an error after our own head."""
        self._body = (self._body + b"".join(upstream.read(partial=True)))[:MOST_COLLECTED]
        if not upstream.done:
            return
        if self._mode == "refused":
            self._handler.undelivered(self._refusal)
        else:
            self._handler.engine_refused(upstream.status, self._body)
