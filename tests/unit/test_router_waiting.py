"""Step 5, what a held client hears: nothing, then our head and comments, then the answer or an error event."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from router.relay.keepalive import comment
from runtime.wire import Phase
from tests.fakes import FakeReplica, FakeRequest, json_answer
from tests.router_world import endpoint_row, until, world


def phases_since(seconds: float) -> tuple[Phase, ...]:
    """A replica's start, begun so long ago, that fills a millisecond of place and one of load."""
    begun = time.monotonic() - seconds
    return (Phase(name="place", at=begun, seconds=0.001), Phase(name="load", at=begun + 0.001, seconds=0.001))


async def test_a_cold_start_within_the_silence() -> None:
    async with world() as w:
        w.show(endpoint_row(starting=True))
        client = await w.client()
        client.post(stream=True)
        await w.wait_held(1)
        assert w.changes[-1] == ("r1", True)
        await asyncio.sleep(0.01)  # the start takes a while
        w.show(endpoint_row(w.row(phases=phases_since(0.005))))
        reply = await client.answer()
        assert reply.headers["x-pilotlight-start"] == "cold"
        assert float(reply.headers["x-pilotlight-hold-ms"]) > 0
        timing = reply.headers["server-timing"]
        assert timing.startswith("hold;dur=")
        assert timing.endswith("place;dur=1.0, load;dur=1.0")
        [end] = await w.ends()
        assert [phase["name"] for phase in end["phases"]] == ["hold", "place", "load", "first_token"]
        assert (end["start"], end["hold_ms"] > 0) == ("cold", True)
        assert sum(phase["seconds"] for phase in end["phases"]) * 1000 == pytest.approx(end["first_byte_ms"], abs=0.5)


async def test_an_early_head_then_comments_then_the_answer() -> None:
    async with world(waiting_seconds=0.02) as w:
        w.show(endpoint_row(starting=True, expected_seconds=9.0, phase="load", phase_began_seconds=2.0))
        client = await w.client()
        client.post(stream=True)
        status, headers = await client.head()
        assert (status, headers["content-type"], headers["transfer-encoding"]) == (
            200,
            "text/event-stream; charset=utf-8",
            "chunked",
        )
        assert len(headers["x-request-id"]) == 32
        comments = []
        body = b""
        async for piece in client.chunks():
            if piece.startswith(b": pilotlight phase="):
                comments.append(piece)
            else:
                body += piece
            if len(comments) == 2:
                w.show(endpoint_row(w.row(phases=phases_since(0.005))))
        assert comments[0] in (b": pilotlight phase=load eta=7.0s\n", b": pilotlight phase=load eta=6.9s\n")
        first, _, rest = body.partition(b"\n")
        assert first.startswith(b": pilotlight start=cold hold-ms=")
        assert first.endswith(b"place;dur=1.0, load;dur=1.0")
        assert rest.startswith(b"data: {")
        assert rest.endswith(b"data: [DONE]\n\n")
        [end] = await w.ends()
        assert (end["status"], end["finish"], end["output_tokens"], end["count_source"]) == (
            200,
            "complete",
            3,
            "engine",
        )
        client.post(stream=True)  # the framing was right: the connection lives on
        assert (await client.answer()).headers["x-pilotlight-start"] == "warm"


async def test_a_fetch_is_told_with_how_much_is_done_and_no_rest_is_ever_0() -> None:
    assert comment("fetch", 12.04, 0.637) == b": pilotlight phase=fetch fetched=63% eta=12.0s\n"
    assert comment("canary", 0.01) == b": pilotlight phase=canary eta=0.1s\n"
    assert comment("hold", 0.0) == b": pilotlight phase=hold\n"
    assert comment("place", 0.0, waits_for="memory:\n\n2 GiB") == b": pilotlight phase=place (memory: 2 GiB)\n", (
        "no event of its own"
    )


async def test_a_start_that_waits_for_room_says_why_in_comments_and_at_the_deadline() -> None:
    why = "memory: 2.0 GiB needed, 1.2 GiB free"
    async with world(waiting_seconds=0.02) as w:
        w.show(endpoint_row(hold_seconds=0.2, waits_for=why, phase="place"))
        client = await w.client()
        client.post(stream=True)
        assert (await client.head())[0] == 200
        body = b"".join([piece async for piece in client.chunks()])
        assert b": pilotlight phase=place (%s)\n" % why.encode() in body
        assert why.encode() in body.partition(b"data: ")[2]
        client.post()
        reply = await client.answer()
        assert reply.status == 503 and why in reply.error["message"]
        w.show(endpoint_row(w.row(), waits_for=why))
        client.post()
        assert (await client.answer()).status == 200, "one that serves is asked, whatever another waits for"


async def test_an_early_head_for_http_1_0() -> None:
    async with world(waiting_seconds=0.02) as w:
        w.show(endpoint_row())
        client = await w.client()
        client.post(stream=True, version="1.0")
        status, headers = await client.head()
        assert (status, headers["connection"]) == (200, "close")
        assert "transfer-encoding" not in headers
        w.show(endpoint_row(w.row()))
        raw = await client.closed()
        assert raw.startswith(b": pilotlight phase=hold\n")
        assert raw.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("why", ["failure", "deadline", "removed", "engine"])
async def test_a_failure_after_the_early_head_is_an_event(why: str) -> None:
    async with world(waiting_seconds=0.02) as w:
        w.show(endpoint_row(hold_seconds=0.05 if why == "deadline" else 30.0))
        client = await w.client()
        client.post(stream=True)
        assert (await client.head())[0] == 200
        if why == "failure":
            w.show(endpoint_row(failure="the weights are damaged"))
        elif why == "removed":
            w.show(removed=("tiny",))
        elif why == "engine":

            async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
                yield json_answer(400, b'{"error":{"message":"too long a prompt"}}')

            w.replica.answer = answer
            w.show(endpoint_row(w.row()))
        body = b"".join([piece async for piece in client.chunks()])
        [event] = [line for line in body.split(b"\n") if line.startswith(b"data: ")]
        error = json.loads(event[6:])["error"]
        expected = {
            "failure": "start_failed",
            "deadline": "hold_timeout",
            "removed": "model_not_found",
            "engine": "invalid_value",
        }
        assert error["code"] == expected[why]
        [end] = await w.ends()
        assert end["status"] == 200
        assert (
            end["finish"]
            == {"failure": "upstream_error", "deadline": "timeout", "removed": "refused", "engine": "refused"}[why]
        )


async def test_a_failure_within_the_silence_is_a_proper_status() -> None:
    async with world() as w:
        w.show(endpoint_row(expected_seconds=3.2))
        client = await w.client()
        client.post(stream=True)
        await w.wait_held(1)
        w.show(endpoint_row(failure="no memory", retry_after_seconds=11.5))
        reply = await client.answer()
        assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "start_failed", "12")


async def test_what_is_no_stream_hears_nothing_early() -> None:
    async with world(waiting_seconds=0.01) as w:
        w.show(endpoint_row(hold_seconds=0.05))
        reply = await w.ask()
        assert (reply.status, reply.error["code"]) == (503, "hold_timeout")


async def test_prefer_wait_shortens_and_never_commits() -> None:
    async with world(waiting_seconds=0.01) as w:
        w.show(endpoint_row(expected_seconds=5.0))
        client = await w.client()
        client.post(stream=True, headers=("prefer: respond-async, wait=0",))
        reply = await client.answer()
        assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "hold_timeout", "5")
        client.post(stream=True, headers=("prefer: wait=1",))
        await w.wait_held(1)
        [waiter] = w.table.revisions["r1"].waiting
        assert waiter.deadline - waiter.entered_at == 1.0
        assert waiter._keepalive is None  # type: ignore[attr-defined]
        w.show(endpoint_row(w.row()))
        assert (await client.answer()).status == 200


async def test_the_queue_is_bounded_and_says_so_at_once() -> None:
    async with world() as w:
        w.show(endpoint_row(max_held=1, expected_seconds=4.0))
        client = await w.client()
        client.post()
        await w.wait_held(1)
        reply = await w.ask()
        assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "queue_full", "4")
        w.show(endpoint_row(w.row()))
        assert (await client.answer()).status == 200
        assert sorted(end["finish"] for end in await w.ends()) == ["complete", "refused"]


async def test_comments_go_on_for_who_is_turned_away() -> None:
    async with world(waiting_seconds=0.02) as w:
        w.show(endpoint_row())
        client = await w.client()
        client.post(stream=True)
        assert (await client.head())[0] == 200
        w.replica.refusals = ["draining"]
        w.show(endpoint_row(w.row()))
        await w.replica.until(lambda: bool(w.replica.requests))
        seen = 0
        async for piece in client.chunks():
            seen += piece.startswith(b": pilotlight phase=hold")
            if seen == 3:
                w.show(endpoint_row(w.row(replica_id="p2")))
        assert seen >= 3
        await until(lambda: w.table.revisions["r1"].demand == 0)


async def asks_twice(replica: FakeReplica) -> None:
    most = len(replica.requests) + 2
    await replica.until(lambda: len(replica.requests) >= most)


@pytest.mark.parametrize("why", ["draining", "full", "dead"])
async def test_who_is_turned_away_from_the_warm_path_is_told_as_who_has_waited_all_along(why: str) -> None:
    async with world(waiting_seconds=0.02) as w:
        if why == "dead":
            w.show(endpoint_row(w.row(address=f"unix:{w.folder}/nobody.sock")))
        w.replica.refusals = [why] * 100 if why != "dead" else []
        w.replica.has_line = False  # else its turns would come at once
        client = await w.client()
        client.post(stream=True)
        status, headers = await client.head()  # ours, and early: until now it came with the answer, a cold start later
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        seen, body = 0, b""
        async for piece in client.chunks():
            body += piece
            seen += piece.startswith(b": pilotlight phase=hold")
            if seen == 2:
                # a full one is asked again and again: first none of that is on its way to p1 any more
                if why == "full":
                    w.show(endpoint_row(w.row(replica_id="p2")))
                    await until(lambda: list(w.table.revisions["r1"].replicas) == ["p2"])
                    await asks_twice(w.replica)
                w.replica.refusals = []
                w.show(endpoint_row(w.row(replica_id="p2")))
        assert seen >= 2 and body.endswith(b"data: [DONE]\n\n")
        [end] = await w.ends()
        assert (end["finish"], end["replica_id"], end["hold_ms"] >= 40) == ("complete", "p2", True)


async def test_who_leaves_after_it_was_turned_away_was_at_no_replica() -> None:
    async with world() as w:
        w.replica.refusals = ["draining"]
        client = await w.client()
        client.post(stream=True)
        await w.wait_held(1)
        client.leave()
        [end] = await w.ends()
        assert (end["finish"], end["replica_id"], end["revision_id"], end["count_source"]) == (
            "client_disconnect",
            "",
            "",
            "none",
        )


async def test_prefer_wait_never_commits_for_who_is_turned_away_either() -> None:
    async with world(waiting_seconds=0.01) as w:
        w.replica.refusals = ["draining"]
        reply = await w.ask(stream=True, headers=("prefer: wait=0.05",))
        assert (reply.status, reply.error["code"]) == (503, "hold_timeout")
