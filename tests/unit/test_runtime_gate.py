"""The gate: slots, draining, the allow-list, and the counts in the answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from runtime.serving.streams import MESSAGES, OPENAI, RESPONSES, Stream
from runtime.serving.usage import MOST_KEPT, Counts
from runtime.wire import SEQUENCES_HEADER
from tests.fakes_gate import call, make


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
    for path in (
        "/pause",
        "/update_weights",
        "/invocations",
        "/v1/load_lora_adapter",
        "/docs",
        "/metrics/x",
        "/v1/models",
        "/tokenize",
    ):
        assert (await call(gate, path))[0] == 404
    assert engine.seen == []


async def test_a_json_answer_carries_the_engines_counts(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path)
    engine.go.set()
    _, headers, _ = await call(gate)
    assert headers[b"x-pilotlight-usage"] == b"4;1;2"


async def test_a_whole_answer_of_the_responses_api_has_no_usage_but_that_apis(tmp_path: Path) -> None:
    """And its head says how long it is."""
    gate, engine, _ = make(tmp_path)
    engine.answer = b'{"output":[],"usage":{"input_tokens":4,"input_tokens_details":{"cached_tokens":1,"input_tokens_per_turn":[4]}}}'
    engine.go.set()
    _, headers, body = await call(gate, "/v1/responses")
    assert body == b'{"output":[],"usage":{"input_tokens":4,"input_tokens_details":{"cached_tokens":1}}}'
    assert (headers[b"content-length"], headers[b"x-pilotlight-usage"]) == (b"%d" % len(body), b"4;1;2")


async def test_a_stream_carries_them_before_its_end(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path, stream=True)
    engine.go.set()
    _, headers, body = await call(gate)
    assert b"x-pilotlight-usage" not in headers
    assert body == b'data: {"x":1}\n\n: pilotlight-usage 4;1;2\ndata: [DONE]\n\n'
    assert (tmp_path / "j").read_text().count("\n") == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("sequences", "closes"), [(0, True), (1, False), (2, False)])
async def test_a_whole_answer_that_nobody_counted_says_none_and_never_nothing(
    tmp_path: Path, stream: bool, sequences: int, closes: bool
) -> None:
    gate, engine, _ = make(tmp_path, stream=stream, sequences=sequences)
    engine.closes = closes
    engine.go.set()
    _, headers, body = await call(gate)
    if stream:
        assert body.endswith(b": pilotlight-usage none\ndata: [DONE]\n\n")
    else:
        assert headers[b"x-pilotlight-usage"] == b"none"


async def test_a_stream_that_ends_in_an_error_is_not_whole_and_what_was_delivered_is_told(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path, stream=True, broken=True)
    engine.closes = False  # its engine core is dead: nothing will be closed
    engine.go.set()
    _, _, body = await call(gate)
    assert body.endswith(OPENAI.retold(b"") + b": pilotlight-usage 4;1;2 broken\n")
    assert b'"engine"' not in body, "its own words are for operators"
    assert engine.left == ["0_s"]


CREATED, DELTA = (
    b'event: response.created\ndata: {"a":1}\n\n',
    b'event: response.output_text.delta\ndata: {"delta":"x"}\n\n',
)
COMPLETED, FAILED = (b'event: response.%s\ndata: {"response":{}}\n\n' % word for word in (b"completed", b"failed"))
START, STOP, ERROR = (
    b'event: %s\ndata: {"type":"y"}\n\n' % word for word in (b"message_start", b"message_stop", b"error")
)


@pytest.mark.parametrize(
    ("path", "events", "last"),
    [
        ("/v1/responses", [CREATED, DELTA, COMPLETED], COMPLETED[:-1] + b": pilotlight-usage 4;1;2\n\n"),
        ("/v1/responses", [CREATED, DELTA, FAILED], RESPONSES.retold(FAILED) + b": pilotlight-usage 4;1;2 broken\n"),
        ("/v1/responses", [CREATED, DELTA], DELTA + b": pilotlight-usage 4;1;2 broken\n"),
        ("/v1/messages", [START, STOP], STOP[:-1] + b": pilotlight-usage 4;1;2\n\n"),
        ("/v1/messages", [START, ERROR], MESSAGES.retold(ERROR) + b": pilotlight-usage 4;1;2 broken\n"),
        ("/v1/messages", [START], START + b": pilotlight-usage 4;1;2 broken\n"),
        ("/v1/chat/completions", [DELTA], DELTA + b": pilotlight-usage 4;1;2 broken\n"),
    ],
)
async def test_every_apis_stream_tells_its_counts_once_at_its_own_end(
    tmp_path: Path, path: str, events: list[bytes], last: bytes
) -> None:
    gate, engine, _ = make(tmp_path, stream=True)
    engine.events = events
    engine.go.set()
    _, _, body = await call(gate, path)
    assert body.endswith(last) and body.count(b"pilotlight-usage") == 1
    assert not any(frame.startswith(b":") and b"data:" not in frame for frame in body.split(b"\n\n")[:-1]), (
        "a comment that stands alone"
    )


@pytest.mark.parametrize("stream", [OPENAI, RESPONSES, MESSAGES])
@pytest.mark.parametrize(
    ("event", "code"),
    [
        (b'data: {"error": {"message": "cuda", "type": "InternalServerError", "code": 500}}\n\n', "upstream_error"),
        (
            b'data: {"error": {"message": "bad grammar /var/x", "type": "BadRequestError", "code": 400}}\n\n',
            "invalid_value",
        ),
        (
            b'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"cuda"}}\n\n',
            "upstream_error",
        ),
        (
            b'event: response.failed\ndata: {"type":"response.failed","response":{"error":{"message":"cuda"}}}\n\n',
            "upstream_error",
        ),
        (b"event: error\ndata: no json\n\n", "upstream_error"),
        (b"data: [1]\n\n", "upstream_error"),
    ],
)
def test_an_engines_error_in_a_stream_is_told_in_our_words_and_its_apis_form(
    stream: Stream, event: bytes, code: str
) -> None:
    told = stream.retold(event)
    assert told.endswith(b"\n\n") and told.count(b"\n\n") == 1 and stream.breaks(told)
    fields = json.loads(told.partition(b"data: ")[2])
    assert (
        fields["error"]["code"] == code
        and fields["error"]["param"] is None
        and "cuda" not in str(fields)
        and "/var" not in str(fields)
    )
    assert (fields.get("type") == "error") == (stream is not OPENAI)


async def test_what_no_model_works_for_is_counted_as_nothing(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path, sequences=0)
    engine.go.set()
    _, headers, _ = await call(gate, "/v1/messages/count_tokens")
    assert headers[b"x-pilotlight-usage"] == b"0;0;0"


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
async def test_an_error_costs_nothing_and_leaves_no_line(tmp_path: Path, status: int) -> None:
    gate, engine, _ = make(tmp_path, status=status)
    engine.go.set()
    _, headers, _ = await call(gate)
    assert headers[b"x-pilotlight-usage"] == b"0;0;0"
    assert (tmp_path / "j").read_bytes() == b""


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_disk_breaks_no_answer_and_keeps_no_slot(tmp_path: Path, stream: bool) -> None:
    gate, engine, depths = make(tmp_path, stream=stream, file="/dev/full")
    engine.go.set()
    empty: list[None] = []
    for _ in range(3):  # one slot: each needs the one before to have given it back
        status, headers, body = await call(gate)
        assert status == 200 and b"4;1;2" in (body if stream else headers[b"x-pilotlight-usage"])
    assert depths == [1, 0] * 3
    gate.drain(lambda: empty.append(None))
    assert empty


async def test_with_as_many_unwritten_lines_as_may_be_it_begins_nothing(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path, file="/dev/full")
    engine.go.set()
    for number in range(1, MOST_KEPT + 1):
        engine.journal.opened(f"{number}_s", f"cmpl-{number:032x}-0", Counts)
        engine.journal.closed(f"{number}_s", "stop")
    status, headers, body = await call(gate)
    assert status == 503 and b"disk_full" in body and b"x-pilotlight-refused" not in headers, (
        "it is told why, not sent elsewhere"
    )
    assert engine.seen == []


async def test_an_app_that_fails_gives_its_slot_back(tmp_path: Path) -> None:
    gate, _, depths = make(tmp_path)

    async def fails(*_: Any) -> None:
        raise RuntimeError("vLLM's own")

    gate._app = fails
    with pytest.raises(RuntimeError):
        await call(gate)
    assert (gate.in_flight, depths) == (0, [1, 0])


@pytest.mark.parametrize(
    ("said", "taken"),
    [(b"3", 3), (b"128", 4), (b"0", 1), (b"", 1), (b"-1", 1), (b"1e9", 1), (b"9" * 5000, 1), ("٣".encode(), 1)],
)
async def test_a_request_takes_as_many_slots_as_it_says_and_gives_them_back(
    tmp_path: Path, said: bytes, taken: int
) -> None:
    gate, engine, depths = make(tmp_path, slots=4)
    first = asyncio.ensure_future(call(gate, headers=[(SEQUENCES_HEADER.encode(), said)]))
    await asyncio.sleep(0)
    assert gate.in_flight == taken
    others = [asyncio.ensure_future(call(gate)) for _ in range(4)]
    await asyncio.sleep(0)
    engine.go.set()
    refused = sum([(await other)[0] == 503 for other in others])
    assert (refused, (await first)[0]) == (taken, 200)
    assert (gate.in_flight, depths[-1]) == (0, 0)


async def test_one_free_slot_is_enough_to_come_in(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path, slots=4)
    running = [asyncio.ensure_future(call(gate, headers=[(SEQUENCES_HEADER.encode(), b"3")])) for _ in range(2)]
    await asyncio.sleep(0)
    assert gate.in_flight == 6
    engine.go.set()
    assert [(await each)[0] for each in running] == [200, 200]
