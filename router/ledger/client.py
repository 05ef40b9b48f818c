"""Asks this machine's ledger whether all routers know of a change to a key; for the admin API. Step 2. See `wire.py`.

The failure to survive is a ledger that is away, hangs or ends in the middle. The caller waits no longer than it said,
and hears that nothing is certain. The key itself is in Postgres, and reaches the routers when the ledger is back.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pilotlight.frames import FrameError, FrameStream, connect
from router.ledger.wire import AwaitKey, FromLedger, KeyTold

CONFIRM_SECONDS = 3.0  # how long an answer of the admin API waits for the routers
ANSWER_SECONDS = 0.5  # beyond what it was given, for its answer to come


async def key_is_known(address: str, key_id: str, *, live: bool, seconds: float) -> bool:
    """Does every router worker of this machine know the key (`live` false: know it no more)? Waits at most so many
    seconds.
    """
    try:
        async with asyncio.timeout(seconds + ANSWER_SECONDS):
            stream: FrameStream[Any] = await connect(address, FromLedger)
            try:
                stream.send(AwaitKey(key_id=key_id, live=live, seconds=seconds))
                answer = await stream.receive()
            finally:
                stream.close()
    except (OSError, TimeoutError, FrameError):
        return False
    return isinstance(answer, KeyTold) and answer.everywhere
