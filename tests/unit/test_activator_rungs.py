"""A rung that gave a wrong answer is passed over: for that revision, on that node, for a while or until it was made
anew.
"""

from __future__ import annotations

from activator.policy.quarantine import BAD_SECONDS, Quarantine


def test_the_ladder_ends_with_nothing_kept() -> None:
    quarantine = Quarantine()
    assert quarantine.add("rev", "n", "parked", 0.0) == "standby"
    assert quarantine.add("rev", "n", "standby", 0.0) == "plain"
    assert quarantine.add("rev", "n", "plain", 0.0) is None
    assert quarantine.is_usable("rev", "n", "plain", 0.0), "the last one is never passed over"


def test_a_bad_rung_below_is_skipped() -> None:
    quarantine = Quarantine()
    quarantine.add("rev", "n", "standby", 0.0)
    assert quarantine.add("rev", "n", "parked", 1.0) == "plain"


def test_it_is_that_revision_on_that_node_for_that_long() -> None:
    quarantine = Quarantine()
    quarantine.add("rev", "n", "parked", 10.0)
    assert not quarantine.is_usable("rev", "n", "parked", 10.0 + BAD_SECONDS - 1)
    assert quarantine.is_usable("rev", "n", "parked", 10.0 + BAD_SECONDS)
    assert (
        quarantine.is_usable("rev", "m", "parked", 11.0)
        and quarantine.is_usable("other", "n", "parked", 11.0)
        and quarantine.is_usable("rev", "n", "standby", 11.0)
    )
    assert quarantine.of("rev", 11.0) == [("n", "parked")] and quarantine.of("rev", 10.0 + BAD_SECONDS) == []


def test_a_plain_start_makes_the_standby_good_and_a_revision_that_is_gone_is_forgotten() -> None:
    quarantine = Quarantine()
    quarantine.add("rev", "n", "parked", 0.0)
    quarantine.add("rev", "n", "standby", 0.0)
    quarantine.clear("rev", "n")
    assert quarantine.of("rev", 1.0) == [("n", "parked")]
    quarantine.clear("unheard", "n")
    quarantine.forget("rev")
    assert quarantine.of("rev", 1.0) == []
