"""The numbers that operators scrape from this worker, on a private port of its own: `pilotlight_router_…`, no key, no
request in a label.

The counters are plain numbers; `pilotlight/exposition.py` writes them down when somebody asks. Series are bounded.
Endpoints have some of their own from their first call until they are removed, so many of them at most. What is beyond
that, and what ends after its endpoint, counts under `(other)`. What was refused before it was any endpoint's has the
empty endpoint. The first worker also tells what activator, agent and ledger tell. What several workers count adds up
(`sum without (instance)`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from pilotlight.exposition import Family, Histogram, Sample
from router.admission.doorstep import Doorstep
from router.admission.rates import Rates
from router.admission.visitors import Visitors
from router.spool.record import Tokens
from runtime.wire import Phase

OTHER = "(other)"  # no endpoint can be called so


class Series:
    """One endpoint's."""

    __slots__ = ("cold_starts", "first_token", "hold", "latency", "requests", "tokens", "uncounted")

    def __init__(self) -> None:
        self.requests: dict[int, int] = defaultdict(int)
        self.cold_starts: dict[str, int] = defaultdict(int)  # by rung
        self.hold = Histogram()
        self.first_token = Histogram()
        self.latency = Histogram()
        self.tokens = [0, 0, 0]
        self.uncounted = 0


class Metrics:
    """`held` gives the number of waiting requests by endpoint, where there are any; `known` says whether there is such
    an endpoint.
    """

    def __init__(self, *, most_endpoints: int = 1000) -> None:
        self._most = most_endpoints
        self._series: dict[str, Series] = {}
        self._phases: dict[tuple[str, str], Histogram] = {}  # by phase and rung
        self.held: Callable[[], dict[str, int]] = dict
        self.connections = Visitors(most=1, most_each=1)
        self.step: Doorstep[Any] = Doorstep(Rates(0.0))
        self.known: Callable[[str], bool] = lambda _: True

    def ended(
        self,
        endpoint: str,
        *,
        status: int,
        start: str,
        rung: str = "",
        held: float,
        first_token: float | None,
        total: float,
        phases: tuple[Phase, ...],
        tokens: Tokens,
    ) -> None:
        """One request has ended; times in seconds. `status` 0: the client left before it had one. `first_token`: of a
        stream. `rung` and `phases`: of the cold start it waited for."""
        series = self._of(endpoint)
        series.requests[status] += 1
        series.latency.observe(total)
        if first_token is not None:
            series.first_token.observe(first_token)
        if held:
            series.hold.observe(held)
        if start == "cold":
            series.cold_starts[rung] += 1
            for phase in phases:
                self._phases.setdefault((phase.name, rung), Histogram()).observe(phase.seconds)
        counted = series.tokens
        counted[0] += tokens.input
        counted[1] += tokens.cached
        counted[2] += tokens.output

    def uncounted(self, endpoint: str) -> None:
        """A whole answer whose tokens nobody counted."""
        self._of(endpoint).uncounted += 1

    def refused(self, status: int) -> None:
        """A request that was refused before it was any endpoint's."""
        self._of("").requests[status] += 1

    def forget(self, endpoint: str) -> None:
        """There is no such endpoint any more."""
        self._series.pop(endpoint, None)

    def collect(self) -> Iterator[Family]:
        """All families. What changes while they are read is told as it is when its turn comes."""
        everybody = list(self._series.items())
        named = [(name, series) for name, series in everybody if name]
        yield Family(
            "pilotlight_router_requests",
            "counter",
            "Requests ended, by HTTP status.",
            ("endpoint", "code"),
            (((name, str(code)), count) for name, series in everybody for code, count in list(series.requests.items())),
        )
        yield Family(
            "pilotlight_router_tokens",
            "counter",
            "Tokens, by kind; cached is part of input.",
            ("endpoint", "kind"),
            (
                ((name, kind), n)
                for name, series in named
                for kind, n in zip(("input", "cached", "output"), series.tokens, strict=True)
            ),
        )
        yield Family(
            "pilotlight_router_cold_starts",
            "counter",
            "Requests that waited for a cold start, by where it began.",
            ("endpoint", "rung"),
            (((name, rung), count) for name, series in named for rung, count in list(series.cold_starts.items())),
        )
        yield Family(
            "pilotlight_router_uncounted_answers",
            "counter",
            "Whole answers whose tokens nobody counted; each is an error.",
            ("endpoint",),
            (((name,), series.uncounted) for name, series in named),
        )
        yield Family(
            "pilotlight_router_held_requests", "gauge", "Requests waiting for a slot.", ("endpoint",), self._held(named)
        )
        here = self.connections
        yield Family(
            "pilotlight_router_connections", "gauge", "Client connections that are open.", (), [((), len(here))]
        )
        yield Family(
            "pilotlight_router_connections_turned_away",
            "counter",
            "Client connections closed for others' sake. refused: newcomers. gave_way: idle ones, for newcomers. over_rate: those whose time "
            "for a handshake was over, because their address brought more without a good key than its rate.",
            ("outcome",),
            [(("refused",), here.refused), (("gave_way",), here.gave_way), (("over_rate",), self.step.over_rate)],
        )
        yield Family(
            "pilotlight_router_waiting_connections",
            "gauge",
            "Client connections whose TLS handshake has not begun.",
            (),
            [((), len(self.step))],
        )
        for field, name, documentation in (
            ("hold", "pilotlight_router_hold_seconds", "Time requests waited for a slot, where they did."),
            (
                "first_token",
                "pilotlight_router_time_to_first_token_seconds",
                "Admission to the first token of a stream.",
            ),
            ("latency", "pilotlight_router_latency_seconds", "Admission to the last byte."),
        ):
            samples = (((endpoint,), getattr(series, field)) for endpoint, series in named)
            yield Family(name, "histogram", documentation, ("endpoint",), samples)
        yield Family(
            "pilotlight_router_cold_start_phase_seconds",
            "histogram",
            "Phases of cold starts, as the requests that waited for them had them, by where the start began.",
            ("phase", "rung"),
            list(self._phases.items()),
        )

    def _held(self, named: list[tuple[str, Series]]) -> Iterator[Sample]:
        """Of those with series of their own, and of all others together."""
        held, rest = self.held(), 0
        for name, _ in named:
            if name != OTHER:
                yield (name,), held.pop(name, 0)
        for index, (name, count) in enumerate(sorted(held.items())):
            if len(named) + index < self._most:
                yield (name,), count
            else:
                rest += count
        if rest or any(name == OTHER for name, _ in named):
            yield (OTHER,), rest

    def _of(self, endpoint: str) -> Series:
        series = self._series.get(endpoint)
        if series is None:
            if endpoint and endpoint != OTHER and (len(self._series) > self._most or not self.known(endpoint)):
                return self._of(OTHER)
            series = self._series[endpoint] = Series()
        return series
