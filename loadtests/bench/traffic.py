"""Both ends of the warm-path benchmark: a back end that does as little as can be, and clients that ask again once they
are answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import cast

import httptools

CONNECTIONS = 32
CHUNKS = 200  # of a streamed answer
CHUNK_SECONDS = 0.002  # from one to the next
TICKS = os.sysconf("SC_CLK_TCK")


class Back(asyncio.Protocol):
    """The replica: as little as can be."""

    body = json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"message": {"content": "x" * 150}}], "usage": {}}
    ).encode()
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-pilotlight-usage: 9;0;16\r\ncontent-length: %d\r\n\r\n"
        % len(body)
        + body
    )
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    event = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
    done = b": pilotlight-usage 9;0;200\n\ndata: [DONE]\n\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)
        self.stream = False

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.stream = False

    def on_body(self, body: bytes) -> None:
        self.stream = self.stream or b'"stream": true' in body or b'"stream":true' in body

    def on_message_complete(self) -> None:
        if self.stream:
            self.transport.write(self.head)
            self.left = CHUNKS
            asyncio.get_running_loop().call_soon(self.next_chunk)
        else:
            self.transport.write(self.answer)

    def next_chunk(self) -> None:
        if self.transport.is_closing():
            return
        if self.left:
            self.left -= 1
            self.transport.write(b"%x\r\n%s\r\n" % (len(self.event), self.event))
            asyncio.get_running_loop().call_later(CHUNK_SECONDS, self.next_chunk)
        else:
            self.transport.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(self.done), self.done))


class Caller(asyncio.Protocol):
    """One kept-alive connection that asks again as soon as it is answered."""

    def __init__(
        self, request: bytes, left: list[int], over: asyncio.Event, taken: list[float], gaps: list[float]
    ) -> None:
        self.request = request
        self.left = left
        self.over = over
        self.taken = taken
        self.gaps = gaps

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)
        self.ask()

    def ask(self) -> None:
        if self.left[0] > 0:
            self.left[0] -= 1
            self.asked_at, self.heard_at = time.perf_counter(), 0.0
            self.transport.write(self.request)
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            sys.exit(f"{error.__context__}: {data!r}")

    def on_headers_complete(self) -> None:
        if self.parser.get_status_code() != 200:
            raise ValueError("not the answer expected")

    def on_body(self, body: bytes) -> None:
        now = time.perf_counter()
        if self.heard_at:
            self.gaps.append(now - self.heard_at)
        self.heard_at = now

    def on_message_complete(self) -> None:
        self.taken.append(time.perf_counter() - self.asked_at)
        self.left[1] -= 1
        if self.left[1] == 0:
            self.over.set()
        self.ask()


def cpu_seconds(pid: int, *, ended_children: bool = False) -> float:
    """utime + stime of a process, all its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11 : 15 if ended_children else 13])) / TICKS


async def load(
    port: int | str,
    request: bytes,
    count: int,
    *,
    tls: bool = False,
    connections: int = CONNECTIONS,
    gaps: list[float] | None = None,
) -> tuple[float, list[float]]:
    """Seconds that `count` requests took: together, and each. `port`: or the path of a Unix socket. `gaps`: gets the
    seconds between the parts of each answer.
    """
    loop, left, over, taken = asyncio.get_running_loop(), [count, count], asyncio.Event(), list[float]()
    context = _trusting() if tls else None
    between = list[float]() if gaps is None else gaps
    began = time.perf_counter()
    for _ in range(connections):
        if isinstance(port, str):
            await loop.create_unix_connection(lambda: Caller(request, left, over, taken, between), port)
        else:
            await loop.create_connection(
                lambda: Caller(request, left, over, taken, between), "127.0.0.1", port, ssl=context
            )
    await asyncio.wait_for(over.wait(), 300)
    return time.perf_counter() - began, taken


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def request(key: str, case: str, path: str = "/e/tiny/v1/chat/completions") -> bytes:
    prompt = "hello " * 680 if case == "json4k" else "hello there"
    body = json.dumps(
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 16,
            "stream": case == "stream",
        }
    )
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()
