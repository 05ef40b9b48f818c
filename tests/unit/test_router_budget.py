"""Steps 1 and 5: a budget of bytes is never passed, and whoever takes most gives way, never one who takes little."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.app import Call
from router.hold.budget import Budget
from router.hold.machine import Memory, Together
from router.ledger.wire import Policy
from tests.router_world import KEY, OTHER_KEY, POLICY, endpoint_row, key_row, raw, request, tell, until, world

AUTH = b"authorization: Bearer %s\r\n"
HEAD = b"POST /e/%s/v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + AUTH


class Books:
    """A budget, and who had to give way."""

    def __init__(self, most: int, **options: object) -> None:
        self.gone: list[str] = []
        self.budget: Budget[str] = Budget(most, give_way=self.gone.append, **options)  # type: ignore[arg-type]


def test_the_largest_users_newest_gives_way() -> None:
    books = Books(100)
    for number in range(9):
        assert books.budget.add("hog", f"h{number}", 10)
    assert books.budget.add("small", "s0", 10)
    assert books.budget.add("small", "s1", 10)
    assert books.gone == ["h8"]
    assert not books.budget.add("hog", "h9", 10), "whoever takes most is refused"
    assert books.budget.used == 100


def test_growing_is_as_coming() -> None:
    books = Books(100)
    assert books.budget.add("hog", "h0", 50)
    assert books.budget.add("small", "s0", 30)
    assert not books.budget.add("hog", "h0", 30)
    assert (books.gone, books.budget.used) == ([], 30)


def test_what_is_gone_makes_room() -> None:
    books = Books(100)
    books.budget.add("a", "a0", 60)
    books.budget.less("a0", 50)
    books.budget.less("unknown", 50)
    assert books.budget.add("b", "b0", 90)
    books.budget.drop("b0")
    books.budget.drop("b0")
    assert books.budget.used == 10


@pytest.mark.parametrize("seed", range(5))
def test_workers_together_never_pass_the_bound_and_each_has_its_own_part(seed: int) -> None:
    dice = random.Random(seed)
    memory = Memory.make(3)
    machines = [Together(memory, index) for index in range(3)]
    workers = [Books(1200, workers=3, shared=machine.uploading) for machine in machines]
    for step in range(400):
        books = dice.choice(workers)
        user, holder, size = dice.choice("abcd"), f"{dice.randrange(40)}", dice.randrange(1, 120)
        if dice.random() < 0.3:
            books.budget.drop(user + holder)
            continue
        sums = dict(books.budget._sums)
        taken = books.budget.add(user, user + holder, size)
        assert sum(each.budget.used for each in workers) <= 1200, step
        if not taken:
            assert sums.get(user, 0) + size > 200 / 4, (
                "of four users, one with a fourth of the worker's own part is never refused"
            )
            assert sum(sums.values()) + size > 200, "within its own part nobody gives way"


class Told(Books):
    """What is told of the future is held to what happens."""

    def add(self, user: str, holder: str, size: int) -> bool:
        before, stays = list(self.budget._user), self.budget.stays(user, holder, size)
        taken = self.budget.add(user, holder, size)
        assert taken == stays
        if not taken:
            assert set(before) - {holder} == set(self.budget._user), "one that is refused has sent nobody away"
        return taken


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 120)), max_size=12),
    st.integers(0, 300),
)
def test_nobody_gives_way_for_one_that_is_refused_itself(steps: list[tuple[str, int, int]], most: int) -> None:
    books = Told(most)
    for user, number, size in steps:
        books.add(user, f"{user}{number}", size)
        assert books.budget.used == sum(books.budget._sums.values()) <= most


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 120)), min_size=1, max_size=10),
    st.integers(0, 250),
    st.data(),
)
def test_it_is_known_who_stays_once_another_has_gone(
    steps: list[tuple[str, int]], size: int, data: st.DataObject
) -> None:
    books, number = Told(200), 0
    for number, (user, taken) in enumerate(steps):
        books.add(user, f"{user}{number}", taken)
    kept = list(books.budget._user)
    if kept:
        goes = data.draw(st.sampled_from(kept))
        new = data.draw(st.sampled_from([user for user in "abc" if user != goes[0]]))
        told = books.budget.stays(new, "new", size, without=goes)
        assert list(books.budget._user) == kept
        books.budget.drop(goes)
        assert books.budget.add(new, "new", size) == told


async def test_one_keys_uploads_do_not_refuse_anothers() -> None:
    async with world(max_uploading=100_000) as w:
        w.show(endpoint_row(w.row()), endpoint_row(w.row(), name="other", endpoint_id="e2", revision_id="r2"))
        hogs = [await w.client() for _ in range(9)]
        for hog in hogs:
            hog.send(HEAD % (b"tiny", KEY.encode()) + b"content-length: 50000\r\n\r\n" + b"x" * 11_000)
        await until(lambda: w.router.uploads.used == 99_000)
        good = await w.client()
        good.send(HEAD % (b"other", OTHER_KEY.encode()) + b"content-length: 50000\r\n\r\n" + b"y" * 40_000)
        await until(lambda: w.router.uploads.used == 95_000)
        replies = [await hog.answer() for hog in hogs[-4:]]
        assert {(reply.status, reply.error["code"]) for reply in replies} == {(503, "queue_full")}
        await until(lambda: sum(w.router.uploads._sums.values()) == 95_000)


async def test_one_keys_held_bytes_do_not_refuse_anothers() -> None:
    async with world(max_held_bytes=1 << 20) as w:
        w.show(endpoint_row(max_held=100), endpoint_row(name="other", endpoint_id="e2", revision_id="r2"))
        hogs = [await w.client() for _ in range(5)]
        for number, hog in enumerate(hogs):
            hog.post(messages=[{"role": "user", "content": "x" * 200_000}])
            await w.wait_held(number + 1)
        good = await w.client()
        good.post(
            url="/e/other/v1/chat/completions", key=OTHER_KEY, messages=[{"role": "user", "content": "y" * 200_000}]
        )
        reply = await hogs[-1].answer()
        assert (reply.status, reply.error["code"]) == (503, "queue_full")
        await until(lambda: w.table.endpoints["other"].held == 1)
        assert w.table.endpoints["tiny"].held == 4


async def test_what_a_stranger_sends_counts_for_nobody() -> None:
    async with world(max_uploading=1000) as w:
        strangers = [await w.client() for _ in range(20)]
        for stranger in strangers:
            stranger.send(HEAD % (b"tiny", b"wrong") + b"content-length: 60000\r\n\r\n" + b"x" * 50_000)
        await until(lambda: len(w.connections) == 20)
        assert (await w.ask()).status == 200
        assert w.router.uploads.used == 0


async def test_a_byte_in_tiny_chunks_is_a_byte() -> None:
    async with world() as w:
        client = await w.client()
        client.send(HEAD % (b"tiny", KEY.encode()) + b"transfer-encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * 5000)
        await until(lambda: w.router.uploads.used == 10_000)
        [exchange] = w.router.uploads._user
        assert len(exchange._pieces) <= 2  # type: ignore[attr-defined]


async def test_a_body_that_waits_for_its_turn_counts() -> None:
    async with world() as w:
        w.show(endpoint_row())
        client = await w.client()
        client.send(request() + request(messages=[{"role": "user", "content": "x" * 5000}]))
        await w.wait_held(1)
        assert w.router.uploads.used > 5000
        client.leave()
        await until(lambda: w.router.uploads.used == 0)


@pytest.mark.parametrize("model", [None, "tiny", ""])
async def test_what_is_held_counts_as_long_as_it_is(model: str | None) -> None:
    """Written anew, a text may be longer than it came."""
    async with world(max_held_bytes=1 << 20) as w:
        w.show(endpoint_row())
        client = await w.client()
        named = b"" if model == "" else b'"model":%s,' % json.dumps(model).encode()
        client.send(request(body=b'{%s"messages":[{"role":"user","content":"%s"}]}' % (named, "ä€".encode() * 10_000)))
        await w.wait_held(1)
        [call] = w.table.revisions["r1"].waiting
        assert isinstance(call, Call)
        assert w.hold.held_bytes == len(call._body) < 52_000


async def test_who_reads_least_is_cut_when_too_much_waits() -> None:
    import socket

    async def long(_: object) -> object:
        from tests.fakes import json_answer

        yield json_answer(200, b"x" * 600_000)

    async with world(max_unread=200_000, unread_seconds=60.0) as w:
        w.replica.answer = long  # type: ignore[assignment]
        clients = [raw(w, buffer=4096) for _ in range(6)]
        await until(lambda: len(w.connections) == 6)
        for connection in w.connections:
            connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await asyncio.gather(*(tell(client, request()) for client in clients))
        await until(lambda: len(w.connections) < 6)
        assert w.router.unread.used <= 200_000
        for client in clients:
            client.close()


async def test_strangers_of_many_addresses_take_nothing_from_a_key() -> None:
    """Whoever has a network has more addresses than there are keys: all strangers are one user."""
    import socket

    async def long(_: object) -> object:
        from tests.fakes import json_answer

        yield json_answer(200, b"x" * 150_000)

    async with world(max_unread=400_000) as w:
        w.replica.answer = long  # type: ignore[assignment]
        clients = [raw(w, buffer=4096, source=f"127.0.0.{number}") for number in range(2, 12)]
        await until(lambda: len(w.connections) == 10)
        for connection in w.connections:
            connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await tell(clients[0], request())
        await until(lambda: w.router.unread.used)
        for client in clients[1:]:
            await tell(client, b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: len(w.connections) < 10)
        assert [user for user in w.router.unread._user.values() if user.startswith("key ")], (
            "the caller is not the one that was cut"
        )
        for client in clients:
            client.close()


async def test_a_key_revoked_while_its_call_is_held_is_not_served() -> None:
    async with world() as w:
        w.show(endpoint_row())
        client = await w.client()
        client.post()
        await w.wait_held(1)
        w.router.keys.replace(Policy(version=2, keys=POLICY.keys[1:]))
        w.show(endpoint_row(w.row()))
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert not w.replica.requests
        [end] = await w.ends()
        assert (end["finish"], end["status"]) == ("refused", 401)
        assert w.table.revisions["r1"].demand == 0


async def test_a_key_revoked_while_its_body_comes_is_not_served() -> None:
    async with world() as w:
        client = await w.client()
        whole = request()
        client.send(whole[:-5])
        await until(lambda: w.router.uploads.used > 0)
        w.router.keys.replace(Policy(version=2, keys=(key_row(OTHER_KEY, "e2"),)))
        client.send(whole[-5:])
        assert (await client.answer()).status == 401
        assert not w.replica.requests
