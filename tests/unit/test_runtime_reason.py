"""An engine's reasons: whole sentences, and no advice that nobody can follow here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.reason import first_sentences

ADVICE = (
    "User-specified max_model_len (999999) is greater than the derived max_model_len (max_position_embeddings=1024.0 in config.json). "
    "To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. It must be used with extreme caution."
)


@pytest.mark.parametrize(
    ("text", "longest", "said"),
    [
        ("", 40, ""),
        ("one thing is wrong", 40, "one thing is wrong"),
        ("One.\n  Two   things. Three of them.", 20, "One. Two things."),
        ("version 0.32.0 has none. It is new.", 100, "version 0.32.0 has none. It is new."),
        ("a first sentence that is too long to be told", 20, "a first sentence …"),
        ("x" * 30, 20, "x" * 18 + " …"),
        (ADVICE, 400, ADVICE.partition(" To allow")[0]),
    ],
)
def test_it_is_told_in_whole_sentences(text: str, longest: int, said: str) -> None:
    assert first_sentences(text, longest) == said


@given(st.text(), st.integers(10, 100))
def test_whatever_it_says_it_is_one_line_and_fits(text: str, longest: int) -> None:
    said = first_sentences(text, longest)
    assert len(said) <= longest and len(said.splitlines()) <= 1
