"""Stand-ins for what fails on purpose, speaking the real protocols: a replica, an activator, a ledger.

They listen on real sockets and keep an account of their own (tokens emitted, requests aborted), so that a test compares
the router with an independent oracle. Nothing here sleeps to wait: `FakeReplica.until` and `Heard.until` wait for the
event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import activator.wire as activator_wire
import router.ledger.wire as ledger_wire
from activator.wire import Demand, EndpointRow, RouterHello, Table, ToActivator
from pilotlight.frames import Frame, FrameStream, serve, split
from router.ledger.wire import Policy, ToLedger, WorkerHello
from runtime.wire import TURN_HEADER, TURN_PATH


class Die(Exception):
    """Raised by an answer: the replica's connection breaks here."""


@dataclass
class FakeRequest:
    path: str
    headers: dict[str, str]
    body: bytes
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")


Answer = Callable[[FakeRequest], AsyncIterator[bytes]]


class Changes:
    """Something whose changes can be waited for."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()

    def _change(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._notifying = asyncio.ensure_future(notify())

    async def until(self, true: Callable[[], bool], *, seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(true)


class FakeReplica(Changes):
    """A gate and its engine: JSON and SSE, `tokens` words an answer. `answer` replaces what it says, per request.

    `emitted` counts the tokens that left for each request id; `aborted` names those whose caller closed the connection
    while they were served; `stopped_while_serving` says whether `stop` came too early.
    """

    def __init__(self, address: str, *, slots: int = 64, tokens: int = 3) -> None:
        super().__init__()
        self.address, self.slots, self.tokens = address, slots, tokens
        self.answer: Answer = self.talk
        self.refusals: list[str] = []  # the next requests are refused with these
        self.has_line = True
        self.pause = 0.0  # seconds between tokens
        self.requests: list[FakeRequest] = []
        self.emitted: dict[str, int] = {}
        self.aborted: set[str] = set()
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.stopped_while_serving = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> FakeReplica:
        _, path, _ = split(self.address)
        self._server = await asyncio.start_unix_server(self._connection, path)
        return self

    async def stop(self) -> None:
        self.stopped_while_serving = self.stopped_while_serving or self.in_flight > 0
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def end(self, *, seconds: float = 20.0) -> None:
        """A fixture's way to stop it: whoever has left must have left no call behind that it still serves."""
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: not self.in_flight, seconds=seconds)
        await self.stop()
        assert not self.stopped_while_serving, "a call goes on at the replica though nobody waits for it"

    async def drop_connections(self) -> None:
        """Close every connection, as a server does with those that are idle too long."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def talk(self, request: FakeRequest) -> AsyncIterator[bytes]:
        """What a gate around vLLM says."""
        usage = f"5;2;{self.tokens}"
        if request.path == "/v1/embeddings":
            body = json.dumps(
                {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}]}
            ).encode()
            yield json_answer(200, body, "x-pilotlight-usage: 5;2;0\r\n")
            return
        words = [f"w{n} " for n in range(self.tokens)]
        if not request.fields.get("stream"):
            self.emitted[request.request_id] = self.tokens
            body = json.dumps(
                {"object": "chat.completion", "choices": [{"message": {"content": "".join(words)}}]}
            ).encode()
            yield json_answer(200, body, f"x-pilotlight-usage: {usage}\r\n")
            return
        yield SSE_HEAD
        yield chunk(event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))
        for word in words:
            if self.pause:
                await asyncio.sleep(self.pause)
            self.emitted[request.request_id] = self.emitted.get(request.request_id, 0) + 1
            yield chunk(event({"choices": [{"delta": {"content": word}}]}))
        yield chunk(b": pilotlight-usage %s\ndata: [DONE]\n\n" % usage.encode()) + b"0\r\n\r\n"

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (request := await read_request(reader)) is not None:
                await self._serve(request, reader, writer)
        except (Die, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            self._change()

    async def _serve(self, request: FakeRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.path == TURN_PATH:
            await self._stand(reader, writer)
            return
        self.requests.append(request)
        self._change()
        if self.refusals:
            reason = self.refusals.pop(0)
            writer.write(json_answer(503, b'{"error":{"message":"no"}}', f"x-pilotlight-refused: {reason}\r\n"))
            return
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        saying = asyncio.ensure_future(self._say(request, writer))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({saying, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not saying.done():
                assert await leaving == b"", "the router sent more than its request"
                self.aborted.add(request.request_id)
                raise Die
            saying.result()
        finally:
            self.in_flight -= 1
            for work in (saying, leaving):
                work.cancel()
            await asyncio.gather(saying, leaving, return_exceptions=True)
            self._change()

    async def _stand(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A place in the line: a turn at once, or none where `has_line` is false, as in the release before."""
        if self.has_line:
            writer.write(json_answer(200, b"{}", f"{TURN_HEADER}: t\r\n"))
        else:
            writer.write(json_answer(404, b'{"error":{"message":"no such route"}}'))

    async def _say(self, request: FakeRequest, writer: asyncio.StreamWriter) -> None:
        async for piece in self.answer(request):
            writer.write(piece)
            await writer.drain()


SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def json_answer(status: int, body: bytes, headers: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode()
        + body
    )


def event(fields: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def read_request(reader: asyncio.StreamReader) -> FakeRequest | None:
    """One request with a content-length; None at the caller's end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
    except asyncio.IncompleteReadError:
        return None
    return FakeRequest(lines[0].split(" ")[1], headers, body, json.loads(body or b"{}"))


class _Peer(Changes):
    """What our own kind of server has heard, and whom it can tell."""

    receives: Any
    alive: Frame

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.heard: list[Frame] = []
        self.streams: list[FrameStream[Any]] = []
        self.latest: dict[FrameStream[Any], Frame] = {}  # of each that is connected
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await serve(self.address, self.receives, self._greet)

    async def stop(self) -> None:
        """Away: nobody listens, and every connection is closed."""
        assert self._server is not None
        self._server.close()
        for stream in self.streams:
            stream.close()

    def tell(self, *frames: Frame) -> None:
        for stream in self.streams:
            stream.send(*frames)

    def _first(self) -> tuple[Frame, ...]:
        return ()

    async def _greet(self, stream: FrameStream[Any]) -> None:
        self.streams.append(stream)
        stream.send(*self._first())
        beating = asyncio.create_task(self._beat(stream))
        try:
            async for frame in stream:
                self.heard.append(frame)
                self.latest[stream] = frame
                self._change()
        finally:
            beating.cancel()
            self.latest.pop(stream, None)
            with contextlib.suppress(ValueError):
                self.streams.remove(stream)

    async def _beat(self, stream: FrameStream[Any]) -> None:
        while True:
            await asyncio.sleep(1.0)
            stream.send(self.alive)


class FakeActivator(_Peer):
    """Tells every router the same whole table when it connects; `push` sends deltas."""

    receives = ToActivator
    alive = activator_wire.Alive()

    def __init__(self, address: str, *endpoints: EndpointRow, epoch: int = 1) -> None:
        super().__init__(address)
        self.endpoints = {row.name: row for row in endpoints}
        self.epoch, self.sequence = epoch, 1

    def push(self, *rows: EndpointRow, removed: tuple[str, ...] = ()) -> None:
        self.sequence += 1
        self.endpoints.update({row.name: row for row in rows})
        for name in removed:
            self.endpoints.pop(name, None)
        self.tell(Table(epoch=self.epoch, sequence=self.sequence, whole=False, endpoints=rows, removed=removed))

    @property
    def demand(self) -> dict[str, int]:
        """What the router said last."""
        return next((frame.requests for frame in reversed(self.heard) if isinstance(frame, Demand)), {})

    @property
    def acknowledged(self) -> int:
        return max((frame.table_sequence for frame in self.heard if isinstance(frame, Demand)), default=0)

    def acknowledging(self, sequence: int) -> int:
        """How many of the routers that are connected have this table, or a later one."""
        return sum(isinstance(frame, Demand) and frame.table_sequence >= sequence for frame in self.latest.values())

    @property
    def routers(self) -> list[str]:
        return [frame.router_id for frame in self.heard if isinstance(frame, RouterHello)]

    def _first(self) -> tuple[Frame, ...]:
        return (Table(epoch=self.epoch, sequence=self.sequence, whole=True, endpoints=tuple(self.endpoints.values())),)


class FakeLedger(_Peer):
    """Gives every worker the same policy."""

    receives = ToLedger
    alive = ledger_wire.Alive()

    def __init__(self, address: str, policy: Policy | None = None) -> None:
        super().__init__(address)
        self.policy = policy

    def push(self, policy: Policy) -> None:
        self.policy = policy
        self.tell(policy)

    @property
    def workers(self) -> list[str]:
        return [frame.worker_id for frame in self.heard if isinstance(frame, WorkerHello)]

    def _first(self) -> tuple[Frame, ...]:
        return (self.policy,) if self.policy is not None else ()


class Admin(FakeReplica):
    """Stands in for the admin process: one answer, after it has seen the request."""

    async def talk(self, request: FakeRequest) -> Any:
        yield b"HTTP/1.1 201 Created\r\nx-own: yes\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok"
