"""Logs who came with a wrong admin key: one line a minute and address, with how many there were.

It is a line and no row of `audit`: whoever reaches the port could fill a table that nobody can delete from. And what a
stranger tried is not what an operator did. Nothing of the key is told. Pure: time is an argument. The failure to
survive is a flood from many addresses: those remembered are bounded, and all others count as one.
"""

from __future__ import annotations

EVERY_SECONDS = 60.0
MOST_ADDRESSES = 64
OTHERS = "others"


class WrongKeys:
    def __init__(self) -> None:
        self._of: dict[str, tuple[float, int]] = {}  # address → when it was told of, and how many came since

    def came(self, address: str, now: float) -> tuple[str, int] | None:
        """(who, how many) to tell of now; None: this address was told of within the minute, and is counted."""
        who = address
        if who not in self._of and len(self._of) >= MOST_ADDRESSES:
            self._of = {name: seen for name, seen in self._of.items() if now - seen[0] < EVERY_SECONDS}
            who = who if len(self._of) < MOST_ADDRESSES else OTHERS
        logged_at, since = self._of.get(who, (now - EVERY_SECONDS, 0))
        if now - logged_at < EVERY_SECONDS:
            self._of[who] = (logged_at, since + 1)
            return None
        self._of[who] = (now, 0)
        return who, since + 1
