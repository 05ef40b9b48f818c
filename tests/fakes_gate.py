"""A replica whose gate is the real one, served by uvicorn as in production; only the engine behind it is a stand-in."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn

from pilotlight.frames import split
from runtime.serving.gate import Gate
from runtime.serving.line import PROMISE_SECONDS, Line, Place
from runtime.serving.usage import Counts, Journal
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
