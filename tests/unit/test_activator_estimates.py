"""How long a start takes: its own past first, then that of others from the same rung by size, then a rough prior; never
0.
"""

from __future__ import annotations

from typing import get_args

import pytest

from activator.policy.estimates import PastStart, StartEstimates, prior
from runtime.wire import Rung

GB = 1_000_000_000


def test_without_any_past_there_is_a_prior_that_grows_with_the_size_and_falls_with_the_rung() -> None:
    fresh = StartEstimates()
    seconds = [fresh.seconds("r", rung, GB) for rung in ("parked", "standby", "stored", "staged")]
    assert 0 < seconds[0] < seconds[1] < seconds[2] and seconds[3] > seconds[1]
    for rung in get_args(Rung):
        assert fresh.seconds("r", rung, GB) < fresh.seconds("r", rung, 100 * GB)
        assert fresh.seconds("r", rung, 0) > 0


def test_its_own_past_from_that_rung_counts_and_only_the_last_of_it() -> None:
    estimates = StartEstimates([PastStart("r", "standby", GB, 60.0)])
    for seconds in (1.0, 9.0, 2.0, 3.0, 2.5):
        estimates.learn(PastStart("r", "standby", GB, seconds))
    estimates.learn(PastStart("r", "parked", GB, 0.05))
    assert (estimates.seconds("r", "standby", GB), estimates.seconds("r", "parked", GB)) == (2.5, 0.05)
    assert estimates.rung("r") == "parked" and estimates.rung("new") == "standby"


def test_a_model_that_never_started_is_judged_by_others_of_its_size() -> None:
    slow = [PastStart(f"small{n}", "standby", GB // 10, 10 * prior("standby", GB // 10)) for n in range(9)]
    quick = [PastStart(f"large{n}", "standby", 100 * GB, prior("standby", 100 * GB) / 2) for n in range(9)]
    estimates = StartEstimates(slow + quick)
    assert estimates.seconds("new", "standby", GB // 8) == pytest.approx(10 * prior("standby", GB // 8), rel=0.01)
    assert estimates.seconds("new", "standby", 80 * GB) == pytest.approx(prior("standby", 80 * GB) / 2, rel=0.01)
    assert estimates.seconds("new", "stored", GB) == pytest.approx(prior("stored", GB), rel=0.01), (
        "another rung says nothing of this one"
    )


def test_one_that_was_ready_at_once_is_not_expected_in_no_time() -> None:
    assert StartEstimates([PastStart("r", "parked", 0, 0.0)]).seconds("r", "parked", 0) > 0
