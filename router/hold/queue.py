"""The requests that wait for one revision, and whose turn is next. Step 5; pure.

Keys share its slots: a free one goes to the key that has the fewest sequences in work there. Among a key's requests it
goes to the one that has waited longest. So whoever has filled all slots gets no more of them while others wait. Alone
it has them all, and no share lies idle. Two failures to survive. A key floods the line: its youngest request gives way
when no more may wait. And a request returns to its place because a replica would not have it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Generic, Protocol, TypeVar

from router.clock import Timer


class Waiting(Protocol):
    @property
    def user(self) -> str:
        """As who it shares what all have: its key."""


W = TypeVar("W", bound=Waiting)


class Waiters(Generic[W]):
    """In the order in which they came, all together and by key."""

    def __init__(self) -> None:
        self._all: OrderedDict[W, Timer] = OrderedDict()
        self._of: dict[
            str, OrderedDict[W, tuple[int, int]]
        ] = {}  # each with its number in `_all`'s order, and its sequences
        self._last, self._first = count(1), count(0, -1)
        self.sequences = 0  # of all; as each has at least one, this says whether anyone waits

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[W]:
        return iter(self._all)

    def add(self, waiter: W, timer: Timer, sequences: int = 1) -> None:
        """`sequences`: as many slots as it takes."""
        self._all[waiter] = timer
        self._of.setdefault(waiter.user, OrderedDict())[waiter] = next(self._last), sequences
        self.sequences += sequences

    def put_back(self, waiter: W, timer: Timer, sequences: int = 1) -> None:
        """Before all others: it has had a slot, and the replica would not have it."""
        self.add(waiter, timer, sequences)
        self._all.move_to_end(waiter, last=False)
        mine = self._of[waiter.user]
        mine[waiter] = next(self._first), sequences
        mine.move_to_end(waiter, last=False)

    def remove(self, waiter: W) -> None:
        """It waits no more."""
        self._all.pop(waiter).cancel()
        mine = self._of[waiter.user]
        self.sequences -= mine.pop(waiter)[1]
        if not mine:
            del self._of[waiter.user]

    def of(self, user: str) -> int:
        """How many of this key wait."""
        return len(self._of.get(user, ()))

    def oldest(self) -> W:
        return next(iter(self._all))

    def whose_turn(self, in_work: Mapping[str, int]) -> W:
        """Whose turn it is: of the key with the fewest sequences in work (those not named have none), the first; of
        several the oldest.
        """
        if len(self._of) == 1:
            return self.oldest()
        heads = ((in_work.get(user, 0), *next(iter(mine.items()))) for user, mine in self._of.items())
        return min(heads, key=lambda head: (head[0], head[2][0]))[1]

    def youngest_of_the_most(self) -> W:
        """The last that came of the key that has most of them."""
        most = max(self._of.values(), key=len)
        return next(reversed(most))
