"""What a request for scores makes the engine read is bounded, however small its body is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.admission.openai import read
from router.admission.pairs import MOST_CHARACTERS, MOST_TO_CUT
from router.admission.routes import ROUTES
from router.errors import BadRequest

RERANK = next(route for route in ROUTES.values() if route.path.endswith("/rerank"))
SCORE = next(route for route in ROUTES.values() if route.path.endswith("/score"))


def asked(given: dict[str, Any], route: Any) -> int:
    return read(json.dumps(given).encode(), route).sequences


@pytest.mark.parametrize(
    ("given", "route", "param"),
    [
        ({"query": "q" * (1 << 20), "documents": ["a"] * 2048}, RERANK, "query"),
        ({"text_1": "q" * (1 << 20), "text_2": ["a"] * 2048}, SCORE, "text_1"),
        ({"query": "q", "documents": ["a"] * 2048, "instruction": "i" * (1 << 16)}, RERANK, "query"),
        ({"query": "q", "documents": ["a" * MOST_TO_CUT], "max_tokens_per_doc": 8}, RERANK, "max_tokens_per_doc"),
        ({"text_1": [], "text_2": ["a"]}, SCORE, "text_1"),
        ({"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, SCORE, "text_1"),
    ],
    ids=["rerank", "score", "instruction", "cut", "empty", "uneven"],
)
def test_what_costs_too_much_is_refused_by_its_field(given: dict[str, Any], route: Any, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        asked(given, route)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("given", "route"),
    [
        ({"query": "q" * 1000, "documents": ["a" * 3000] * 1000}, RERANK),
        ({"query": "q", "documents": ["a" * ((1 << 20) - 8)] * 3}, RERANK),
        ({"query": "q", "documents": ["a" * 100] * 100, "max_tokens_per_doc": 8}, RERANK),
        ({"text_1": "a", "text_2": "b"}, SCORE),
        ({"text_1": ["a"], "text_2": ["b"] * 64}, SCORE),
        ({"text_1": ["a"] * 64, "text_2": ["b"] * 64}, SCORE),
    ],
)
def test_what_people_send_is_served(given: dict[str, Any], route: Any) -> None:
    assert asked(given, route) >= 1


def test_the_bound_is_above_what_one_text_may_be() -> None:
    assert MOST_CHARACTERS > 1 << 20
