"""The canary of an embedding model: what counts as the same vector."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from runtime.engine.canary_embed import differs

RECORDED = [math.sin(number) for number in range(1, 65)]


def test_another_order_of_summing_is_the_same_vector() -> None:
    assert differs(RECORDED, RECORDED) is None
    assert differs(RECORDED, [value * (1.01 if place % 2 else 0.99) for place, value in enumerate(RECORDED)]) is None
    assert differs(RECORDED, [3 * value for value in RECORDED]) is None, "an embedding is a direction"


@pytest.mark.parametrize(
    ("heard", "says"),
    [
        ([-value for value in RECORDED], "cosine distance of 2.0000"),
        ([*RECORDED[:-8], *(0.0 for _ in range(8))], "points elsewhere"),
        (RECORDED[:-1], "has 63 values, not 64"),
        ([0.0] * 64, "no direction"),
        ([math.nan] * 64, "no direction"),
        ([math.inf, *RECORDED[1:]], "no direction"),
    ],
)
def test_what_means_something_else_differs(heard: Sequence[float], says: str) -> None:
    assert says in str(differs(RECORDED, heard))
