"""The names, units and labels of what is scraped, after Prometheus' conventions, and what is counted."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator

import pytest

from activator.edges import metrics as of_activator
from pilotlight.exposition import Family, Histogram, text
from router.ledger import metrics as of_ledger
from router.metrics import Metrics
from router.spool.record import Tokens
from runtime.node import metrics as of_agent
from runtime.wire import Phase
from tests.router_world import KEY, endpoint_row, get, world

UNITS = (
    "_seconds",
    "_bytes",
    "_requests",
    "_total",
    "_replicas",
    "_routers",
    "_nodes",
    "_endpoints",
    "_rows",
    "_keys",
    "_workers",
    "_standbys",
    "_connections",
)


def families() -> Iterator[Family]:
    """Every family, with something in it."""
    metrics = Metrics()
    metrics.held = lambda: {"tiny": 1}
    metrics.ended(
        "tiny",
        status=200,
        start="cold",
        rung="standby",
        held=0.1,
        first_token=0.2,
        total=0.3,
        phases=(Phase(name="load", at=0.0, seconds=0.1),),
        tokens=Tokens(1, 0, 1),
    )
    metrics.refused(401)
    yield from metrics.collect()


def of_others() -> Iterator[Family]:
    """Of the processes that are no router."""
    yield from of_activator.collect(None, {("standby", "ready"): 1}, 0)
    yield from of_ledger.collect(keys=1, workers=1, waiting=1, unpriced=1, settled=1, corrected=1, rejected=1)
    yield from of_agent.collect(None)


@pytest.mark.parametrize("family", [*families(), *of_others()], ids=lambda family: family.name)
def test_a_family(family: Family) -> None:
    name = family.name + "_total" if family.type == "counter" else family.name  # as it is exposed
    assert re.fullmatch(r"pilotlight_(router|activator|ledger|agent)_[a-z]+(_[a-z]+)*", family.name)
    assert name.endswith(UNITS)
    assert name.endswith("_total") == (family.type == "counter")
    assert not name.endswith(("_milliseconds", "_ms", "_count", "_sum", "_bucket"))
    assert family.documentation.endswith(".")
    samples = list(family.samples)
    assert samples
    assert set(family.labels) <= {"endpoint", "code", "kind", "phase", "rung", "state", "outcome"}
    assert (family.type == "histogram") == isinstance(samples[0][1], Histogram)
    if family.type == "histogram":
        assert name.endswith("_seconds")


def test_all_that_operators_need_is_there() -> None:
    names = {family.name.removeprefix("pilotlight_router_") for family in families()}
    assert names == {
        "requests",
        "tokens",
        "cold_starts",
        "uncounted_answers",
        "held_requests",
        "hold_seconds",
        "time_to_first_token_seconds",
        "latency_seconds",
        "cold_start_phase_seconds",
        "connections",
        "connections_turned_away",
        "waiting_connections",
    }


async def test_what_is_counted() -> None:
    async with world() as w:
        w.show(endpoint_row())
        client = await w.client()
        client.post(stream=True)
        await w.wait_held(1)
        w.router.metrics.held = w.hold.held
        assert 'pilotlight_router_held_requests{endpoint="tiny"} 1.0' in text(w.router.metrics.collect())
        await asyncio.sleep(0.01)  # the start takes a while
        w.show(
            endpoint_row(w.row(rung="parked", phases=(Phase(name="load", at=time.monotonic() - 0.005, seconds=0.002),)))
        )
        await client.answer()
        await w.ask()
        for options in (
            {"key": None},
            {"body": b"{"},
            {"body": b"x" * (2 << 20)},
            {"url": "/e/none/v1/completions", "prompt": "a"},
        ):
            await w.ask(**options)
        for path, method in (("/nothing", "GET"), ("/v1/chat/completions", "GET"), ("/v1/models", "PUT")):
            await get(w, path, method=method)
        client = await w.client()
        client.send(b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n")
        assert (await client.answer()).status == 404
        told = text(w.router.metrics.collect())
        for line in (
            'requests_total{code="200",endpoint="tiny"} 2.0',
            'requests_total{code="400",endpoint=""} 1.0',
            'requests_total{code="401",endpoint=""} 1.0',
            'requests_total{code="404",endpoint=""} 3.0',
            'requests_total{code="405",endpoint=""} 2.0',
            'requests_total{code="413",endpoint=""} 1.0',
            'tokens_total{endpoint="tiny",kind="input"} 10.0',
            'tokens_total{endpoint="tiny",kind="cached"} 4.0',
            'tokens_total{endpoint="tiny",kind="output"} 6.0',
            'cold_starts_total{endpoint="tiny",rung="parked"} 1.0',
            'hold_seconds_count{endpoint="tiny"} 1.0',
            'time_to_first_token_seconds_count{endpoint="tiny"} 1.0',
            'latency_seconds_count{endpoint="tiny"} 2.0',
            *(
                f'cold_start_phase_seconds_count{{phase="{phase}",rung="parked"}} 1.0'
                for phase in ("hold", "load", "first_token")
            ),
        ):
            assert "pilotlight_router_" + line in told, line
        for secret in (KEY, KEY[-4:], "default", "r1", "p1"):
            assert f'="{secret}"' not in told
