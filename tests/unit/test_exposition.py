"""The text of a scrape, read by Prometheus' own reader; bounded, in slices, and whole even while a process is away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pilotlight.exposition import Exposition, Family, Histogram, ask, text
from router.metrics import OTHER, Metrics
from router.spool.record import Tokens

NOTHING: dict[str, Any] = {
    "status": 200,
    "start": "warm",
    "held": 0.0,
    "first_token": None,
    "total": 0.3,
    "phases": (),
    "tokens": Tokens(1, 0, 2),
}


def read(said: str) -> dict[str, dict[str, float]]:
    """By sample and its labels, as Prometheus understands them."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(said):
        for sample in family.samples:
            found.setdefault(sample.name, {})[",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))] = (
                sample.value
            )
    return found


def test_prometheus_reads_what_was_meant() -> None:
    histogram = Histogram()
    for seconds in (0.001, 0.3, 0.3, 9999.0):
        histogram.observe(seconds)
    odd = 'a"b\\c\nd'
    found = read(
        text(
            [
                Family("a_requests", "counter", "Things.", ("endpoint", "code"), [((odd, "200"), 3)]),
                Family("a_bytes", "gauge", "Bytes.", (), [((), 1.5)]),
                Family("a_seconds", "histogram", "Time.", ("phase",), [(("load",), histogram)]),
            ]
        )
    )
    assert found["a_requests_total"] == {f"code=200,endpoint={odd}": 3.0}
    assert found["a_bytes"] == {"": 1.5}
    assert found["a_seconds_bucket"]["le=0.25,phase=load"] == 1.0
    assert found["a_seconds_bucket"]["le=0.5,phase=load"] == 3.0
    assert found["a_seconds_bucket"]["le=+Inf,phase=load"] == 4.0 == found["a_seconds_count"]["phase=load"]
    assert found["a_seconds_sum"]["phase=load"] == histogram.total


def test_series_are_bounded_and_nothing_is_left_out_of_the_sum() -> None:
    metrics = Metrics(most_endpoints=10)
    metrics.held = lambda: {"e3": 2, "e50": 3, "e60": 4}
    for number in range(100):
        metrics.ended(f"e{number}", **NOTHING)
    metrics.refused(401)
    found = read(text(metrics.collect()))
    counted = found["pilotlight_router_requests_total"]
    assert sum(counted.values()) == 101.0
    assert len(counted) <= 13
    assert counted[f"code=200,endpoint={OTHER}"] >= 88.0
    held = found["pilotlight_router_held_requests"]
    assert sum(held.values()) == 9.0 and held["endpoint=e3"] == 2.0 and len(held) <= 13


def test_a_removed_endpoints_series_go_and_what_ends_after_it_makes_none() -> None:
    metrics, there = Metrics(), {"a", "b"}
    metrics.known = there.__contains__
    for name in ("a", "b"):
        metrics.ended(name, **NOTHING)
    there.remove("a")
    metrics.forget("a")
    metrics.ended("a", **NOTHING)
    found = read(text(metrics.collect()))["pilotlight_router_requests_total"]
    assert found == {"code=200,endpoint=b": 1.0, f"code=200,endpoint={OTHER}": 1.0}


def test_a_scrape_lets_others_have_their_turn_and_tells_what_other_processes_say(tmp_path: Path) -> None:
    async def scene() -> None:
        metrics = Metrics(most_endpoints=100)
        for number in range(100):
            metrics.ended(f"e{number}", **NOTHING)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        ledger, front = tmp_path / "ledger", tmp_path / "front"
        told = Exposition(lambda: [Family("pilotlight_ledger_keys", "gauge", "Keys.", (), [((), 7)])])
        await told.on_socket(ledger)
        exposition = Exposition(metrics.collect, others=(ledger, tmp_path / "away"))
        await exposition.on_socket(front)
        busy = asyncio.create_task(others())
        found = read((await ask(front)).decode())
        busy.cancel()
        assert len(found["pilotlight_router_latency_seconds_count"]) == 100
        assert found["pilotlight_ledger_keys"] == {"": 7.0}
        assert turns > 20, "five thousand lines, two hundred at a time"
        told.close()
        exposition.close()

    asyncio.run(scene())


def test_a_taken_port_costs_the_metrics_only(tmp_path: Path) -> None:
    async def scene() -> None:
        first = Exposition(list)
        await first.on_port(0)
        assert first._server is not None
        port = first._server.sockets[0].getsockname()[1]
        second = Exposition(list)
        await second.on_port(port)
        second.close()
        first.close()
        await Exposition(list).on_socket(tmp_path / "none" / "m.sock")

    asyncio.run(scene())
