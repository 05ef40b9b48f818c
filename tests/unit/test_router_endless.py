"""Step 1: whatever of a request may be long is bounded, wherever it stands, whoever sends it.

The parser keeps a name or a value until it is whole: one without an end would be kept, and copied with each segment,
for ever.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest

from router.edge.intake import LONGEST_HEAD
from router.edge.protocol import RouterProtocol
from tests.router_world import ADMIN_KEY, KEY, until, world

CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
TARGETS = {
    "a call": b"POST /e/tiny/v1/chat/completions HTTP/1.1\r\nhost: x\r\n",
    "a page": b"POST /healthz HTTP/1.1\r\nhost: x\r\n",
    "an admin call": b"POST /api/v1/keys HTTP/1.1\r\nhost: x\r\n",
    "no page": b"POST /apis HTTP/1.1\r\nhost: x\r\n",
    "another protocol": b"POST /apis HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n",
}
KEYS = {
    "a stranger": b"",
    "a caller": b"authorization: Bearer %s\r\n" % KEY.encode(),
    "an admin": b"x-api-key: %s\r\n" % ADMIN_KEY.encode(),
}
ENDLESS = {  # what comes before, and what comes again and again
    "a header's name": (b"", b"a"),
    "a header's value": (b"a: ", b"a"),
    "headers": (b"", b"a: b\r\n"),
    "a chunk's size": (CHUNKED, b"0"),
    "a chunk's extension": (CHUNKED + b"1;", b"a"),
    "a trailer's name": (CHUNKED + b"0\r\n", b"a"),
    "a trailer's value": (CHUNKED + b"1\r\n{\r\n0\r\na: ", b"a"),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n"),
}
PIECE = 32 << 10  # bytes, about


@pytest.mark.parametrize("target", TARGETS)
async def test_nothing_of_a_request_is_endless(target: str) -> None:
    async with world(max_body=LONGEST_HEAD) as w:
        for who, what in itertools.product(KEYS, ENDLESS):
            begin, piece = ENDLESS[what]
            client = await w.client()
            await until(lambda: w.connections)
            [protocol] = w.connections
            assert isinstance(protocol, RouterProtocol)
            protocol.data_received(TARGETS[target] + KEYS[who] + begin)
            for _ in range(3 * LONGEST_HEAD // PIECE):
                protocol.data_received(piece * (PIECE // len(piece)))
                await asyncio.sleep(0)  # a page is answered by a task
            assert protocol._deaf, (who, what)
            client.leave()
            await until(lambda: not w.connections)
