"""The line at a replica's gate: which router may send its next request once a slot is free. Step 5.

Routers of one machine, or of several, share a replica's slots and see none of each other's ends. So a router that was refused
asks for a turn, one at a time, and says how long its oldest request has waited; a freed slot is promised to the one that has
waited longest, whatever its router, and for a moment only. The requests themselves stay in the routers' holds: nothing of
them is here that could be lost. Failures to survive: a router that leaves the line (its connection ends), one that is
promised a slot and does not use it (the promise lapses, the next has it), and a drain (everybody is sent away at once).
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import secrets
from collections.abc import Callable, Iterable

PROMISE_SECONDS = 0.08  # a slot is kept so long for a router that has its turn
MOST_IN_LINE = 1024  # routers have one place each; more is somebody's mistake

Place = asyncio.Future[str | None]


class Line:
    """`free` gives the number of slots that nothing runs in."""

    def __init__(self, free: Callable[[], int]) -> None:
        self._free = free
        self._places: list[tuple[float, int, Place]] = []  # (since when the request has waited, a number, who waits), oldest first
        self._numbers = itertools.count()
        self._promised: dict[str, asyncio.TimerHandle] = {}

    @property
    def promised(self) -> int:
        """Slots that are kept for those who have their turn."""
        return len(self._promised)

    def join(self, waited: float) -> Place | None:
        """A place, which will hold the turn's name, or None at a drain. `waited`: seconds so far. None: the line is too long."""
        if len(self._places) >= MOST_IN_LINE:
            return None
        loop = asyncio.get_running_loop()
        place: Place = loop.create_future()
        bisect.insort(self._places, (loop.time() - waited, next(self._numbers), place))
        self.give()
        return place

    def leave(self, place: Place) -> None:
        """Whoever stood here is gone; a slot that was promised to it is the next one's."""
        if place.done():
            if turn := place.result():
                self._lapse(turn)
        else:
            self._places = [entry for entry in self._places if entry[2] is not place]
            place.cancel()

    def give(self) -> None:
        """Promise every slot that is free to those who have waited longest."""
        while self._places and self._free() > len(self._promised):
            place = self._places.pop(0)[2]
            turn = secrets.token_hex(8)
            self._promised[turn] = asyncio.get_running_loop().call_later(PROMISE_SECONDS, self._lapse, turn)
            place.set_result(turn)

    def redeem(self, headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bool:
        """Does this request come in the turn it names? Then the slot kept for it is its own."""
        if not self._promised:
            return False
        turn = next((value.decode("latin-1") for header, value in headers if header == name), "")
        promise = self._promised.pop(turn, None)
        if promise is not None:
            promise.cancel()
        return promise is not None

    def end(self) -> None:
        """Nobody gets a turn any more."""
        places, self._places = self._places, []
        for _, _, place in places:
            place.set_result(None)

    def _lapse(self, turn: str) -> None:
        promise = self._promised.pop(turn, None)
        if promise is not None:
            promise.cancel()
            self.give()
