"""The canary of an embedding model: what counts as the same vector, and what is remembered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime.engine import canary_embed
from runtime.engine.canary_embed import check, differs
from runtime.errors import CanaryMismatch

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


async def test_the_first_is_recorded_and_the_next_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, answers = tmp_path / "canary.json", iter([[math.nan] * 64, RECORDED, RECORDED, RECORDED[::-1]])

    async def ask(engine: object, request_id: str) -> list[float]:
        return next(answers)

    monkeypatch.setattr(canary_embed, "ask", ask)
    engine: Any = None
    with pytest.raises(CanaryMismatch, match="give no embedding"):
        await check(engine, record, "canary")
    assert not record.exists(), "what is no vector is nothing to compare with"
    await check(engine, record, "canary")
    await check(engine, record, "canary")
    with pytest.raises(CanaryMismatch, match="the canary of canary points elsewhere"):
        await check(engine, record, "canary")
