"""Canaries: what is remembered, what is compared, and which answers are the same. Vectors have a file of their own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from runtime.engine import canary_generate, canary_score
from runtime.engine.canary import CANARIES, check
from runtime.errors import CanaryMismatch
from runtime.tasks import KINDS

NO_ENGINE: Any = None


class Scripted:
    """A canary with these answers, which differ where they are not equal."""

    def __init__(self, *answers: object) -> None:
        self._answers = iter(answers)

    async def ask(self, engine: object, request_id: str) -> object:
        return next(self._answers)

    def differs(self, recorded: object, heard: object) -> str | None:
        return None if recorded == heard else f"said {heard}"


def test_every_task_that_is_deployed_has_one() -> None:
    assert set(CANARIES) == {task for task, kind in KINDS.items() if kind.canary is not None}


async def test_the_first_is_recorded_and_the_next_are_compared(tmp_path: Path) -> None:
    record = tmp_path / "canary.json"
    canary = Scripted(math.nan, [1, 2], [1, 2], [2, 1])
    with pytest.raises(CanaryMismatch, match="gives no answers"):
        await check(NO_ENGINE, canary, record, "canary")
    assert not record.exists(), "what is no answer is nothing to compare with"
    await check(NO_ENGINE, canary, record, "canary")
    await check(NO_ENGINE, canary, record, "canary")
    with pytest.raises(CanaryMismatch, match=r"the canary of canary said \[2, 1\]; its weights or its engine"):
        await check(NO_ENGINE, canary, record, "canary")


@pytest.mark.parametrize(
    ("heard", "says"),
    [
        ([(5, -0.1), (7, -2.0)], None),
        ([[5, -0.13], [7, -2.04]], None),
        ([(5, -0.1), (8, -2.0)], "said [5, 8], not [5, 7]"),
        ([(5, -0.1)], "said [5], not [5, 7]"),
        ([(5, -0.1), (7, -2.1)], "its token 1 the log-probability -2.1000"),
        ([(5, math.nan), (7, -2.0)], "its token 0 the log-probability nan"),
    ],
)
def test_text_is_the_same_token_for_token(heard: Any, says: str | None) -> None:
    found = canary_generate.differs([(5, -0.1), (7, -2.0)], heard)
    assert found is None if says is None else says in str(found)


@pytest.mark.parametrize(
    ("recorded", "heard", "same"),
    [
        (0.5, 0.5, True),
        (0.5, 0.51, True),
        (-9.0, -9.1, True),
        (0.5, 0.55, False),
        (-9.0, 9.0, False),
        (0.5, math.nan, False),
        (math.nan, math.nan, False),
        (math.inf, math.inf, False),
    ],
)
def test_a_score_is_the_same_within_what_sums_differ_by(recorded: float, heard: float, same: bool) -> None:
    assert (canary_score.differs(recorded, heard) is None) is same
