"""A rung that gave a wrong answer is passed over: for that revision, on that node, for a while or until it was made
anew.
"""

from __future__ import annotations

from activator.policy.quarantine import BAD_SECONDS, Rungs


def test_the_ladder_ends_with_nothing_kept() -> None:
    rungs = Rungs()
    assert rungs.mark("rev", "n", "parked", 0.0) == "standby"
    assert rungs.mark("rev", "n", "standby", 0.0) == "plain"
    assert rungs.mark("rev", "n", "plain", 0.0) is None
    assert rungs.good("rev", "n", "plain", 0.0), "the last one is never passed over"


def test_a_bad_rung_below_is_skipped() -> None:
    rungs = Rungs()
    rungs.mark("rev", "n", "standby", 0.0)
    assert rungs.mark("rev", "n", "parked", 1.0) == "plain"


def test_it_is_that_revision_on_that_node_for_that_long() -> None:
    rungs = Rungs()
    rungs.mark("rev", "n", "parked", 10.0)
    assert not rungs.good("rev", "n", "parked", 10.0 + BAD_SECONDS - 1)
    assert rungs.good("rev", "n", "parked", 10.0 + BAD_SECONDS)
    assert (
        rungs.good("rev", "m", "parked", 11.0)
        and rungs.good("other", "n", "parked", 11.0)
        and rungs.good("rev", "n", "standby", 11.0)
    )
    assert rungs.bad("rev", 11.0) == [("n", "parked")] and rungs.bad("rev", 10.0 + BAD_SECONDS) == []


def test_a_plain_start_makes_the_standby_good_and_a_revision_that_is_gone_is_forgotten() -> None:
    rungs = Rungs()
    rungs.mark("rev", "n", "parked", 0.0)
    rungs.mark("rev", "n", "standby", 0.0)
    rungs.made_anew("rev", "n")
    assert rungs.bad("rev", 1.0) == [("n", "parked")]
    rungs.made_anew("unheard", "n")
    rungs.forget("rev")
    assert rungs.bad("rev", 1.0) == []
