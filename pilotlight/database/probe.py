"""Does a Postgres answer? Asked without an account and without a row: one question of its protocol, on a connection of
its own.

The failure it finds is a server that neither dies nor works: stopped, or stuck in the kernel. Its listener still
accepts then, since the kernel does; only an answer tells.
"""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

ENCRYPTED = struct.pack("!ii", 8, 80877103)  # SSLRequest: answered with one byte, before anybody is asked who they are


async def answers(socket_path: Path, seconds: float) -> bool:
    """Whether the server at this Unix socket answers within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(str(socket_path))
            try:
                writer.write(ENCRYPTED)
                return await reader.read(1) in (b"N", b"S")
            finally:
                writer.transport.abort()
    except OSError:  # a timeout is one
        return False
