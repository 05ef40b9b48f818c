"""Callers as they should be, beside `bad_clients.py`: one call after the other on a kept connection, and how long each
took.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from loadtests.bench.bad_clients import BODY, Site

GOOD = 4  # callers
BETWEEN_SECONDS = 0.02  # a caller's calls
PATIENCE_SECONDS = 30.0
TRIES = 3  # of a call whose connection fails, as OpenAI's clients have it; its time counts from the first


@contextlib.asynccontextmanager
async def good_callers(them: Site, times: list[float], refused: list[str]) -> AsyncIterator[None]:
    """`times` gets seconds, `refused` what was seen in place of a 200."""
    tasks = [asyncio.create_task(_call(them, times, refused)) for _ in range(GOOD)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _call(them: Site, times: list[float], refused: list[str]) -> None:
    """Until cancelled."""
    asked = them.call(b"good", body=BODY)
    kept: Kept | None = None
    while True:
        begin = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                kept, head = await _ask_again(them, kept, asked)
                if not head.startswith(b"HTTP/1.1 200 "):
                    refused.append(head[:200].decode(errors="replace"))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as failure:
            refused.append(f"{failure!r} after {time.perf_counter() - begin:.2f} s")
            kept = None
        times.append(time.perf_counter() - begin)
        await asyncio.sleep(BETWEEN_SECONDS)


async def _ask_again(them: Site, kept: Kept | None, asked: bytes) -> tuple[Kept, bytes]:
    """The connection, and the answer's head. As client programs do: anew where a kept connection was closed for having
    been idle, and where a new one fails, which it does if this machine leaves us no time for a handshake.
    """
    for left in reversed(range(TRIES)):
        try:
            if kept is None:
                opened = asyncio.open_connection("127.0.0.1", them.port, ssl=them.context, server_hostname="localhost")
                kept = Kept(*await opened)
            return kept, await kept.ask(asked)
        except (OSError, asyncio.IncompleteReadError):
            kept = None
            if not left:
                raise
    raise AssertionError("unreachable")


@dataclass
class Kept:
    """A good caller's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, asked: bytes) -> bytes:
        """The head of the answer, once its body has come. Raises asyncio.IncompleteReadError where it ended before."""
        self.writer.write(asked)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self.reader.readexactly(int(length.split(b":")[1]))
        return head
