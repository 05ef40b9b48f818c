"""Step 12 at the router: an answer that nobody counted, one that ended in an error, and how a call began that no
replica had.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pilotlight.exposition import text
from tests.fakes import SSE_HEAD, FakeRequest, chunk, event, json_answer
from tests.router_world import World, endpoint_row, world

LAST = b"0\r\n\r\n"


def uncounted(w: World) -> float:
    line = next(
        line
        for line in text(w.router.metrics.collect()).splitlines()
        if line.startswith("pilotlight_router_uncounted_answers_total")
    )
    return float(line.rsplit(" ", 1)[1])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said", ["none", "", "garbage", "1;2", "-1;0;0"])
async def test_a_whole_answer_that_nobody_counted_is_an_error_and_never_0_of_the_engines(
    stream: bool, said: str
) -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            if not stream:
                yield json_answer(200, b"{}", f"x-pilotlight-usage: {said}\r\n" if said else "")
                return
            yield SSE_HEAD + chunk(event({"choices": [{"delta": {"content": "a"}}]}))
            yield chunk((b": pilotlight-usage %s\n\n" % said.encode() if said else b"") + b"data: [DONE]\n\n") + LAST

        w.replica.answer = answer
        assert (await w.ask(stream=stream)).status == 200
        [end] = await w.ends()
        assert (end["finish"], end["count_source"], end["input_tokens"], end["output_tokens"]) == (
            "complete",
            "none",
            0,
            0,
        )
        assert uncounted(w) == 1.0


async def test_what_is_counted_or_no_whole_answer_is_no_such_error() -> None:
    async with world() as w:
        await w.ask(stream=True)
        await w.ask()

        async def refuse(_: FakeRequest) -> AsyncIterator[bytes]:
            yield json_answer(400, b"{}", "x-pilotlight-usage: 0;0;0\r\n")

        w.replica.answer = refuse
        assert (await w.ask()).status == 400
        assert uncounted(w) == 0.0


async def test_a_stream_that_the_engine_broke_off_has_no_done_and_costs_what_it_made() -> None:
    async with world() as w:
        error = event({"error": {"message": "EngineCore encountered an issue."}})

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield SSE_HEAD + chunk(event({"choices": [{"delta": {"content": "a"}}]})) + chunk(error)
            yield chunk(b": pilotlight-usage 7;0;37 broken\n\n") + LAST

        w.replica.answer = answer
        reply = await w.ask(stream=True)
        assert reply.body.count(b'data: {"error"') == 1 and b"[DONE]" not in reply.body
        [end] = await w.ends()
        assert (end["finish"], end["status"], end["count_source"]) == ("upstream_error", 200, "engine")
        assert (end["input_tokens"], end["output_tokens"]) == (7, 37)
        assert uncounted(w) == 0.0


async def test_a_models_words_are_no_count() -> None:
    """Not even where it says all of it: what it says is inside of JSON, where a line never ends."""
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            text = "\n: pilotlight-usage 0;0;0 broken\n\n"
            yield SSE_HEAD + chunk(event({"choices": [{"delta": {"content": text}}]})) + LAST

        w.replica.answer = answer
        await w.ask(stream=True)
        [end] = await w.ends()
        assert (end["finish"], end["count_source"]) == ("complete", "none"), "it ended without its counts"


# How a call began that no replica had


async def left(w: World) -> None:
    client = await w.client()
    client.post(stream=True)
    await w.wait_held(1)
    client.leave()


async def timed_out(w: World) -> None:
    client = await w.client()
    client.post(headers=("prefer: wait=0",))
    assert (await client.answer()).status == 503


async def failed(w: World) -> None:
    client = await w.client()
    client.post()
    await w.wait_held(1)
    [replica] = [endpoint.revisions["r1"].row for endpoint in w.table.endpoints.values()]
    w.show(endpoint_row(*replica.replicas, failure="out of memory"))
    if not replica.replicas:
        assert (await client.answer()).status == 503
    else:
        client.leave()


@pytest.mark.parametrize("how", [left, timed_out, failed])
@pytest.mark.parametrize("was", ["cold", "warm"])
async def test_who_was_held_and_got_nothing_is_told_as_it_was(how: Any, was: str) -> None:
    async with world() as w:
        if was == "cold":
            w.show(endpoint_row())
        else:  # there is a replica, and no slot
            w.show(endpoint_row(w.row(slots=1)))
            w.replica.pause = 60.0
        busy = await w.client()
        if was == "warm":
            busy.post(stream=True)
            await busy.head()
        await how(w)
        busy.leave()
        [end] = [end for end in await w.ends() if not end["replica_id"]]
        assert (end["start"], [phase["name"] for phase in end["phases"]]) == (was, ["hold"] if was == "cold" else [])
