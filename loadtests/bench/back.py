"""The replica of a benchmark in a process of its own, until its stdin ends: what it costs is then nobody else's time.

python -m loadtests.bench.back SOCKET
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from loadtests.bench.traffic import Back


async def serve(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Back, path)
    print("listening", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


@contextlib.asynccontextmanager
async def replica(path: Path) -> AsyncIterator[None]:
    async with child("loadtests.bench.back", str(path)):
        yield


@contextlib.asynccontextmanager
async def child(module: str, *arguments: str, quiet: bool = False) -> AsyncIterator[int]:
    """A module that says a line once it is ready, and ends with its stdin. Its pid. `quiet`: nobody wants to know what
    goes wrong there.
    """
    pipe, errors = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL if quiet else None
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=pipe, stdout=pipe, stderr=errors
    )
    assert process.stdin is not None and process.stdout is not None
    if not await process.stdout.readline():
        raise RuntimeError(f"{module} ended at once, with status {await process.wait()}")
    try:
        yield process.pid
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
