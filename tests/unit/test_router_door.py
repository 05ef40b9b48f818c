"""Before step 1: the door of a listener, with TLS as in production: handshakes have their time, and what never gets in
leaves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest

from pilotlight import tls
from pilotlight.settings import Paths
from router.admission.rates import Rates
from router.admission.visitors import Standing, Visitors
from router.edge.door import Door, Porter, Visit
from tests.router_world import until


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, and that of a client who trusts it."""
    with TemporaryDirectory() as name:
        paths = Paths(Path(name))
        paths.make()
        made = tls.ensure(paths)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(made.cert_file, made.key_file)
        return server, ssl.create_default_context(cafile=str(made.ca_file))


class Greeter(asyncio.Protocol):
    """Says hello."""

    def __init__(self, guests: list[Greeter]) -> None:
        self.guests = guests
        self.visit: Visit | None = None
        self.standing: Standing = "idle"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert self.visit is not None
        self.visit.guest = self
        self.transport = cast(asyncio.Transport, transport)
        self.guests.append(self)
        self.transport.write(b"hello")

    def connection_lost(self, error: Exception | None) -> None:
        assert self.visit is not None
        self.visit.over()

    def give_way(self) -> None:
        self.transport.abort()


class Entrance:
    def __init__(self, port: int, door: Door, visitors: Visitors, guests: list[Greeter], porter: Porter) -> None:
        self.port, self.door, self.visitors, self.guests, self.porter = port, door, visitors, guests, porter

    async def hello(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=contexts()[1], server_hostname="localhost"
        )
        assert await reader.readexactly(5) == b"hello"
        return reader, writer

    async def stranger(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        return reader, writer


@contextlib.asynccontextmanager
async def entrance(
    *, most: int = 10, most_each: int = 10, seconds: float = 5.0, secure: bool = True, rate: float = 0.0
) -> AsyncIterator[Entrance]:
    guests: list[Greeter] = []
    visitors, listener = Visitors(most=most, most_each=most_each), socket.create_server(("127.0.0.1", 0))
    context = contexts()[0] if secure else None
    make = partial(Greeter, guests)
    porter = Porter(Rates(rate))
    door = Door(
        listener, make=make, visitors=visitors, handshake_seconds=seconds, context=lambda: context, porter=porter
    ).open()
    try:
        yield Entrance(listener.getsockname()[1], door, visitors, guests, porter)
    finally:
        porter.close()
        door.close()
        await door.wait_closed()
        for guest in guests:
            guest.transport.abort()
        await until(lambda: not len(visitors))
        listener.close()


async def test_who_speaks_tls_comes_in_and_is_counted_out() -> None:
    async with entrance() as e:
        _, writer = await e.hello()
        assert len(e.visitors) == 1
        writer.transport.abort()
        await until(lambda: not len(e.visitors))


async def test_who_speaks_http_to_it_is_told() -> None:
    async with entrance() as e:
        reader, writer = await e.stranger(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ") and b"https://" in answer
        writer.close()
        await until(lambda: not len(e.visitors))


async def test_who_speaks_http_to_it_too_often_is_not_told_again() -> None:
    async with entrance(rate=0.1) as e:
        for expected in (True, False):
            reader, writer = await e.stranger(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert bool(await reader.read()) == expected
            writer.close()
        await until(lambda: not len(e.visitors))


@pytest.mark.parametrize("data", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100])
async def test_a_handshake_has_its_time(data: bytes) -> None:
    async with entrance(seconds=0.1) as e:
        before = len(os.listdir("/proc/self/fd"))
        them = [await e.stranger(data) for _ in range(5)]
        async with asyncio.timeout(5):
            for reader, writer in them:
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                writer.close()
        await until(lambda: not len(e.visitors) and len(os.listdir("/proc/self/fd")) <= before)
        await e.hello()


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\x02\x00"])
async def test_who_leaves_amid_the_handshake_is_gone_at_once(data: bytes) -> None:
    async with entrance() as e:
        _, writer = await e.stranger(data)
        await until(lambda: len(e.visitors) == 1)
        writer.transport.abort()
        await until(lambda: not len(e.visitors), seconds=1.0)


async def test_those_who_have_not_come_in_yet_give_way_first() -> None:
    async with entrance(most=3) as e:
        reader, _ = await e.hello()
        e.guests[0].standing = "served"
        them = [await e.stranger() for _ in range(6)]
        await until(lambda: e.visitors.gave_way == 4)
        await e.hello()
        assert not reader.at_eof() and len(e.visitors) <= 3
        for _, writer in them:
            writer.transport.abort()


async def test_who_brings_no_key_waits_for_the_rate_of_its_address_and_is_closed_when_its_time_is_over() -> None:
    async with entrance(rate=0.1, seconds=0.2) as e:
        _, writer = await e.hello()
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await e.hello()
        assert (len(e.guests), e.porter.step.over_rate, len(e.porter.step)) == (1, 1, 0)
        await until(lambda: len(e.visitors) == 1)
        writer.close()


async def test_a_good_key_lets_those_who_wait_behind_it_in() -> None:
    async with entrance(rate=0.1) as e:
        await e.hello()
        waiting = [asyncio.create_task(e.hello()) for _ in range(2)]
        await until(lambda: len(e.porter.step) == 2)
        assert e.guests[0].visit is not None
        for _ in range(3):  # a connection earns once, however many requests come by it
            e.guests[0].visit.proven()
        await asyncio.gather(*waiting)
        late = asyncio.create_task(e.hello())
        await until(lambda: len(e.porter.step) == 1)
        assert e.guests[1].visit is not None
        e.guests[1].visit.proven()
        await late


async def test_handshakes_take_turns_with_what_else_is_to_be_done() -> None:
    async with entrance(most=50, most_each=50) as e:
        turns = [0]

        def turn() -> None:
            turns[0] += 1
            asyncio.get_running_loop().call_soon(turn)

        begun: list[int] = []
        made = e.door._make

        def make() -> Greeter:
            begun.append(turns[0])
            return cast(Greeter, made())

        e.door._make = make
        them = [await e.stranger() for _ in range(20)]
        await until(lambda: len(e.visitors) == 20)
        turn()
        for _, writer in them:
            writer.write(b"\x16\x03\x01\x02\x00")
        await until(lambda: len(begun) == 20)
        assert len(set(begun)) == 20, "one is begun in a turn of the loop"
        for _, writer in them:
            writer.transport.abort()


async def test_without_tls_nobody_waits_for_a_first_byte() -> None:
    async with entrance(secure=False) as e:
        reader, writer = await e.stranger()
        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_a_process_without_descriptors_accepts_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.edge.door.AGAIN_SECONDS", 0.01)
    import resource

    async with entrance(secure=False) as e:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = socket.socket()
        client.setblocking(False)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        filling: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    filling.append(os.dup(0))
            with contextlib.suppress(BlockingIOError):
                client.connect(("127.0.0.1", e.port))
            await until(lambda: e.door._again is not None)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in filling:
                os.close(descriptor)
        await until(lambda: len(e.guests) == 1)
        client.close()
