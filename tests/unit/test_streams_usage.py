"""The last event of a Responses stream: its usage has OpenAI's fields, and what a model wrote stays as it is."""

from __future__ import annotations

import json

import pytest

from runtime.serving.streams import STREAMS

WRITTEN = 'a text with "input_tokens_per_turn":[1, 2], in it'


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize(
    "details",
    [
        {"cached_tokens": 2, "input_tokens_per_turn": [], "cached_tokens_per_turn": []},
        {"input_tokens_per_turn": [5, 6], "cached_tokens": 2},
        {"input_tokens_per_turn": [5]},
        {"cached_tokens": 2},
    ],
)
def test_lists_by_turn_are_left_out_of_usage_and_of_nothing_else(
    details: dict[str, object], separators: tuple[str, str]
) -> None:
    told = {
        "type": "response.completed",
        "response": {"output": [{"text": WRITTEN}], "usage": {"input_tokens_details": details, "total_tokens": 9}},
    }
    event = f"event: response.completed\ndata: {json.dumps(told, separators=separators)}\n\n".encode()
    counted = STREAMS["responses"].counted(event, b"5;2;3")
    name, data, counts, *rest = counted.split(b"\n")
    heard = json.loads(data.removeprefix(b"data: "))["response"]
    assert heard["output"][0]["text"] == WRITTEN
    assert heard["usage"] == {
        "total_tokens": 9,
        "input_tokens_details": {key: value for key, value in details.items() if key == "cached_tokens"},
    }
    assert (name, counts, rest) == (b"event: response.completed", b": pilotlight-usage 5;2;3", [b"", b""])
    whole = json.dumps(told["response"], separators=separators).encode()
    assert json.loads(STREAMS["responses"].without_turns(whole)) == heard, "as a whole answer has it"
