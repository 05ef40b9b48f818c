"""A stand-in for the engine: it makes tokens at a steady pace and counts them for the journal. It tells each to the
oracle first.

It serves `/v1/completions` with `prompt`, `n`, `max_tokens` and `stream`. Each choice is a sequence of its own, under
the engine id vLLM would give it; choices end at different lengths. A client that goes away is noticed, and aborted,
between two steps.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from loadtests.torture.oracle import Log
from runtime.serving.gate import Message, Receive, Send
from runtime.serving.usage import Counts

STEP_SECONDS = 0.004


class Counted(Protocol):
    """What of a replica's journal an engine calls."""

    def opened(self, sequence_id: str, engine_id: str, counts: Callable[[], Counts]) -> None: ...

    def closed(self, sequence_id: str, finish: str) -> None: ...


@dataclass(eq=False)
class Sequence:
    """One choice of a request."""

    sequence_id: str
    length: int  # tokens it will have
    made: int = 0


@dataclass(eq=False)
class Request:
    request_id: str
    prompt: int  # tokens
    sequences: list[Sequence]
    news: asyncio.Queue[int] = field(default_factory=asyncio.Queue)  # tokens made in a step; -1: done
    prefilled: bool = False

    @property
    def made(self) -> int:
        return sum(sequence.made for sequence in self.sequences)

    def counts(self, sequence: Sequence) -> Counts:
        """What the journal counts of one choice: each knows the prompt."""
        return Counts(self.prompt if self.prefilled else 0, 0, sequence.made)


class Engine:
    """One step after the other while there is work; a step makes a token for each living sequence."""

    def __init__(self, journal: Counted, log: Log, *, stepped: Callable[[], None]) -> None:
        self._journal = journal
        self._log = log
        self._stepped = stepped
        self._running: dict[str, Request] = {}
        self._work = asyncio.Event()

    @property
    def in_work(self) -> int:
        return len(self._running)

    def add(self, request: Request) -> None:
        for sequence in request.sequences:
            self._journal.opened(
                sequence.sequence_id, f"cmpl-{request.request_id}-0", partial(request.counts, sequence)
            )
        self._running[request.request_id] = request
        self._work.set()

    def abort(self, request: Request) -> None:
        """What is not done yet ends here."""
        if self._running.pop(request.request_id, None):
            for sequence in request.sequences:
                if sequence.made < sequence.length:
                    self._journal.closed(sequence.sequence_id, "abort")

    async def run(self) -> None:
        while True:
            await self._work.wait()
            await asyncio.sleep(STEP_SECONDS)
            self._step()
            if not self._running:
                self._work.clear()

    def _step(self) -> None:
        self._stepped()
        requests = list(self._running.values())
        living = {
            request: [sequence for sequence in request.sequences if sequence.made < sequence.length]
            for request in requests
        }
        self._log.step(
            time.monotonic(),
            [
                (request.request_id, 0 if request.prefilled else request.prompt, len(sequences))
                for request, sequences in living.items()
            ],
        )
        for request, sequences in living.items():
            request.prefilled = True
            for sequence in sequences:
                sequence.made += 1
                if sequence.made == sequence.length:
                    self._journal.closed(sequence.sequence_id, "length")
            request.news.put_nowait(len(sequences))
            if all(sequence.made == sequence.length for sequence in request.sequences):
                del self._running[request.request_id]
                request.news.put_nowait(-1)


def lengths(most: int, choices: int) -> list[int]:
    """How long each choice gets: no two neighbours alike, where there is room."""
    return [max(1, most - 3 * (number % 4)) for number in range(choices)]


class App:
    """The engine's server, as ASGI."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        request_id = next(value.decode() for name, value in scope["headers"] if name == b"x-request-id")
        body = json.loads(await _body(receive))
        choices, prompt = int(body.get("n", 1)), str(body["prompt"])
        sequences = [
            Sequence(f"{number}_{request_id}", length)
            for number, length in enumerate(lengths(int(body["max_tokens"]), choices))
        ]
        request = Request(request_id, len(prompt), sequences)
        left = asyncio.ensure_future(_left(receive))
        self._engine.add(request)
        try:
            if body.get("stream"):
                await self._stream(request, left, send)
            else:
                await self._in_one_piece(request, left, send)
        finally:
            left.cancel()
            self._engine.abort(request)

    async def _stream(self, request: Request, left: asyncio.Future[None], send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
            }
        )
        async for tokens in _news(request, left):
            event = b'data: {"choices":[{"index":0,"text":"t"}]}\n\n'
            await send({"type": "http.response.body", "body": event * tokens, "more_body": True})
        if not left.done():
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _in_one_piece(self, request: Request, left: asyncio.Future[None], send: Send) -> None:
        async for _ in _news(request, left):
            pass
        if left.done():
            return
        usage = {
            "prompt_tokens": request.prompt,
            "completion_tokens": request.made,
            "total_tokens": request.prompt + request.made,
        }
        content = json.dumps({"choices": [{"index": 0, "text": "t" * request.made}], "usage": usage}).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": content})


async def _news(request: Request, left: asyncio.Future[None]) -> AsyncIterator[int]:
    """Tokens as they are made; ends when all are, or the client has left."""
    while True:
        got = asyncio.ensure_future(request.news.get())
        either: set[asyncio.Future[Any]] = {got, left}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not got.done():
            got.cancel()
            return
        if got.result() < 0:
            return
        yield got.result()


async def _body(receive: Receive) -> bytes:
    content, more = b"", True
    while more:
        message: Message = await receive()
        content, more = content + message.get("body", b""), message.get("more_body", False)
    return content


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
