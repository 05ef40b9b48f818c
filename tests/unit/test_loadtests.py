"""The load test's judgement: percentiles, limits, and that gevent never gets into anything but locust's process."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.__main__ import SCENARIOS
from loadtests.figures import Sample, error_rate, percentile, summarise, table, violations

ROOT = Path(__file__).parents[2]


def calls(count: int, *, start: str = "cold", seconds: float = 1.0, error: str = "") -> list[Sample]:
    return [Sample(start, seconds, 2 * seconds, error) for _ in range(count)]


@given(values=st.lists(st.floats(0, 1e6), min_size=1), percent=st.floats(0, 100))
def test_a_percentile_is_one_of_the_values_and_so_many_are_not_above_it(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-9
    assert sum(value < found for value in values) < max(len(values) * percent / 100, 1)


def test_percentiles_of_a_hundred() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert math.isnan(percentile([], 50))


def test_failed_calls_count_as_errors_and_not_as_times() -> None:
    samples = [*calls(3), *calls(1, seconds=100, error="HTTP 503"), *calls(2, start="warm", seconds=0.5)]
    found = summarise(samples)
    assert (found["cold"]["calls"], found["cold"]["first_token_p99"], found["warm"]["latency_p50"]) == (3, 1.0, 1.0)
    assert error_rate(samples) == 1 / 6 and error_rate([]) == 1.0
    assert "calls 6, errors 1" in table(samples) and "1.000" in table(samples)


def test_limits_that_are_kept_say_nothing_and_each_broken_one_says_what() -> None:
    limits = {"error_rate": 0.0, "cold": {"least": 3, "first_token_p95": 1.0}, "warm": {"latency_p50": 5.0}}
    good = [*calls(3), *calls(1, start="warm")]
    assert violations(limits, good) == []
    bad = violations(limits, [*calls(2, seconds=1.5), *calls(1, error="HTTP 503")])
    assert [sentence.split(":")[0] for sentence in bad] == [
        "error rate",
        "cold calls",
        "cold first_token_p95",
        "warm latency_p50",
    ]
    assert "1.500 s, and at most 1.0 s is allowed" in bad[2] and "nan" in bad[3], "no call at all keeps no limit"


@pytest.mark.parametrize("limits", [{"errors": 0}, {"cold": {"first_token_p96": 1}}])
def test_a_misspelt_limit_is_an_error_and_not_a_limit_that_is_kept(limits: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="there is no limit"):
        violations(limits, calls(1))


def test_every_scenario_has_limits_that_are_known() -> None:
    from loadtests.__main__ import SCENARIOS

    written = tomllib.loads((ROOT / "loadtests" / "slo.toml").read_text())
    assert written.keys() == SCENARIOS.keys()
    for limits in written.values():
        violations(limits, calls(1))
        assert limits["error_rate"] == 0


def test_a_scenario_that_waits_for_zero_takes_as_long_as_that_takes() -> None:
    cycle, steady = SCENARIOS["idle_cycle"], SCENARIOS["steady"]
    assert (cycle.given(seconds=0, idle=5).seconds, cycle.given(seconds=0, idle=5).idle_seconds) == (200, 5)
    assert cycle.given(seconds=0, idle=0) == cycle and cycle.given(seconds=0, idle=0.5).seconds == cycle.seconds
    assert cycle.given(seconds=17, idle=5).seconds == 17, "what is said counts"
    assert steady.given(seconds=0, idle=90).seconds == steady.seconds
