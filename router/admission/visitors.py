"""Who is connected, by address, and who gives way when there is no room. Before step 1; pure.

At the bound the newcomer is let in all the same, and somebody of the address that has most connections gives way. One
that is only idle or refused goes first, then one that is still sending. So whoever comes from many addresses at once
has as much as each of them. One address never keeps others out. Those whose requests wait or are answered never give
way. The failure to survive is a flood of connections.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal, Protocol

Standing = Literal["idle", "sending", "served"]
# of an address' connections, oldest first, each time one must give way; those passed over are looked at again last
LOOKED_AT = 32
# as who all without a key share what all have: they may have any number of addresses, and a key has one share
STRANGERS = "strangers"
LOCAL = ""  # the address of who comes by a Unix socket, or is a trusted proxy: many callers, whom it counts itself


class Visitor(Protocol):
    """One connection, from before its TLS handshake on."""

    @property
    def standing(self) -> Standing: ...

    def give_way(self) -> None:
        """Close at once. It has been counted out already."""


class Visitors:
    """`most` in all, and `most_each` of one address. What happened at the bounds is counted: `refused`, `gave_way`."""

    def __init__(self, *, most: int, most_each: int) -> None:
        self.most, self.most_each = most, most_each
        self._of: dict[str, OrderedDict[Visitor, None]] = {}
        self._by_size: dict[int, dict[str, None]] = {}  # how many connections → the addresses that have so many
        self._largest = 0
        self._all: dict[Visitor, str] = {}
        self.refused = self.gave_way = 0

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, address: str, visitor: Visitor) -> bool:
        """Let it in, or return False.

        1. The address has as many as it may: one of its own gives way, or it stays outside.
        2. There is room.
        3. There is none: one of whoever has most gives way, or it stays outside.
        """
        address = household(address)
        own = len(self._of.get(address, ()))
        if address != LOCAL and own >= self.most_each:  # 1
            entered = self._make_room(address)
        elif len(self._all) < self.most:  # 2
            entered = True
        else:  # 3
            largest = address if own == self._largest else next(iter(self._by_size[self._largest]))
            entered = self._make_room(largest)
        if entered:
            self._all[visitor] = address
            self._of.setdefault(address, OrderedDict())[visitor] = None
            self._resize(address, own := len(self._of[address]) - 1, own + 1)
        else:
            self.refused += 1
        return entered

    def leave(self, visitor: Visitor) -> None:
        """It is gone. Does nothing if it is not here."""
        address = self._all.pop(visitor, None)
        if address is None:
            return
        theirs = self._of[address]
        del theirs[visitor]
        self._resize(address, len(theirs) + 1, len(theirs))
        if not theirs:
            del self._of[address]

    def _make_room(self, address: str) -> bool:
        theirs, sending = self._of[address], None
        for _ in range(min(LOOKED_AT, len(theirs))):
            visitor = next(iter(theirs))
            if visitor.standing == "idle":
                return self._turn_out(visitor)
            if sending is None and visitor.standing == "sending":
                sending = visitor
            theirs.move_to_end(visitor)
        return sending is not None and self._turn_out(sending)

    def _turn_out(self, visitor: Visitor) -> bool:
        self.gave_way += 1
        self.leave(visitor)
        visitor.give_way()
        return True

    def _resize(self, address: str, before: int, now: int) -> None:
        if before:
            same = self._by_size[before]
            del same[address]
            if not same:
                del self._by_size[before]
        if now:
            self._by_size.setdefault(now, {})[address] = None
        if now > self._largest or self._largest not in self._by_size:
            self._largest = now  # it was the only one of the largest, and has one more or less


def standing_of(turns: Iterable[Standing]) -> Standing:
    """Of a connection with these requests on it."""
    found = set(turns)
    return "served" if "served" in found else "sending" if "sending" in found else "idle"


def household(address: str) -> str:
    """Whoever may be taken for one: an IPv4 address, or all of an IPv6 network of 64 bits, which is the least that
    anyone is given.
    """
    if ":" not in address:
        return address
    found = ipaddress.IPv6Address(address.partition("%")[0])
    return str(found.ipv4_mapped) if found.ipv4_mapped else found.packed[:8].hex()
