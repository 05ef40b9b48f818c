"""Bytes that all callers of this machine share, with a bound in all, and who gives way at it. Steps 1 and 5; pure.

Over the bound the largest user's newest gives way, until all fits. So nobody is refused for what somebody else has
taken, and whoever takes most is refused first. Where the new one would have to go itself in the end, nobody goes before
it. Users are keys, and all strangers together. Half of the bound is divided among the machine's workers, each worker's
own. The other half is for whichever of them comes first: what another worker's callers have taken leaves each its part.
The failure to survive is one caller that takes all there is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Holder = TypeVar("Holder")


class Budget(Generic[Holder]):
    """`shared` tells the machine what this worker has beyond its own part, and returns what all have. `give_way` hears
    who is out.
    """

    def __init__(
        self, most: int, *, give_way: Callable[[Holder], None], workers: int = 1, shared: Callable[[int], int] = int
    ) -> None:
        self._own = most // 2 // workers
        self._most_shared = most - self._own * workers
        self._shared, self._give_way = shared, give_way
        self._of: dict[str, OrderedDict[Holder, int]] = {}
        self._user: dict[Holder, str] = {}
        self._sums: dict[str, int] = {}
        self.used = 0

    def stays(self, user: str, holder: Holder, size: int, *, without: Holder | None = None) -> bool:
        """Whether it could have so many bytes more, once all that must give way for them has. `without`: who goes in
        any case. Changes nothing.
        """
        gone = 0 if without is None else self._size(without)
        used = self.used + size - gone
        now = max(0, self.used - self._own)
        others = self._shared(now) - now
        if not self._beyond(used, others):
            return True
        sums = {**self._sums, user: self._sums.get(user, 0) + size}
        if without is not None and without in self._user:
            sums[self._user[without]] -= gone
        newest: dict[str, Iterator[Holder]] = {}
        while self._beyond(used, others):
            largest = max(sums, key=sums.__getitem__)
            going = next(newest.setdefault(largest, self._newest(largest, user, holder, without)))
            if going == holder:
                return False
            used -= self._size(going)
            sums[largest] -= self._size(going)
        return True

    def add(self, user: str, holder: Holder, size: int) -> bool:
        """So many bytes more. Returns False where the holder itself has to give way: then nothing of it is counted any
        more, and nobody else goes.
        """
        if not self.stays(user, holder, size):
            self.drop(holder)
            return False
        self._user[holder] = user
        theirs = self._of.setdefault(user, OrderedDict())
        theirs[holder] = theirs.get(holder, 0) + size
        self._sums[user] = self._sums.get(user, 0) + size
        self.used += size
        while self._over():
            largest = max(self._sums, key=self._sums.__getitem__)
            newest = next(reversed(self._of[largest]))
            self.drop(newest)
            if newest == holder:
                return False
            self._give_way(newest)
            if holder not in self._user:  # what gave way took this one with it
                return False
        return True

    def less(self, holder: Holder, size: int) -> None:
        """So many of its bytes are gone."""
        if size and (user := self._user.get(holder)) is not None:
            self._of[user][holder] -= size
            self._sums[user] -= size
            self.used -= size
            self._over()  # the machine is told

    def drop(self, holder: Holder) -> None:
        """It has no bytes any more. Does nothing if it had none."""
        user = self._user.pop(holder, None)
        if user is None:
            return
        theirs = self._of[user]
        size = theirs.pop(holder)
        self.used -= size
        self._sums[user] -= size
        if not theirs:
            del self._of[user], self._sums[user]
        self._over()

    def _newest(self, largest: str, user: str, holder: Holder, without: Holder | None) -> Iterator[Holder]:
        """In which order this user's would give way, the holder being one more of `user`."""
        if user == largest and holder not in self._user:
            yield holder
        yield from (each for each in reversed(self._of.get(largest, ())) if each != without)

    def _size(self, holder: Holder) -> int:
        user = self._user.get(holder)
        return 0 if user is None else self._of[user][holder]

    def _beyond(self, used: int, others: int) -> bool:
        return others + max(0, used - self._own) > self._most_shared

    def _over(self) -> bool:
        return self._shared(max(0, self.used - self._own)) > self._most_shared
