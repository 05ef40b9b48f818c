"""Limits how often an address may do what costs us something while it has shown no key. Before step 1, and in step 2.

Each address has a token bucket: so many tokens come a second, and ten seconds' worth may be saved up. Whoever shows a
key gets its token back and one more. So callers with keys are never held up by it, however many stand behind one
address. And an address that many of them share has more room for the rest. Pure: time is an argument. Two failures to
survive. There are more addresses than are kept: the one that was heard of longest ago is forgotten. That gives it a
full bucket, no more than a new address has. An address fills its own bucket with tokens that it never spent.
"""

from __future__ import annotations

from collections import OrderedDict

SAVED_SECONDS = 10.0  # so much of its rate an address may use at once
EARNED = 2  # tokens for a key that was accepted: the one that was taken, and one more
MOST_EARNED = 10  # times what may be saved up
MOST_ADDRESSES = 16_384


class Rates:
    """`per_second`: tokens an address gets a second; 0: there is no limit."""

    def __init__(self, per_second: float, *, most_addresses: int = MOST_ADDRESSES) -> None:
        self._per_second, self._most_addresses = per_second, most_addresses
        self._saved = max(1.0, per_second * SAVED_SECONDS)
        # address → tokens, and when it had them; heard of last: last
        self._of: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._of)

    def spend(self, address: str, now: float) -> float:
        """0.0, and a token is taken; or the seconds until there is one."""
        if not self._per_second:
            return 0.0
        tokens = self._tokens(address, now)
        if tokens < 1.0:
            self._keep(address, tokens, now)
            return (1.0 - tokens) / self._per_second
        self._keep(address, tokens - 1.0, now)
        return 0.0

    def wait(self, address: str, now: float) -> float:
        """As `take`, but nothing is taken."""
        tokens = self._tokens(address, now) if self._per_second else 1.0
        return 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._per_second

    def earned(self, address: str, now: float) -> None:
        """A key of somebody at this address was accepted."""
        if self._per_second:
            self._keep(address, min(self._tokens(address, now) + EARNED, self._saved * MOST_EARNED), now)

    def _tokens(self, address: str, now: float) -> float:
        tokens, then = self._of.get(address, (self._saved, now))
        return tokens if tokens >= self._saved else min(self._saved, tokens + (now - then) * self._per_second)

    def _keep(self, address: str, tokens: float, now: float) -> None:
        self._of[address] = (tokens, now)
        self._of.move_to_end(address)
        if len(self._of) > self._most_addresses:
            self._of.popitem(last=False)
