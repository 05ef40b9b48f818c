"""A part that trickles is given up; one that is slow because the whole way is, is not; and what is given up is asked
for anew, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from snapshots.errors import Unreachable
from snapshots.manifest import CHUNK
from snapshots.store import stall
from snapshots.store.s3 import Bucket
from snapshots.store.stall import Pace
from tests.simulated_loop import simulated

SECONDS = 0.02
LONG = 5.0  # s, after which it would wait for ever


@dataclass(eq=False)
class Part:
    length: int = 0


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stall, "PATIENCE", SECONDS)
    monkeypatch.setattr(stall, "SLOWEST", 1000)
    yield


@simulated
async def test_what_is_read_in_time_is_done() -> None:
    work = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(SECONDS / 4, work.set_result, 1)
    assert await Pace().keeps(work, Part(), 0)


@simulated
async def test_a_part_alone_that_trickles_is_given_up() -> None:
    work, part = asyncio.get_running_loop().create_future(), Part()

    async def trickle() -> None:
        while True:
            part.length += 1
            await asyncio.sleep(SECONDS / 10)

    trickling = asyncio.create_task(trickle())
    assert not await asyncio.wait_for(Pace().keeps(work, part, 0), LONG)
    trickling.cancel()


@simulated
async def test_a_part_that_has_its_share_of_a_slow_way_is_waited_for_and_one_that_has_not_is_given_up() -> None:
    loop, shared, parts = asyncio.get_running_loop(), Pace(), [Part() for _ in range(4)]
    works = [loop.create_future() for _ in parts]

    async def flow() -> None:
        while True:
            for part in parts[1:]:
                part.length += 50
            parts[0].length += 1
            await asyncio.sleep(SECONDS / 10)

    flowing = asyncio.create_task(flow())
    waits = [asyncio.create_task(shared.keeps(work, part, 0)) for work, part in zip(works, parts, strict=True)]
    assert not await asyncio.wait_for(waits[0], LONG)
    await asyncio.sleep(2 * SECONDS)
    assert not any(wait.done() for wait in waits[1:])
    for work in works[1:]:
        work.set_result(None)
    assert all(await asyncio.gather(*waits[1:]))
    flowing.cancel()


class Body:
    """An answer of which a byte comes now and then."""

    def __init__(self, *, trickles: bool) -> None:
        self.trickles, self.pieces = trickles, [b"good", b""]

    async def __aenter__(self) -> Body:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read(self, size: int) -> bytes:
        if self.trickles:
            await asyncio.sleep(SECONDS / 10)
            return b"."
        return self.pieces.pop(0)


class Client:
    """Of a store none of whose signed links leads anywhere, so that the general way is taken."""

    def __init__(self, *, trickles: bool, body: Any = None) -> None:
        self.trickles, self.body, self.asked = trickles, body, 0

    async def generate_presigned_url(self, *_: object, **__: object) -> str:
        return "http://127.0.0.1:1/x"

    async def get_object(self, **_: object) -> dict[str, object]:
        self.asked += 1
        return {"Body": self.body or Body(trickles=self.trickles)}


@pytest.mark.parametrize("trickles", [True, False])
async def test_the_general_way_is_as_impatient_and_names_the_chunk(
    trickles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(trickles=trickles)
    bucket, into = Bucket(client, "models", ""), memoryview(bytearray(4000))
    try:
        if trickles:
            says = f"s3://models/sha256-a+/model.safetensors comes too slowly from {CHUNK} to {CHUNK + 4000}"
            with pytest.raises(Unreachable, match=says):
                await bucket.fill("sha256:" + "a" * 64, "model.safetensors", CHUNK, into)
        else:
            assert await bucket.fill("sha256:" + "a" * 64, "model.safetensors", CHUNK, into) == 4
            assert bytes(into[:4]) == b"good"
    finally:
        bucket.close()
    assert client.asked == 1


class Endless(Body):
    """An answer without a length, of a store that knows no ranges and sends for ever."""

    sent = 0

    async def read(self, size: int) -> bytes:
        self.sent += size
        assert self.sent < 1 << 30, "nobody stops"
        return bytes(size)


async def test_an_answer_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "PATIENCE", LONG)
    body = Endless(trickles=False)
    bucket, into = Bucket(Client(trickles=False, body=body), "models", ""), memoryview(bytearray(1 << 20))
    try:
        assert await bucket.fill("sha256:" + "a" * 64, "model.safetensors", 0, into) == 0, "as good as nothing"
        assert body.sent < 1 << 22
        assert await bucket.manifest("sha256:" + "a" * 64) == b""
    finally:
        bucket.close()
