"""Steps 3, 11 and 12 for `/v1/responses` and `/v1/messages`: what goes to the replica, what comes back, and what is
recorded.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.admission.openai import body_for, own_field, read
from router.admission.routes import ROUTES
from router.errors import BadRequest
from tests.fakes import SSE_HEAD, Die, FakeRequest, chunk, json_answer
from tests.router_world import KEY, endpoint_row, world

RESPONSES, MESSAGES = "/e/tiny/v1/responses", "/e/tiny/v1/messages"
ASK: dict[str, bytes] = {
    RESPONSES: b'{"input":"hi","stream":true}',
    MESSAGES: b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":4,"stream":true}',
}
DELTAS = {
    RESPONSES: b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n',
    MESSAGES: b'event: content_block_delta\ndata: {"type":"content_block_delta"}\n\n',
}
LASTS = {
    RESPONSES: b'event: response.completed\ndata: {"type":"response.completed","x":"%s"}\n: pilotlight-usage 5;2;3\n\n'
    % (b"y" * 500),
    MESSAGES: b'event: message_stop\ndata: {"type":"message_stop"}\n: pilotlight-usage 5;2;3\n\n',
}
BEGINNINGS = {
    RESPONSES: b'event: response.created\ndata: {"a":1}\n\n',
    MESSAGES: b'event: message_start\ndata: {"a":1}\n\n',
}
BOTH = pytest.mark.parametrize("url", [RESPONSES, MESSAGES])


@BOTH
async def test_a_stream_is_passed_on_and_counted_by_its_own_last_event(url: str) -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield SSE_HEAD
            for piece in (BEGINNINGS[url], DELTAS[url], LASTS[url]):
                yield chunk(piece)
            yield b"0\r\n\r\n"

        w.replica.answer = answer
        reply = await w.ask(url=url, body=ASK[url])
        assert reply.body == BEGINNINGS[url] + DELTAS[url] + LASTS[url]
        [end] = await w.ends()
        assert (end["finish"], end["input_tokens"], end["output_tokens"], end["count_source"]) == (
            "complete",
            5,
            3,
            "engine",
        )
        [seen] = w.replica.requests
        assert seen.fields["cache_salt"] and seen.path == url.removeprefix("/e/tiny") and seen.fields["model"] == "tiny"
        if url == RESPONSES:
            assert seen.fields["request_id"] == f"resp_{end['event_id']}", (
                "the engine counts under the id that it is given"
            )


@BOTH
async def test_a_client_that_leaves_at_the_last_event_has_its_whole_answer(url: str) -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield SSE_HEAD + chunk(BEGINNINGS[url]) + chunk(LASTS[url])
            await asyncio.Event().wait()

        w.replica.answer = answer
        client = await w.client()
        client.post(url=url, body=ASK[url])
        await client.reader.readuntil(b"usage 5;2;3\n")
        client.leave()
        [end] = await w.ends()
        assert (end["finish"], end["output_tokens"]) == ("complete", 3)


@BOTH
async def test_a_death_within_a_stream_is_told_in_the_apis_own_words_and_its_tokens_are_counted(url: str) -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield SSE_HEAD + chunk(BEGINNINGS[url]) + chunk(DELTAS[url]) + chunk(DELTAS[url])
            await asyncio.sleep(0)
            raise Die

        w.replica.answer = answer
        reply = await w.ask(url=url, body=ASK[url])
        name, data = reply.body.split(b"\n\n")[-2].split(b"\n")
        told = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: error" and told["type"] == "error" and told["error"]["message"]
        if url == RESPONSES:
            assert (told["code"], told["sequence_number"]) == ("upstream_error", 0) and told["message"] == told[
                "error"
            ]["message"]
        else:
            assert told["error"]["type"] == "overloaded_error"
        [end] = await w.ends()
        assert (end["finish"], end["output_tokens"], end["count_source"]) == ("upstream_error", 2, "relayed")


async def test_errors_of_messages_have_anthropics_shape_and_ours() -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield json_answer(400, b'{"type":"error","error":{"type":"BadRequestError","message":"\'top_k\' is odd."}}')

        w.replica.answer = answer
        for options, status, kind in (
            ({"key": None}, 401, "authentication_error"),
            ({"url": "/e/none/v1/messages"}, 404, "not_found_error"),
            ({"body": b'{"messages":[{}]}'}, 400, "invalid_request_error"),
            ({}, 400, "invalid_request_error"),
        ):
            reply = await w.ask(**{"url": MESSAGES, "body": ASK[MESSAGES], **options})
            assert (reply.status, reply.json["type"], reply.json["error"]["type"]) == (status, "error", kind)
            assert set(reply.json["error"]) == {"message", "type", "param", "code"}
        assert reply.json["error"]["message"] == "'top_k' is odd."


async def test_anthropics_key_header_is_a_key() -> None:
    async with world() as w:
        reply = await w.ask(key=None, headers=(f"x-api-key: {KEY}",))
        assert reply.status == 200
        assert (await w.ask(key=None, headers=("x-api-key: pl_wrong",))).status == 401
        assert (await w.ask(key="pl_wrong", headers=(f"x-api-key: {KEY}",))).status == 401, (
            "the other header counts where both are there"
        )
        assert "x-api-key" not in w.replica.requests[0].headers


@pytest.mark.parametrize(
    ("path", "fields", "param", "code"),
    [
        ("responses", {}, "input", "invalid_value"),
        ("responses", {"input": []}, "input", "invalid_value"),
        ("responses", {"input": [1]}, "input", "invalid_value"),
        ("responses", {"input": 5}, "input", "invalid_value"),
        ("responses", {"input": "x", "previous_response_id": "resp_1"}, "previous_response_id", "invalid_value"),
        ("responses", {"input": "x", "conversation": "c"}, "conversation", "invalid_value"),
        ("responses", {"input": "x", "background": True}, "background", "invalid_value"),
        ("responses", {"input": "x", "request_id": "resp_1"}, "request_id", "invalid_value"),
        ("responses", {"input": "x", "max_output_tokens": -1}, "max_output_tokens", "invalid_value"),
        ("responses", {"input": "x", "stream": 1}, "stream", "invalid_value"),
        ("messages", {"messages": [{"role": "user", "content": "x"}]}, "max_tokens", "invalid_value"),
        ("messages", {"messages": [{}], "max_tokens": 0}, "max_tokens", "invalid_value"),
        ("messages", {"messages": [{}], "max_tokens": True}, "max_tokens", "invalid_value"),
        ("messages", {"messages": [], "max_tokens": 1}, "messages", "invalid_value"),
        ("messages/count_tokens", {"messages": "x"}, "messages", "invalid_value"),
    ],
)
def test_what_is_refused_is_named(path: str, fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(json.dumps(fields).encode(), ROUTES[path])
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":"x"}',
        b' {"input":"x","model":"tiny"}',
        b'{"input":"x","model":null}',
        b'{"store":true,"input":[{"role":"user","content":"x"}]}',
    ],
)
def test_a_response_goes_out_under_the_routers_id_whatever_else_is_there(body: bytes) -> None:
    route = ROUTES["responses"]
    sent = json.loads(b"".join(body_for("tiny", read(body, route), body, own_field("request_id", "resp_" + "1" * 32))))
    assert sent == {**json.loads(body), "model": "tiny", "request_id": "resp_" + "1" * 32}


async def test_what_needs_another_task_wakes_nothing() -> None:
    async with world() as w:
        w.show(endpoint_row(w.row(), task="embed"))
        for url in (RESPONSES, MESSAGES):
            assert (await w.ask(url=url, body=ASK[url])).status == 400
        assert w.replica.requests == []


async def test_a_held_stream_of_theirs_is_told_as_a_chats() -> None:
    async with world(waiting_seconds=0.02) as w:
        w.show(endpoint_row(starting=True))
        client = await w.client()
        client.post(url=MESSAGES, body=ASK[MESSAGES])
        status, headers = await client.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        w.show(endpoint_row(failure="no memory"))
        body = b"".join([piece async for piece in client.chunks()])
        assert json.loads(body.split(b"data: ")[1])["error"]["code"] == "start_failed"
