"""Every fuzz target takes its own seeds, and some mutations of them: `python -m tests.fuzz` goes on from there for
hours.
"""

from __future__ import annotations

import random
from importlib import import_module

import pytest

from tests.fuzz.__main__ import names

MUTATIONS = 40  # of each seed; the fuzzer does thousands a second


def mutated(data: bytes, dice: random.Random) -> bytes:
    """A byte changed, cut out, doubled, or the rest cut off."""
    at = dice.randrange(len(data) + 1)
    return dice.choice(
        (
            data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :],
            data[:at] + data[at + 1 :],
            data[:at] + data[at:] * 2,
            data[:at],
        )
    )


@pytest.mark.parametrize("name", names())
def test_a_target_survives_its_seeds_and_what_is_near_them(name: str) -> None:
    module, dice = import_module(f"tests.fuzz.{name}"), random.Random(name)
    assert module.SEEDS, "a fuzzer starts from inputs that are taken"
    for seed in module.SEEDS:
        module.target(seed)
        for _ in range(MUTATIONS):
            module.target(mutated(mutated(seed, dice), dice))
