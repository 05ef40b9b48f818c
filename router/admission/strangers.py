"""Decides what a request is told that showed no good key, and how many such an address may send: the error itself, or
429. Step 2.

Guessing keys, and requests that are none, cost us a moment each. Beyond the rate of their address
(`router/admission/rates.py`) they are told to wait, and their connection ends. Requests with a good key are never asked
about here, however many of the others come from the same address. Nor are probes (`OPEN`): whoever looks after this
router may stand behind the same address as its strangers. The failure to survive is a flood of them. Through a proxy
that is trusted, the address is its caller's.
"""

from __future__ import annotations

from collections.abc import Iterable

from router.admission.proxies import Proxies
from router.admission.rates import Rates
from router.admission.visitors import LOCAL, household
from router.clock import Clock
from router.errors import RouterError, TooMany

MOST_STRANGE = 8  # requests of one connection without a good key; then it ends: the next cost a handshake
OPEN = frozenset({"/healthz", "/readyz", "/openapi.json"})  # pages that nobody needs a key for, and everybody gets

Headers = Iterable[tuple[bytes, bytes]]


class Strangers:
    """All of a worker's. `per_second`: refused requests from one address; 0: there is no limit."""

    def __init__(self, per_second: float, proxies: Proxies, clock: Clock) -> None:
        self._rates = Rates(per_second)
        self._proxies = proxies
        self._clock = clock

    def refusal(self, error: RouterError, peer: str, headers: Headers) -> RouterError:
        """What such a request is told that is refused with `error`. It counts, unless the fault is ours."""
        caller = self._caller(peer, headers)
        wait = self._rates.spend(caller, self._clock.time()) if caller != LOCAL and 400 <= error.status < 500 else 0.0
        return _too_many(wait) if wait else error

    def turned_away(self, peer: str, headers: Headers) -> TooMany | None:
        """What the next is told before anything is looked up for it; None where there is room. Counts nothing."""
        caller = self._caller(peer, headers)
        wait = self._rates.wait(caller, self._clock.time()) if caller != LOCAL else 0.0
        return _too_many(wait) if wait else None

    def _caller(self, peer: str, headers: Headers) -> str:
        return household(self._proxies.caller(peer, headers))


def _too_many(wait: float) -> TooMany:
    return TooMany(
        "Too many requests without a good key have come from this address. Send 'Authorization: Bearer pl_…' with a key of the endpoint; "
        "requests with one are not counted.",
        retry_after=max(1.0, wait),
    )
