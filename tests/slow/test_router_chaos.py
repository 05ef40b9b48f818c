"""All at once: clients that leave, replicas that refuse, stall, die and are replaced. Afterwards the books must
balance.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from tests.fakes import Die, FakeReplica, FakeRequest
from tests.router_world import World, endpoint_row, until, world


async def caller(w: World, dice: random.Random, outcomes: list[str]) -> None:
    client = await w.client()
    for _ in range(dice.randint(1, 4)):
        client.post(stream=dice.random() < 0.6, version="1.1")
        asking = asyncio.ensure_future(client.answer())
        if dice.random() < 0.2:
            for _ in range(dice.randint(0, 60)):
                await asyncio.sleep(0)
            asking.cancel()
            client.leave()
            outcomes.append("left")
            return
        try:
            reply = await asking
        except (asyncio.IncompleteReadError, ConnectionError):
            outcomes.append("cut")
            return
        whole = reply.status == 200 and b'"error"' not in reply.body
        outcomes.append("whole" if whole else "told")
        if reply.headers.get("connection") == "close":
            return
    client.writer.close()


@pytest.mark.parametrize("seed", range(3))
async def test_the_books_balance(seed: int) -> None:
    dice = random.Random(seed)
    async with world(waiting_seconds=0.01) as w:
        second = await FakeReplica(f"unix:{w.folder}/s.sock").start()
        for replica in (w.replica, second):

            async def answer(request: FakeRequest, replica: FakeReplica = replica) -> AsyncIterator[bytes]:
                die_at = dice.choice([None] * 8 + [0, 1, 2, 3])
                at = 0
                async for piece in replica.talk(request):
                    if at == die_at:
                        raise Die
                    cut = dice.randint(0, len(piece))
                    yield piece[:cut]
                    await asyncio.sleep(0)
                    if dice.random() < 0.02:
                        raise Die
                    yield piece[cut:]
                    at += 1

            replica.answer = answer
        outcomes: list[str] = []
        calls = [asyncio.ensure_future(caller(w, dice, outcomes)) for _ in range(80)]
        while not all(call.done() for call in calls):
            rows = [w.row(slots=2), w.row(replica_id="p2", address=second.address, slots=3)]
            w.show(endpoint_row(*dice.sample(rows, dice.randint(0, 2)), max_held=60, starting=True))
            if dice.random() < 0.3:
                dice.choice([w.replica, second]).refusals.append(dice.choice(["full", "full", "draining"]))
            if dice.random() < 0.1:
                await second.drop_connections()
            for _ in range(dice.randint(1, 50)):
                await asyncio.sleep(0)
        await asyncio.gather(*calls)
        ends = await w.ends()
        finishes = [end["finish"] for end in ends]
        assert finishes.count("complete") >= outcomes.count("whole") > 20  # who left may have been answered already
        assert outcomes.count("left") > 3
        oracle = w.replica.emitted | second.emitted
        for end in ends:
            if end["finish"] == "complete":
                assert (end["count_source"], end["output_tokens"]) == ("engine", oracle[end["event_id"]])
        await until(lambda: w.router.uploads.used == 0 and w.hold.held_bytes == 0)
        for revision in w.table.revisions.values():
            assert revision.demand == 0
            assert all(replica.in_flight == 0 for replica in revision.replicas.values())
        await second.end()
