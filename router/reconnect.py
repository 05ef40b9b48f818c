"""Keeps a connection to another Pilotlight process for ever: connect, converse, and after its end connect again.

It serves between router and activator (steps 5, 6 and 10), and between router and ledger (steps 2 and 12). The failure
to survive is the other process being away, for a moment or for hours. Pauses are bounded, random, and begin short anew
after every conversation that worked. An outage is logged once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from pilotlight.frames import FrameError

SHORTEST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
CONNECT_SECONDS = 5.0
SILENT_SECONDS = 10.0  # both peers send a heartbeat each second

log = structlog.get_logger()


async def for_ever(peer: str, converse: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
    """Run `converse` again and again; it calls its argument when the peer has answered as it should."""
    pause, out = SHORTEST_PAUSE_SECONDS, False

    def heard() -> None:
        nonlocal pause, out
        pause, out = SHORTEST_PAUSE_SECONDS, False
        log.info("connected", action="connect", peer=peer)

    while True:
        try:
            await converse(heard)
            reason = "it closed the connection"
        except TimeoutError:
            reason = "it is silent"
        except (OSError, FrameError) as error:
            reason = str(error)
        if not out:
            log.warning("not connected; trying again until it answers", action="reconnect", peer=peer, reason=reason)
        out = True
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
