"""A replica whose gate is the real one, served by uvicorn as in production; only the engine behind it is a stand-in."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from pilotlight.frames import split
from runtime.serving.gate import Gate
from runtime.serving.line import PROMISE_SECONDS, Line, Place
from runtime.serving.usage import Counts, Journal
from runtime.wire import TURN_HEADER
from tests.fakes import Changes


class WatchedLine(Line):
    joined: Callable[[], None] = staticmethod(lambda: None)

    def join(self, waited: float, router: str = "") -> Place | None:
        place = super().join(waited, router)
        self.joined()
        return place


class GatedReplica(Changes):
    """Each request runs until `finish`, or for `seconds` where they are given. `order` has the request ids as they
    began, `traces` what their callers called them (`traceparent`). Who joins the line is waited for as all that
    happens; a turn is kept for `promise_seconds`.
    """

    def __init__(
        self, address: str, *, slots: int, seconds: float | None = None, promise_seconds: float = PROMISE_SECONDS
    ) -> None:
        super().__init__()
        self.address, self.slots, self.seconds = address, slots, seconds
        self.order: list[str] = []
        self.traces: list[str] = []
        self.running: dict[str, asyncio.Event] = {}
        self.most_running = 0
        self._folder = tempfile.TemporaryDirectory(prefix="pl")
        self._journal = Journal(
            str(Path(self._folder.name) / "journal"), "p", grown=lambda: None, later=lambda seconds, callback: None
        )
        self.gate = Gate(
            self._engine, slots=slots, journal=self._journal, on_depth=lambda _: self._change(), on_left=lambda _: None
        )
        self.gate.line = WatchedLine(lambda: slots - self.gate.in_flight, promise_seconds=promise_seconds)
        self.gate.line.joined = self._change
        config = uvicorn.Config(self.gate, lifespan="off", log_config=None, access_log=False, ws="none")
        config.load()
        self._config = config
        self._server: asyncio.Server | None = None

    async def start(self) -> GatedReplica:
        from uvicorn.server import ServerState

        state, loop = ServerState(), asyncio.get_running_loop()
        make: Any = self._config.http_protocol_class
        self._server = await loop.create_unix_server(
            lambda: make(self._config, state, {}, loop), split(self.address)[1]
        )
        return self

    async def stop(self) -> None:
        for run in self.running.values():
            run.set()
        assert self._server is not None
        self._server.close()
        self._folder.cleanup()

    def finish(self) -> None:
        """The request that began first ends."""
        next(iter(self.running.values())).set()

    async def _engine(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        request_id = headers[b"x-request-id"].decode()
        self.order.append(request_id)
        self.traces.append(headers.get(b"traceparent", b"").decode())
        self.running[request_id] = run = asyncio.Event()
        self.most_running = max(self.most_running, len(self.running))
        self._change()
        self._journal.opened(request_id, request_id, lambda: Counts(1, 0, 1))
        leaving = asyncio.ensure_future(_left(receive))
        ending = asyncio.ensure_future(run.wait())
        try:
            await asyncio.wait({leaving, ending}, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            ending.cancel()
            del self.running[request_id]
            self._journal.closed(request_id, "stop")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"choices":[]}'})


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


ID = "0123456789abcdef0123456789abcdef"


Message = MutableMapping[str, Any]


class Engine:
    """Stands for vLLM's app: answers when told to. `sequences`: so many are opened, and closed if `closes`; `broken`:
    an error event ends its stream.
    """

    def __init__(
        self, journal: Journal, *, stream: bool = False, status: int = 200, sequences: int = 1, broken: bool = False
    ) -> None:
        self.journal, self.stream, self.status, self.sequences, self.broken = journal, stream, status, sequences, broken
        self.closes = True
        self.answer = b"{}"
        self.events: list[bytes] = []  # of its stream, where they are not those of a chat
        self.go = asyncio.Event()
        self.seen: list[str] = []
        self.left: list[str] = []  # what the gate says is left over

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        self.seen.append(scope["path"])
        for number in range(self.sequences):
            self.journal.opened(f"{number}_s", f"chatcmpl-{ID}", lambda: Counts(4, 1, 2))
        await self.go.wait()
        for number in range(self.sequences if self.closes else 0):
            self.journal.closed(f"{number}_s", "stop")
        kind = b"text/event-stream; charset=utf-8" if self.stream else b"application/json"
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"content-type", kind)]})
        error = [b'data: {"error": {"message": "engine"}}\n\n'] if self.broken else []
        for piece in (
            [*(self.events or [b'data: {"x":1}\n\n', *error, b"data: [DONE]\n\n"])] if self.stream else [self.answer]
        ):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def call(
    gate: Gate, path: str = "/v1/chat/completions", *, headers: Sequence[tuple[bytes, bytes]] = ()
) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "path": path, "headers": [(b"x-request-id", ID.encode()), *headers]}
    await gate(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])


def make(tmp_path: Path, *, slots: int = 1, file: str = "", **options: Any) -> tuple[Gate, Engine, list[int]]:
    journal = Journal(file or str(tmp_path / "j"), "r1", grown=lambda: None, later=lambda seconds, callback: None)
    engine = Engine(journal, **options)
    depths: list[int] = []
    return (
        Gate(engine, slots=slots, journal=journal, on_depth=depths.append, on_left=engine.left.extend),
        engine,
        depths,
    )


def named(turn: str | None) -> list[tuple[bytes, bytes]]:
    return [(TURN_HEADER.encode(), (turn or "").encode())]
