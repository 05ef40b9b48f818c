"""Step 3: large bodies are read beside the loop, as they would be on it; keys take turns, and a reader that dies costs
one call a 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.admission import openai, reading_process
from router.admission.body_reader import LARGE, Connection, InPlace, Job, Reader
from router.admission.openai import Asked
from router.admission.routes import ROUTES
from router.errors import BodyTooLarge, RouterError, Unavailable
from tests.router_world import KEY, request, until, world

LONG = "x" * (LARGE + 1)
NOISE = json.dumps(
    {"messages": [{"role": "user", "content": "".join(random.Random(0).choices("abcdefgh ", k=LARGE))}]}
).encode()


class Beside:
    """The reading process, in threads of this one: what it does on its side of a socket is the same."""

    def __init__(self) -> None:
        self.started = self.dies_before = 0
        self.may_go = threading.Event()
        self.may_go.set()
        self.threads: list[threading.Thread] = []

    async def connect(self) -> Connection:
        ours, theirs = socket.socketpair()
        self.started += 1
        run = theirs.close if self.started <= self.dies_before else lambda: self._serve(theirs)
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        return await asyncio.open_unix_connection(sock=ours)

    def _serve(self, connection: socket.socket) -> None:
        self.may_go.wait()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            reading_process.serve(connection)


@contextlib.asynccontextmanager
async def beside() -> AsyncIterator[tuple[Beside, Reader]]:
    there = Beside()
    reader = Reader(there.connect)
    try:
        yield there, reader
    finally:
        there.may_go.set()
        reader.close()
        for thread in there.threads:
            await asyncio.to_thread(thread.join)


def body(**fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": LONG}], **fields}).encode()


MEDIA = [
    {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": "https://h.example/a.png"}},
            {"type": "text", "text": LONG},
        ],
    }
]
CASES = [
    body(), body(stream=True, n=3, model="tiny"), body(prompt_logprobs=1), body(messages=MEDIA), body(colour="red"), body(n=0), b"[]", b"{" + LONG.encode(),
    b"\xff" * (LARGE + 1), body(messages=None), body(model=None), body(model="\u00e9\ud800"),
]  # fmt: skip


@pytest.mark.parametrize("content", CASES)
@pytest.mark.parametrize("packed", ["", "gzip"])
def test_beside_the_loop_a_body_is_what_it_is_on_it(content: bytes, packed: str) -> None:
    sent = gzip.compress(content) if packed else content
    route = ROUTES["chat/completions"]
    told, plain = reading_process.answer(json.loads(json.dumps(reading_process.question(route, packed, 1 << 20))), sent)
    found = reading_process.understood(json.loads(json.dumps(told)))
    try:
        asked = openai.read(content, route)
    except RouterError as error:
        assert isinstance(found, RouterError) and type(found) is type(error)
        assert (found.message, found.param, found.status) == (error.message, error.param, error.status)
        return
    assert isinstance(found, Asked) and found.wants == asked.wants
    assert (found.model, found.stream, found.sequences, found.choices) == (
        asked.model,
        asked.stream,
        asked.sequences,
        asked.choices,
    )
    onward = b"".join(openai.body_for("tiny", found, plain or content, openai.own_field("cache_salt", "s")))
    assert json.loads(onward) == json.loads(
        b"".join(openai.body_for("tiny", asked, content, openai.own_field("cache_salt", "s")))
    )


def test_what_is_too_large_once_it_is_unpacked_is_413() -> None:
    told, _ = reading_process.answer(
        reading_process.question(ROUTES["completions"], "gzip", 1000), gzip.compress(bytes(2000))
    )
    assert isinstance(reading_process.understood(told), BodyTooLarge)


@pytest.mark.parametrize("packed", [False, True])
async def test_a_large_body_is_served(packed: bool) -> None:
    async with beside() as (there, reader), world(reader=reader) as w:
        content = gzip.compress(NOISE) if packed else NOISE
        reply = await w.ask(body=content, headers=("content-encoding: gzip",) if packed else ())
        assert reply.status == 200 and there.started == 1
        assert json.loads(w.replica.requests[0].body)["messages"] == json.loads(NOISE)["messages"]
        assert w.router.uploads.used == 0
        assert (await w.ask(body=gzip.compress(b"{}"), headers=("content-encoding: gzip",))).status == 400
        assert (await w.ask(body=body(colour="red"))).error["param"] == "colour"
        assert (await w.ask()).status == 200 and there.started == 1


async def test_while_one_is_read_others_are_served_and_it_counts_as_coming_in() -> None:
    async with beside() as (there, reader), world(reader=reader) as w:
        there.may_go.clear()
        client = await w.client()
        client.send(request(body=NOISE))
        await until(lambda: there.started == 1)
        assert (await w.ask()).status == 200
        assert w.router.uploads.used == len(NOISE)
        there.may_go.set()
        assert (await client.answer()).status == 200


async def test_who_leaves_or_must_give_way_meanwhile_is_not_served() -> None:
    async with beside() as (there, reader), world(reader=reader, max_uploading=3 * len(NOISE) // 2) as w:
        there.may_go.clear()
        leaves, gives_way = await w.client(), await w.client()
        leaves.send(request(body=NOISE))
        await until(lambda: w.router.uploads.used == len(NOISE))
        leaves.leave()
        await until(lambda: w.router.uploads.used == 0)
        gives_way.send(request(body=NOISE))
        await until(lambda: w.router.uploads.used == len(NOISE))
        w.router.uploads._give_way(next(iter(w.router.uploads._user)))
        assert (await gives_way.answer()).error["code"] == "queue_full"
        there.may_go.set()
        assert (await w.ask(body=NOISE)).status == 200
        assert len(w.replica.requests) == 1


async def test_a_reader_that_dies_costs_one_call_a_503() -> None:
    async with beside() as (there, reader), world(reader=reader) as w:
        there.dies_before = 1
        reply = await w.ask(body=NOISE)
        assert reply.status == 503 and "again" in reply.error["message"]
        assert (await w.ask(body=NOISE)).status == 200 and there.started == 2


WHAT_NONE_SAYS = [
    reading_process.SIZES.pack(3, 0) + b"[1]",
    reading_process.SIZES.pack(2, 0) + b"{]",
    reading_process.SIZES.pack(2, 0) + b"{}",
    reading_process.SIZES.pack(4, 0) + b"null",
    reading_process.SIZES.pack(20000, 0) + b"[" * 20000,
    reading_process.SIZES.pack(15, 0) + b'{"error":"Bad"}',
    reading_process.SIZES.pack(2, 1 << 31) + b"{}",
]


@pytest.mark.parametrize("said", WHAT_NONE_SAYS)
async def test_one_that_says_nonsense_is_ended_and_who_waits_is_read_by_the_next(said: bytes) -> None:
    async with beside() as (there, reader):
        good, heard = there.connect, list[object]()

        async def connect() -> Connection:
            if there.started:
                return await good()
            there.started += 1
            ours, theirs = socket.socketpair()
            theirs.sendall(said)
            there.threads.append(threading.Thread(target=_until_it_is_closed, args=(theirs,)))
            there.threads[-1].start()
            return await asyncio.open_unix_connection(sock=ours)

        reader._connect = connect
        for _ in range(2):
            job = Job(ROUTES["completions"], "", 1000, b'{"prompt": "a"}', lambda asked, _: heard.append(asked))
            reader.read("k", job)
        await until(lambda: len(heard) == 2)
        assert isinstance(heard[0], Unavailable) and isinstance(heard[1], Asked) and there.started == 2


def _until_it_is_closed(theirs: socket.socket) -> None:
    with theirs:
        while theirs.recv(1 << 16):
            pass


async def test_a_fault_of_ours_leaves_nobody_waiting() -> None:
    async def connect() -> Connection:
        raise AssertionError("a fault")

    heard: list[object] = []
    reader = Reader(connect)
    for _ in range(3):
        reader.read("k", Job(ROUTES["completions"], "", 1000, b"{}", lambda asked, _: heard.append(asked)))
    working = reader._working
    assert working is not None
    with pytest.raises(AssertionError, match="a fault"):
        await working
    await until(lambda: len(heard) == 3)
    assert all(isinstance(each, Unavailable) for each in heard)
    reader.close()


async def test_one_that_cannot_be_started_is_503() -> None:
    async def connect() -> Connection:
        raise OSError("no more processes")

    heard: list[object] = []
    reader = Reader(connect)
    reader.read("k", Job(ROUTES["completions"], "", 1000, b"{}", lambda asked, _: heard.append(asked)))
    await until(lambda: heard)
    assert isinstance(heard[0], Unavailable)


async def test_keys_take_turns_and_who_is_gone_is_passed_over() -> None:
    order: list[str] = []

    def job(name: str) -> Job:
        return Job(ROUTES["completions"], "", 1000, b'{"prompt": "a"}', lambda asked, _: order.append(name))

    async with beside() as (there, reader):
        there.may_go.clear()
        gone = job("gone")
        for user, each in (
            ("a", job("a0")),
            ("a", job("a1")),
            ("a", gone),
            ("a", job("a2")),
            ("b", job("b0")),
            ("c", job("c0")),
        ):
            reader.read(user, each)
        gone.cancel()
        there.may_go.set()
        await until(lambda: len(order) == 5)
        assert order == ["a0", "b0", "c0", "a1", "a2"]


def test_in_place_it_is_told_at_once() -> None:
    heard: list[tuple[object, bytes]] = []
    InPlace().read(
        KEY, Job(ROUTES["completions"], "", 1000, b'{"prompt": "a", "n": 2}', lambda *told: heard.append(told))
    )
    [(asked, plain)] = heard
    assert isinstance(asked, Asked) and asked.sequences == 2 and plain == b'{"prompt": "a", "n": 2}'
