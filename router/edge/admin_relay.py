"""Passes a request under `/api` on to the admin process over its socket, and the answer back, both as they come.

Step 1, the other branch. Each request has a connection of its own: nobody pages through usage ten thousand times a
second, and nothing can have gone stale. Three failures to survive. The admin process is away or dies: 503 as long as
nothing was answered, else the connection breaks. It answers before it has read all. A client leaves a long answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable

import httptools
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from pilotlight.frames import split
from router.admission import encoding
from router.errors import NotReady, UnsupportedEncoding

CONNECT_SECONDS = 5.0
READ_BYTES = 64 << 10
_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"}
)  # fmt: skip
# never the client's word
_OURS = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-real-ip"})
# though `Connection` names them: a body without its length would be a second request
_KEPT = frozenset({b"content-length", b"host"})
_AWAY = "The admin API is not running. Start it (`pilotlight up` does), and try again."


class AdminRelay:
    """An ASGI application. `address` is the admin process's; `refused` hears the status of each answer that is an
    error.
    """

    def __init__(self, address: str, *, refused: Callable[[int], None]) -> None:
        self._address, self._refused = split(address), refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if encoding.named(request.headers.get("content-encoding", "").encode("latin-1")):
            raise UnsupportedEncoding(
                "The admin API takes no compressed bodies. Send it plain, without Content-Encoding."
            )
        try:
            reader, writer = await self._connect()
        except (OSError, TimeoutError) as error:
            raise NotReady(_AWAY) from error
        try:
            with contextlib.suppress(ConnectionError):  # it has answered already, and reads no more
                await _pass_on(request, writer)
            await _first_of(self._pass_back(reader, send, bodiless=request.method == "HEAD"), _disconnected(receive))
        except ClientDisconnect:
            return  # amid its own body
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        scheme, host, port = self._address
        async with asyncio.timeout(CONNECT_SECONDS):
            return await (
                asyncio.open_unix_connection(host) if scheme == "unix" else asyncio.open_connection(host, port)
            )

    async def _pass_back(self, reader: asyncio.StreamReader, send: Send, *, bodiless: bool) -> None:
        """Raises NotReady where there is no answer, ConnectionError where there is half of one."""
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        started = False
        while not answer.done:
            try:
                data = await reader.read(READ_BYTES)
                parser.feed_data(data)
            except (ConnectionError, httptools.HttpParserError) as error:
                raise _broken(started) from error
            if not data:
                raise _broken(started)
            if answer.begun and not started:
                started, status = True, parser.get_status_code()
                if status >= 400:
                    self._refused(status)
                await send({"type": "http.response.start", "status": status, "headers": answer.headers})
            if started and bodiless:
                break
            if answer.body:
                await send({"type": "http.response.body", "body": b"".join(answer.body), "more_body": True})
                answer.body.clear()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _pass_on(request: Request, writer: asyncio.StreamWriter) -> None:
    """Head and body, no faster than they are read. A body whose length was not told is framed anew."""
    named = {
        name.strip().encode("latin-1") for name in request.headers.get("connection", "").lower().split(",")
    }  # hop by hop, it says
    headers = [(name, value) for name, value in request.headers.raw if name not in _HOP | _OURS | (named - _KEPT)]
    client = request.client.host if request.client else ""
    headers += [
        (b"x-forwarded-for", client.encode()),
        (b"x-forwarded-proto", request.url.scheme.encode()),
        (b"connection", b"close"),
    ]
    sized, chunked = "content-length" in request.headers, "transfer-encoding" in request.headers
    if chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    lines = [
        b"%b %b HTTP/1.1" % (request.method.encode(), _target(request.scope)),
        *(b"%b: %b" % field for field in headers),
    ]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
    if sized or chunked:
        async for piece in request.stream():
            if piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
    await writer.drain()


def _target(scope: Scope) -> bytes:
    path: bytes = re.sub(b"/+", b"/", scope["raw_path"])
    return path + b"?" + scope["query_string"] if scope["query_string"] else path


class _Answer:
    """What httptools finds in the bytes of an answer."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.begun = self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() not in _HOP:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.begun = True

    def on_body(self, piece: bytes) -> None:
        self.body.append(piece)

    def on_message_complete(self) -> None:
        self.done = True


def _broken(started: bool) -> Exception:
    return ConnectionError("the admin process broke off its answer") if started else NotReady(_AWAY)


async def _disconnected(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


async def _first_of(*works: Awaitable[None]) -> None:
    """Until one has ended. The others are cancelled; its error is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
