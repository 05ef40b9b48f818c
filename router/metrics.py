"""What operators scrape from this worker, on a private port of its own: `pilotlight_router_…`, no key, no request in a label.

The counters are plain numbers, changed on the loop and read by the scraping thread, because a warm request has no time for
locks. What was refused before it was any endpoint's has the empty endpoint. The failure to survive is a taken port: the
worker serves without metrics and says so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.wire import Phase

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

log = structlog.get_logger()


class Histogram:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        below, result = 0, []
        for edge, count in zip((*map(str, SECONDS), "+Inf"), self.counts, strict=True):
            below += count
            result.append((edge, float(below)))
        return result


class Series:
    """One endpoint's."""

    __slots__ = ("cold_starts", "first_token", "hold", "latency", "requests", "tokens", "uncounted")

    def __init__(self) -> None:
        self.requests: dict[int, int] = defaultdict(int)
        self.cold_starts: dict[str, int] = defaultdict(int)  # by rung
        self.hold, self.first_token, self.latency = Histogram(), Histogram(), Histogram()
        self.tokens = [0, 0, 0]
        self.uncounted = 0


class Metrics(Collector):
    """`held` gives the number of waiting requests by endpoint."""

    def __init__(self) -> None:
        self._series: dict[str, Series] = {}
        self._phases: dict[tuple[str, str], Histogram] = {}  # by phase and rung
        self.held: Callable[[], dict[str, int]] = dict

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
        tokens: tuple[Any, ...],
    ) -> None:
        """One request has ended; times in seconds. `status` 0: the client left before it had one. `first_token`: of a
        stream. `rung` and `phases`: of the cold start it waited for. `tokens` begins with input, cached and output."""
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
        counted[0] += tokens[0]
        counted[1] += tokens[1]
        counted[2] += tokens[2]

    def uncounted(self, endpoint: str) -> None:
        """A whole answer whose tokens nobody counted."""
        self._of(endpoint).uncounted += 1

    def refused(self, status: int) -> None:
        """A request that was refused before it was any endpoint's."""
        self._of("").requests[status] += 1

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("pilotlight_router_requests", "Requests ended, by HTTP status.", labels=("endpoint", "code"))
        tokens = CounterMetricFamily("pilotlight_router_tokens", "Tokens, by kind; cached is part of input.", labels=("endpoint", "kind"))
        cold = CounterMetricFamily(
            "pilotlight_router_cold_starts", "Requests that waited for a cold start, by where it began.", labels=("endpoint", "rung")
        )
        uncounted = CounterMetricFamily(
            "pilotlight_router_uncounted_answers", "Whole answers whose tokens nobody counted.", labels=("endpoint",)
        )
        held = GaugeMetricFamily("pilotlight_router_held_requests", "Requests waiting for a slot.", labels=("endpoint",))
        hold = HistogramMetricFamily(
            "pilotlight_router_hold_seconds", "Time requests waited for a slot, where they did.", labels=("endpoint",)
        )
        first = HistogramMetricFamily(
            "pilotlight_router_time_to_first_token_seconds", "Admission to the first token of a stream.", labels=("endpoint",)
        )
        latency = HistogramMetricFamily("pilotlight_router_latency_seconds", "Admission to the last byte.", labels=("endpoint",))
        phases = HistogramMetricFamily(
            "pilotlight_router_cold_start_phase_seconds",
            "Phases of cold starts, as the requests that waited for them had them, by where the start began.",
            labels=("phase", "rung"),
        )
        for name, series in list(self._series.items()):
            for code, count in list(series.requests.items()):
                requests.add_metric((name, str(code)), count)
            if not name:
                continue
            for kind, count in zip(("input", "cached", "output"), series.tokens, strict=True):
                tokens.add_metric((name, kind), count)
            uncounted.add_metric((name,), series.uncounted)
            for rung, count in list(series.cold_starts.items()):
                cold.add_metric((name, rung), count)
            for family, histogram in ((hold, series.hold), (first, series.first_token), (latency, series.latency)):
                family.add_metric((name,), histogram.buckets(), histogram.total)
        for name, count in self.held().items():
            held.add_metric((name,), count)
        for labels, histogram in list(self._phases.items()):
            phases.add_metric(labels, histogram.buckets(), histogram.total)
        yield from (requests, tokens, cold, uncounted, held, hold, first, latency, phases)

    def serve(self, port: int) -> None:
        """Answer scrapes on the loopback, in a thread."""
        registry = CollectorRegistry()
        registry.register(self)
        try:
            start_http_server(port, addr="127.0.0.1", registry=registry)
        except OSError as error:
            log.error("no metrics: their port is taken", action="metrics", port=port, reason=str(error))

    def _of(self, endpoint: str) -> Series:
        series = self._series.get(endpoint)
        if series is None:
            series = self._series[endpoint] = Series()
        return series
