"""Decides whose TLS handshake is next. Before step 1; pure, time is an argument.

A handshake costs a millisecond of this worker, and nobody has shown a key yet. So those who wait for one stand in a
line an address, and the lines take turns. Who comes a thousand times waits behind himself, not in front of others. An
address that brings no keys is let in no faster than its rate. Whoever of it is still in line when the time for
handshakes is over is closed. Callers with good keys free the place of the next at once, however many share their
address. The failure to survive is a flood of connections, from one address or from many.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Generic, TypeVar

from router.admission.rates import Rates
from router.admission.visitors import LOCAL

Guest = TypeVar("Guest")


class Doorstep(Generic[Guest]):
    """`over_rate` counts those that left before their address' rate let them in."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._lines: dict[str, OrderedDict[Guest, None]] = {}
        self._address: dict[Guest, str] = {}
        self._turns: OrderedDict[str, None] = OrderedDict()  # addresses whose first may come in, whose turn it is first
        self._resting: dict[str, float] = {}  # addresses over their rate → until when
        self._ends: list[
            tuple[float, str]
        ] = []  # a heap of the same, and of some that have been woken before their time
        self.over_rate = 0

    def __len__(self) -> int:
        return len(self._address)

    def come(self, address: str, guest: Guest) -> None:
        self._address[guest] = address
        self._lines.setdefault(address, OrderedDict())[guest] = None
        if address not in self._resting:
            self._turns.setdefault(address)

    def leave(self, guest: Guest) -> None:
        """It waits no longer. Does nothing if it is not here."""
        address = self._address.get(guest)
        if address is not None:
            self.over_rate += address in self._resting
            self._remove(address, guest)

    def next(self, now: float) -> Guest | None:
        """Who may come in now; None where nobody waits, or all of them for their rates."""
        while self._ends and self._ends[0][0] <= now:
            self._wake(heapq.heappop(self._ends))
        while self._turns:
            address, _ = self._turns.popitem(last=False)
            if address != LOCAL and (wait := self._rates.spend(address, now)):
                self._resting[address] = now + wait
                heapq.heappush(self._ends, (now + wait, address))
                continue
            guest = next(iter(self._lines[address]))
            self._turns[address] = None
            self._remove(address, guest)
            return guest
        return None

    def due(self) -> float | None:
        """When `next` is to be asked again where it had nobody; None: once somebody comes."""
        return self._ends[0][0] if self._ends and self._address else None

    def spend(self, address: str, now: float) -> bool:
        """Somebody of this address costs us something else. Returns False where it is over its rate."""
        return address == LOCAL or not self._rates.spend(address, now)

    def earned(self, address: str, now: float) -> None:
        """A key of somebody at this address was accepted: there is room for its next."""
        self._rates.earned(address, now)
        if (until := self._resting.get(address)) is not None:
            self._wake((until, address))

    def _remove(self, address: str, guest: Guest) -> None:
        line = self._lines[address]
        del self._address[guest], line[guest]
        if not line:
            del self._lines[address]
            self._turns.pop(address, None)

    def _wake(self, end: tuple[float, str]) -> None:
        until, address = end
        if self._resting.get(address) == until:
            del self._resting[address]
            if address in self._lines:
                self._turns[address] = None
