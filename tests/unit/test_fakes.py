"""The fakes themselves: an oracle that never speaks proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import SSE_HEAD, FakeReplica, FakeRequest


async def test_a_replica_knows_that_it_was_stopped_while_it_served(tmp_path: Path) -> None:
    async def for_ever(_: FakeRequest) -> AsyncIterator[bytes]:
        yield SSE_HEAD
        await asyncio.Event().wait()

    replica = await FakeReplica(f"unix:{tmp_path}/r.sock").start()
    replica.answer = for_ever
    reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/r.sock")
    writer.write(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    with pytest.raises(AssertionError, match="a call goes on"):
        await replica.end(seconds=0.0)
    writer.close()


async def test_a_replica_that_serves_nobody_ends_in_peace(tmp_path: Path) -> None:
    replica = await FakeReplica(f"unix:{tmp_path}/r.sock").start()
    await replica.end(seconds=0.0)
