"""The right to have one request at one replica, and who waits for it. Step 5.

A `Waiter` is granted a `Slot`, refused, or leaves. A slot ends once: it is released, or given back because the replica
would not have the request. The failure to survive is a slot that is released twice, or from two sides: later calls do
nothing.
"""

from __future__ import annotations

from typing import Literal, Protocol

from router.errors import RouterError
from router.hold.replicas import Replica, Revision

BROKEN_SECONDS = 0.25  # one that broke a connection off may be dying: by then the activator knows

Mark = Literal["full", "draining", "dead"]


class Waiter(Protocol):
    """A request that waits. Exactly one of the two is called, once, unless it leaves; neither may raise."""

    held_in: Revision | None  # where it waits now; the hold's alone to set

    @property
    def user(self) -> str:
        """As who it shares what all have."""

    @property
    def sequences(self) -> int:
        """That it is for the engine: it takes as many slots."""

    @property
    def held_bytes(self) -> int:
        """Of its request."""

    @property
    def entered_at(self) -> float:
        """In the clock's seconds."""

    @property
    def deadline(self) -> float:
        """In the clock's seconds."""

    def granted(self, slot: Slot) -> None:
        """It has a slot."""

    def refused(self, error: RouterError) -> None:
        """It waits no more, and has none."""


class Giver(Protocol):
    """Who gives slots: the hold."""

    def free(self, slot: Slot) -> None:
        """It is released: the next waiter gets it."""

    def rest(self, revision: Revision, replica: Replica, seconds: float) -> None:
        """Nobody is granted a slot there for so long."""

    def put_back(self, slot: Slot, waiter: Waiter, mark: Mark) -> None:
        """The replica would not have the request that has this slot."""


class Slot:
    """The right to have one request at one replica, where it counts for `slots` of them. `turn`: what its gate called
    it, where it was waited for in its line.
    """

    __slots__ = ("_hold", "_released", "replica", "revision", "slots", "turn", "user")

    def __init__(self, hold: Giver, revision: Revision, replica: Replica, turn: bytes, user: str, slots: int) -> None:
        self._hold = hold
        self.revision = revision
        self.replica = replica
        self.turn = turn
        self.user = user
        self.slots = slots
        self._released = False

    def release(self) -> None:
        """Give it back; the next waiter gets it. Later calls do nothing."""
        if not self._released:
            self._released = True
            self._hold.free(self)

    def broke(self) -> None:
        """The replica broke the request's connection off: what waits is not sent after it, into a process that may be
        dying.
        """
        if not self._released:
            self._hold.rest(self.revision, self.replica, BROKEN_SECONDS)

    def give_back(self, waiter: Waiter, mark: Mark) -> None:
        """The replica would not have the request: the slot is free, and `waiter` has its place at the head again."""
        if not self._released:
            self._released = True
            self._hold.put_back(self, waiter, mark)
