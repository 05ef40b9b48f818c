"""The gate: slots, draining, the allow-list, and the counts in the answer."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from runtime.gate import Gate
from runtime.usage import Journal

ID = "0123456789abcdef0123456789abcdef"
Message = MutableMapping[str, Any]


class Engine:
    """Stands for vLLM's app: answers when told to."""

    def __init__(self, journal: Journal, *, stream: bool = False) -> None:
        self.journal, self.stream = journal, stream
        self.go = asyncio.Event()
        self.seen: list[str] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        self.seen.append(scope["path"])
        self.journal.opened(f"chatcmpl-{ID}")
        await self.go.wait()
        self.journal.closed(f"chatcmpl-{ID}", input_tokens=4, cached_tokens=1, output_tokens=2, finish="stop")
        kind = b"text/event-stream; charset=utf-8" if self.stream else b"application/json"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for piece in [b'data: {"x":1}\n\n', b"data: [DONE]\n\n"] if self.stream else [b"{}"]:
            await send({"type": "http.response.body", "body": piece})


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


def make(tmp_path: Path, *, slots: int = 1, stream: bool = False) -> tuple[Gate, Engine, list[int]]:
    journal = Journal(str(tmp_path / "j"), "r1", lambda: None)
    engine = Engine(journal, stream=stream)
    depths: list[int] = []
    return Gate(engine, slots=slots, journal=journal, on_depth=depths.append), engine, depths


async def test_over_the_limit_it_refuses_before_any_work(tmp_path: Path) -> None:
    gate, engine, depths = make(tmp_path)
    first = asyncio.ensure_future(call(gate))
    await asyncio.sleep(0)
    status, headers, _ = await call(gate)
    assert (status, headers[b"x-pilotlight-refused"]) == (503, b"full")
    assert len(engine.seen) == 1
    engine.go.set()
    assert (await first)[0] == 200
    assert depths == [1, 0]


async def test_draining_refuses_and_tells_when_empty(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path)
    running = asyncio.ensure_future(call(gate))
    await asyncio.sleep(0)
    empty: list[None] = []
    gate.drain(lambda: empty.append(None))
    assert (await call(gate))[1][b"x-pilotlight-refused"] == b"draining"
    assert not empty
    engine.go.set()
    assert (await running)[0] == 200
    assert len(empty) == 1


async def test_an_empty_gate_drains_at_once(tmp_path: Path) -> None:
    gate, _, _ = make(tmp_path)
    empty: list[None] = []
    gate.drain(lambda: empty.append(None))
    assert len(empty) == 1


async def test_a_gate_that_drained_can_be_opened_again(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path)
    empty: list[None] = []
    gate.drain(lambda: empty.append(None))
    gate.reopen()
    engine.go.set()
    assert (await call(gate))[0] == 200
    assert len(empty) == 1, "what ended since is nobody's drain"


async def test_only_what_we_serve_is_let_through(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path)
    for path in ("/pause", "/update_weights", "/invocations", "/v1/load_lora_adapter", "/docs"):
        assert (await call(gate, path))[0] == 404
    assert engine.seen == []


async def test_a_json_answer_carries_the_engines_counts(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path)
    engine.go.set()
    _, headers, _ = await call(gate)
    assert headers[b"x-pilotlight-usage"] == b"4;1;2"


async def test_a_stream_carries_them_before_its_end(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path, stream=True)
    engine.go.set()
    _, headers, body = await call(gate)
    assert b"x-pilotlight-usage" not in headers
    assert body == b'data: {"x":1}\n\n: pilotlight-usage 4;1;2\n\ndata: [DONE]\n\n'
    assert (tmp_path / "j").read_text().count("\n") == 1
