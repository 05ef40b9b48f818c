"""What has passed by, where the engine told nothing."""

from __future__ import annotations

import pytest

from router.relay.meter import estimated_tokens
from router.spool.record import Tokens
from runtime.forms import TOKEN, Form


@pytest.mark.parametrize(("choices", "events", "tokens"), [(1, 5, 4), (3, 9, 6), (8, 3, 0)])
def test_of_a_chat_each_choice_has_one_event_without_a_token(choices: int, events: int, tokens: int) -> None:
    assert estimated_tokens(Passed(events), choices) == Tokens(output=tokens, source="relayed")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["responses", "messages"])
def test_of_the_other_apis_only_events_of_a_token_are_counted(form: Form) -> None:
    assert estimated_tokens(Passed(5, form), 1) == Tokens(output=5, source="relayed")  # type: ignore[arg-type]


class Passed:
    """As much of an upstream as has been relayed."""

    heard = True

    def __init__(self, events: int, form: Form = "openai") -> None:
        self.token = TOKEN[form]
        self.events = events
