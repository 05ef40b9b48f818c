"""Looks after requests that wait for the engine's journal: asks Postgres and the activator until somebody knows there
is no more.

Step 12. A line that is there ends the wait at once. While something waits the activator is asked what the journals have
said (`watermark.py`). Who cannot have a line any more is settled by the router's own figures. Three failures to
survive. The activator is away: what waits waits on, and lines that come all the same count. A node never comes back:
after `ledger.journal_wait_seconds` its requests are settled, and corrected should it come. Postgres is away: nothing is
concluded without it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from activator.client import ActivatorError, command
from activator.wire import ShipJournals
from pilotlight.frames import FrameError
from router.ledger.join import Join
from router.ledger.postgres import Outage, until_done
from router.ledger.store import LedgerStore
from router.ledger.watermark import Word

LOOK_AGAIN_SECONDS = 0.5  # the named fallback to the journal's notifications
GATHER_SECONDS = 0.1  # one look-up for all notifications of this time
LOOK_UP_MOST = 2000  # requests of one look-up; those that were not in it come first in the next
ASK_SECONDS = 0.3  # a line that is on its way comes before anybody is asked, and between two questions
ANSWER_SECONDS = 15.0

log = structlog.get_logger()

Said = dict[str, list[str]]
Ask = Callable[[], Awaitable[Said]]  # raises OSError, TimeoutError, ActivatorError, FrameError


def asking(address: str) -> Ask:
    """The activator's word, at its address."""

    async def ask() -> Said:
        async with asyncio.timeout(ANSWER_SECONDS):
            return (await command(address, ShipJournals())).result

    return ask


class Waits:
    """`settle` is called when requests have become ready; `longest`: the last resort, in seconds."""

    def __init__(self, *, join: Join, store: LedgerStore, ask: Ask, settle: Callable[[], None], longest: float) -> None:
        self._join = join
        self._store = store
        self._ask = ask
        self._settle = settle
        self._longest = longest
        self._arrived, self._waiting = asyncio.Event(), asyncio.Event()
        self._looking = self._mute = False

    def wake(self) -> None:
        """The join may have something that waits."""
        if self._join.is_waiting:
            self._waiting.set()
            if not self._looking:
                self._arrived.set()

    def journal_arrived(self) -> None:
        self._arrived.set()

    async def run_look_up(self) -> None:
        """Look up what waits: on each notification, and every LOOK_AGAIN_SECONDS."""
        outage = Outage("ledger.journal")
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_SECONDS if self._join.is_waiting else None):
                    await self._arrived.wait()
            self._arrived.clear()
            asked = self._join.to_look_up(LOOK_UP_MOST)
            await self._look_up(asked, outage)
            self._join.expire(asked=asked, before=time.monotonic() - self._longest)
            self._settle()
            self._looking = self._join.is_waiting
            await asyncio.sleep(GATHER_SECONDS)

    async def run_word(self) -> None:
        """Ask while something waits, and conclude."""
        outage = Outage("ledger.word")
        while True:
            await self._waiting.wait()
            await asyncio.sleep(ASK_SECONDS)
            asked = self._join.waiting
            if not asked:
                self._waiting.clear()
            else:
                said = await self._heard()
                for at in range(0, len(asked), LOOK_UP_MOST):
                    await self._conclude(asked[at : at + LOOK_UP_MOST], said, outage)

    async def _heard(self) -> Said | None:
        try:
            said = await self._ask()
        except (OSError, TimeoutError, ActivatorError, FrameError) as error:
            if not self._mute:
                log.warning(
                    "the activator says nothing of the journals; what waits waits on",
                    action="ledger.word",
                    reason=str(error),
                )
            self._mute = True
            return None
        if self._mute:
            log.info("the activator speaks of the journals again", action="ledger.word")
        self._mute = False
        return said

    async def _conclude(self, asked: list[str], said: Said | None, outage: Outage) -> None:
        """What is not in Postgres now, behind the word, comes only from those that are left out of it; without a word,
        from all but those whose journals are whole.
        """
        await self._look_up(asked, outage)
        replicas, endpoints = self._join.whereabouts(asked)
        if replicas or endpoints:
            unfinished = await until_done(outage, lambda: self._store.unfinished(replicas, endpoints))
            reports = said or {}
            word = Word.of(reports.get("replicas", ()), reports.get("in_work", ()), unfinished, heard=said is not None)
            self._join.concluded(word, asked=asked)
        self._settle()

    async def _look_up(self, asked: list[str], outage: Outage) -> None:
        if asked:
            self._join.journal(await until_done(outage, lambda: self._store.journal(asked)))
