"""Clients that behave badly, each in its own way, as many as asked for, until told to stop: the other side of
`strangers.py`.

    python -m loadtests.bench.bad_clients PORT KEY CA EACH       (ends with its stdin)

Every kind comes from an address of its own (127.0.1.N), so that bounds by address are met as well. What becomes of them
is not looked at: they are cut, refused or answered, and come again a moment later.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

import uvloop

PAUSE_SECONDS = 0.5  # before one comes again
STAY_SECONDS = 20.0  # the longest that one stays
CALL = b"POST /e/%s/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n"
BODY = b'{"messages":[{"role":"user","content":"hi"}]}'


@dataclass(frozen=True)
class Site:
    port: int
    key: bytes
    context: ssl.SSLContext

    def call(self, endpoint: bytes = b"tiny", *, key: bytes = b"", body: bytes = BODY) -> bytes:
        return CALL % (endpoint, key or self.key) + b"content-length: %d\r\n\r\n%s" % (len(body), body)


class Wire:
    """A connection that does what no client should."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def stay(self) -> None:
        """Until it is cut; without reading."""
        while not self.writer.is_closing():
            await asyncio.sleep(0.2)

    async def trickle(self, pieces: bytes, *, size: int = 1, seconds: float = 0.5) -> None:
        for at in range(0, len(pieces), size):
            self.writer.write(pieces[at : at + size])
            await asyncio.sleep(seconds)
            if self.writer.is_closing():
                return

    async def flood(self, piece: bytes, *, times: int = 20_000) -> None:
        """As much as the other side takes; nothing is read."""
        cast(asyncio.Transport, self.writer.transport).pause_reading()
        for _ in range(times):
            self.writer.write(piece)
            await self.writer.drain()


Bad = Callable[[Site, Wire], Awaitable[None]]


async def silent(site: Site, wire: Wire) -> None:
    await wire.stay()


async def half_a_handshake(site: Site, wire: Wire) -> None:
    wire.writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    await wire.stay()


async def plain_http(site: Site, wire: Wire) -> None:
    wire.writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await wire.stay()


async def slow_head(site: Site, wire: Wire) -> None:
    await wire.trickle(site.call())


async def page_with_a_long_body(site: Site, wire: Wire) -> None:
    await wire.flood(b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n" + b"x" * 1_500_000, times=1)


async def page_without_its_body(site: Site, wire: Wire) -> None:
    wire.writer.write(b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
    await wire.stay()


async def slow_upload(site: Site, wire: Wire) -> None:
    wire.writer.write(CALL % (b"tiny", site.key) + b"content-length: 8000000\r\n\r\n")
    await wire.trickle(b"x" * 8_000_000, size=16 << 10, seconds=0.5)


async def tiny_chunks(site: Site, wire: Wire) -> None:
    wire.writer.write(CALL % (b"tiny", site.key) + b"transfer-encoding: chunked\r\n\r\n")
    await wire.trickle(b"2\r\nab\r\n" * 100_000, size=7000, seconds=0.1)


async def strangers_upload(site: Site, wire: Wire) -> None:
    wire.writer.write(site.call(key=b"wrong", body=b"x" * 60_000)[:-1])
    await wire.stay()


async def asks_for_pages_and_reads_nothing(site: Site, wire: Wire) -> None:
    await wire.flood(b"GET /nope HTTP/1.1\r\nhost: x\r\n\r\n" * 50, times=200)


async def asks_without_a_key_and_reads_nothing(site: Site, wire: Wire) -> None:
    await wire.flood(site.call(key=b"wrong") * 50, times=200)


async def streams_and_reads_nothing(site: Site, wire: Wire) -> None:
    await wire.flood(site.call(body=BODY[:-1] + b',"stream":true}'), times=50)
    await wire.stay()


async def leaves_amid_a_stream(site: Site, wire: Wire) -> None:
    wire.writer.write(site.call(body=BODY[:-1] + b',"stream":true}'))
    await wire.reader.read(200)


async def held_with_much_behind_it(site: Site, wire: Wire) -> None:
    wire.writer.write(site.call(b"cold") + b"x" * 300_000)
    await asyncio.sleep(random.uniform(0.1, 2.0))


async def nonsense(site: Site, wire: Wire) -> None:
    wire.writer.write(random.randbytes(2000))
    await wire.stay()


async def comes_and_goes(site: Site, wire: Wire) -> None:
    return


BEFORE_TLS: tuple[Bad, ...] = (silent, half_a_handshake, plain_http, comes_and_goes)
INSIDE: tuple[Bad, ...] = (
    silent, slow_head, page_with_a_long_body, page_without_its_body, slow_upload, tiny_chunks, strangers_upload, asks_for_pages_and_reads_nothing,
    asks_without_a_key_and_reads_nothing, streams_and_reads_nothing, leaves_amid_a_stream, held_with_much_behind_it, nonsense, comes_and_goes,
)  # fmt: skip


async def again_and_again(site: Site, bad: Bad, *, secure: bool, address: str) -> None:
    context = {"ssl": site.context, "server_hostname": "localhost"} if secure else {}
    while True:
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(STAY_SECONDS):
                wire = Wire(*await asyncio.open_connection("127.0.0.1", site.port, local_addr=(address, 0), **context))  # type: ignore[arg-type]
                try:
                    await bad(site, wire)
                finally:
                    wire.writer.transport.abort()
        await asyncio.sleep(random.uniform(0, 2 * PAUSE_SECONDS))


async def main(port: int, key: str, ca: str, each: int) -> None:
    site = Site(port, key.encode(), ssl.create_default_context(cafile=ca))
    kinds = [(bad, False) for bad in BEFORE_TLS] + [(bad, True) for bad in INSIDE]
    tasks = [
        asyncio.create_task(again_and_again(site, bad, secure=secure, address=f"127.0.1.{number + 1}"))
        for number, (bad, secure) in enumerate(kinds)
        for _ in range(each)
    ]
    print(len(tasks), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
