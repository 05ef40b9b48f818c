"""The line at a replica's gate: which router may send its next request once a slot is free. Step 5.

Routers of one machine, or of several, share a replica's slots and see none of each other's ends. So a router that was
refused asks for a turn, one at a time, and says how long its oldest request has waited. A freed slot is promised to the
one that has waited longest, whatever its router, and for a moment only. The requests themselves stay in the routers'
holds: nothing of them is here that could be lost.

Failures to survive: a router leaves the line when its connection ends. A promise that is not used lapses, and the next
one has it. A router whose loop lags comes too late each time: its next promise is longer, and the others go first
meanwhile. At a drain everybody is sent away at once.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

PROMISE_SECONDS = 0.08  # a slot is kept so long for a router that has its turn
MOST_PROMISE_SECONDS = 1.0  # for one that came late before: twice as long as it needed, or as was not enough
# times as long as a slot stood idle for a late one, whoever else waits goes before it: it costs a fifth of a slot at
# most
OTHERS_FIRST = 4
MOST_IN_LINE = 1024  # routers have one place each; more is somebody's mistake

Place = asyncio.Future[str | None]


class Stands(NamedTuple):
    """One router in the line."""

    since: float  # when the request began to wait
    number: int
    place: Place
    router: str


class Promise(NamedTuple):
    """A freed slot that is kept for one router, for a moment."""

    router: str
    at: float
    seconds: float
    lapses: asyncio.TimerHandle


@dataclass(frozen=True, slots=True)
class Late:
    """A router that was late the last time."""

    seconds: float  # of its next promise
    until: float  # so long others go first


class Line:
    """`free` gives the number of slots that nothing runs in; one is kept for `promise_seconds` for who has its turn.
    `new_turn` names a turn; nobody may guess it.
    """

    def __init__(
        self,
        free: Callable[[], int],
        *,
        promise_seconds: float = PROMISE_SECONDS,
        new_turn: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._free = free
        self._promise_seconds = promise_seconds
        self._new_turn = new_turn
        self._places: list[Stands] = []  # oldest first
        self._numbers = itertools.count()
        self._promised: dict[str, Promise] = {}
        self._late: dict[str, Late] = {}  # by router

    def __len__(self) -> int:
        """Who stands here."""
        return len(self._places)

    @property
    def promised(self) -> int:
        """Slots that are kept for those who have their turn."""
        return len(self._promised)

    def join(self, waited: float, router: str = "") -> Place | None:
        """A place, which will hold the turn's name, or None at a drain. None: the line is too long.

        `waited`: seconds so far. `router`: whose place; one of the release before has no name, and nobody remembers how
        late it was.
        """
        if len(self._places) >= MOST_IN_LINE:
            return None
        loop = asyncio.get_running_loop()
        place: Place = loop.create_future()
        bisect.insort(self._places, Stands(loop.time() - waited, next(self._numbers), place, router))
        self.give()
        return place

    def leave(self, place: Place) -> None:
        """Whoever stood here is gone; a slot that was promised to it is the next one's."""
        if place.done():
            if turn := place.result():
                self._free_again(turn)
        else:
            self._places = [stands for stands in self._places if stands.place is not place]
            place.cancel()

    def give(self) -> None:
        """Promise every slot that is free to those who have waited longest.

        Who was late goes behind the others for a while; where none of them stands here it is asked to come, and nothing
        is kept for it.
        """
        loop = asyncio.get_running_loop()
        while self._places and self._free() > len(self._promised):
            now, turn = loop.time(), self._new_turn()
            first = next((stands for stands in self._places if not self._behind(stands.router, now)), None)
            stands = first or self._places[0]
            self._places.remove(stands)
            if first:
                late = self._late.get(first.router)
                seconds = late.seconds if late else self._promise_seconds
                self._promised[turn] = Promise(first.router, now, seconds, loop.call_later(seconds, self._lapse, turn))
            stands.place.set_result(turn)

    def redeem(self, headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bool:
        """Does this request come in the turn it names? Then the slot kept for it is its own."""
        if not self._promised:
            return False
        turn = next((value.decode("latin-1") for header, value in headers if header == name), "")
        promise = self._promised.pop(turn, None)
        if promise is not None:
            promise.lapses.cancel()
            self._remember(promise.router, asyncio.get_running_loop().time() - promise.at)
        return promise is not None

    def end(self) -> None:
        """Nobody gets a turn any more."""
        places, self._places = self._places, []
        for stands in places:
            stands.place.set_result(None)

    def _lapse(self, turn: str) -> None:
        """It did not come in time."""
        promise = self._promised[turn]
        self._remember(promise.router, promise.seconds)
        self._free_again(turn)

    def _free_again(self, turn: str) -> None:
        promise = self._promised.pop(turn, None)
        if promise is not None:
            promise.lapses.cancel()
            self.give()

    def _behind(self, router: str, now: float) -> bool:
        late = self._late.get(router)
        return late is not None and now < late.until

    def _remember(self, router: str, idle: float) -> None:
        """How long a slot stood idle for this router, where that was long; of at most as many routers as have a
        place.
        """
        self._late.pop(router, None)
        if idle >= self._promise_seconds and router:
            first = asyncio.get_running_loop().time() + OTHERS_FIRST * idle
            self._late[router] = Late(min(2 * idle, MOST_PROMISE_SECONDS), first)
            if len(self._late) > MOST_IN_LINE:
                del self._late[next(iter(self._late))]
