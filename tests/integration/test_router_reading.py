"""The real process that reads large bodies: it starts, reads, and is gone with its worker, or when nobody asks it any
more.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from router.admission.body_reader import Job, Reader, start
from router.admission.openai import Asked
from router.admission.routes import ROUTES


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


async def test_the_process_reads_and_ends_with_its_connection() -> None:
    before, heard = children(), asyncio.Queue[object]()
    reader = Reader(start)
    reader.read(
        "k",
        Job(ROUTES["completions"], "", 1 << 20, b'{"prompt": "a", "n": 3}', lambda asked, _: heard.put_nowait(asked)),
    )
    asked = await heard.get()
    assert isinstance(asked, Asked) and asked.sequences == 3
    [pid] = children() - before
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    assert (
        b"PILOTLIGHT_" not in environ
        and b"DATABASE_URL" not in environ
        and Path(f"/proc/{pid}/cwd").resolve() == Path("/")
    )
    reader.close()
    async with asyncio.timeout(10):
        while children() - before:
            await asyncio.sleep(0.01)
