"""Before step 1: whoever comes and goes in whatever order, no bound on connections is passed: a state machine."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router.admission.visitors import Standing, Visitors
from tests.fakes_router import Someone


class Coming(RuleBasedStateMachine):
    """The bounds hold, whoever comes and goes, and what is counted is what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.visitors = Visitors(most=7, most_each=4)
        self.here: dict[Someone, str] = {}
        self.dice = random.Random(1)

    @rule(address=st.sampled_from("abc"), standing=st.sampled_from(["idle", "sending", "served"]))
    def come(self, address: str, standing: Standing) -> None:
        someone = Someone(standing)
        full = len(self.here) == 7 or list(self.here.values()).count(address) == 4
        if self.visitors.enter(address, someone):
            self.here[someone] = address
        else:
            assert full
        gone = [each for each in self.here if each.turned_out]
        assert len(gone) <= 1 and (full or not gone) and not any(each.standing == "served" for each in gone)
        for each in gone:
            del self.here[each]

    @rule(which=st.integers(0, 6))
    def go(self, which: int) -> None:
        if self.here:
            someone = list(self.here)[which % len(self.here)]
            self.visitors.leave(someone)
            self.visitors.leave(someone)
            del self.here[someone]

    @invariant()
    def all_adds_up(self) -> None:
        addresses = list(self.here.values())
        assert len(self.visitors) == len(self.here) <= 7
        assert all(addresses.count(address) <= 4 for address in addresses)
        assert self.visitors._largest == max((addresses.count(address) for address in addresses), default=0)


TestComing = Coming.TestCase


TestComing.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
