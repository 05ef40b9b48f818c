"""Step 3: the closed set of fields of each route. Every field of the engine's and of OpenAI's is in a table, with a
maximum.
"""

from __future__ import annotations

import json
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import ResponseOutputItem, response_create_params
from pydantic import BaseModel

from router.admission import fields, openai
from router.admission.field_tables import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES
from router.admission.fields import Table, Wants
from router.admission.openai import Asked
from router.admission.routes import ROUTES
from router.errors import LONGEST_QUOTE, BadRequest

TABLES = {
    "chat": CHAT,
    "completions": COMPLETIONS,
    "embeddings": EMBEDDINGS,
    "responses": RESPONSES,
    "messages": MESSAGES,
}
HELLO = [{"role": "user", "content": "hi"}]
NEEDED: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": HELLO},
    "completions": {"prompt": "a"},
    "embeddings": {"input": "a"},
}


def asked(route: str = "chat/completions", **given: Any) -> Asked:
    return openai.read(json.dumps(NEEDED[route] | given).encode(), ROUTES[route])


def refusal(route: str = "chat/completions", **given: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        asked(route, **given)
    return caught.value


def test_openais_own_parameters_are_all_known() -> None:
    models: dict[str, Any] = {
        "chat": chat_create_params.CompletionCreateParamsStreaming,
        "completions": completion_create_params.CompletionCreateParamsStreaming,
        "embeddings": embedding_create_params.EmbeddingCreateParams,
        "responses": response_create_params.ResponseCreateParamsStreaming,
    }
    for name, model in models.items():
        assert set(get_type_hints(model)) <= set(TABLES[name]), name


@pytest.mark.parametrize("route", list(NEEDED))
@pytest.mark.parametrize("name", ["foo", "x" * 5000, "", "é" * 300, "Messages", "use_beam_search ", "metrics"])
def test_an_unknown_field_is_refused_by_name_and_cut(route: str, name: str) -> None:
    error = refusal(route, **{name: 1})
    assert error.param is not None
    assert len(error.param) <= LONGEST_QUOTE
    assert name[:50] in error.message
    assert len(error.message) < 300


@pytest.mark.parametrize("route", list(NEEDED))
@pytest.mark.parametrize("name", ["cache_salt", "priority", "request_id"])
@pytest.mark.parametrize("value", [None, "x", 0, {}, []])
def test_what_is_the_platforms_is_refused_whatever_it_holds(route: str, name: str, value: Any) -> None:
    assert refusal(route, **{name: value}).param == name


def test_a_name_in_disguise_is_the_same_name() -> None:
    body = b'{"messages":[{"role":"user","content":"a"}],"cache_\\u0073alt":null}'
    with pytest.raises(BadRequest) as caught:
        openai.read(body, ROUTES["chat/completions"])
    assert caught.value.param == "cache_salt"


DEEP: Any = {}
for _ in range(60):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
WIDE = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(6000)}}
LONG = {"type": "object", "description": "x" * 200_000}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"seed": 1 << 63}, "seed"),
        ({"stop": ["a"] * 33}, "stop"),
        ({"stop": "a" * 2000}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop_token_ids": list(range(1000))}, "stop_token_ids"),
        ({"logit_bias": {str(n): 1 for n in range(2000)}}, "logit_bias"),
        ({"logit_bias": {"1": 1000}}, "logit_bias"),
        ({"bad_words": ["a"] * 129}, "bad_words"),
        ({"allowed_token_ids": [0] * 20_000}, "allowed_token_ids"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"tools": [{"type": "function"}] * 129}, "tools"),
        ({"tools": {}}, "tools"),
        ({"tools": ["a"]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": WIDE}}]}, "tools[0].parameters"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": LONG}}]}, "tools[0].parameters"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": "json_object"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": DEEP}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": WIDE}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "structural_tag", "structures": [LONG], "triggers": []}}, "response_format"),
        ({"structured_outputs": {"json": json.dumps(DEEP)}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "{" * 100}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "[" * 100_000}}, "structured_outputs.json"),
        ({"structured_outputs": {"regex": "a" * 10_000}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "a" * 100_000}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"choice": ["a"] * 5000}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"structural_tag": json.dumps(DEEP)}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"_backend": "outlines"}}, "structured_outputs._backend"),
        ({"guided_json": {}}, "guided_json"),
        ({"chat_template_kwargs": {"a": DEEP}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": ["a"]}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": 1, "tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"logprob_token_ids": [1]}, "logprob_token_ids"),
        ({"documents": [{"text": "a"}] * 300}, "documents"),
        (
            {"repetition_detection": {"max_pattern_size": 100_000, "min_count": 2}},
            "repetition_detection.max_pattern_size",
        ),
        ({"user": "a" * 2000}, "user"),
        ({"user": {"id": 1}}, "user"),
        ({"metadata": {"a": "x" * 100_000}}, "metadata"),
        ({"functions": []}, "functions"),
        ({"audio": {"voice": "a"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"stream_options": [1] * 100}, "stream_options"),
        ({"messages": HELLO * 20_000}, "messages"),
    ],
)
def test_beyond_its_maximum_a_field_is_refused(given: dict[str, Any], param: str) -> None:
    error = refusal(**given)
    assert error.param == param
    assert len(error.message) < 300


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 0, "top_p": 1, "top_k": -1, "seed": -1, "stop": None, "n": None, "logprobs": None},
        {"stop": ["\nclass", "\ndef", "\n#", "\nif", "\nprint", "<end>"]},
        {"stop": ["a", "b"], "logit_bias": {"50256": -100}, "logprobs": True, "top_logprobs": 5},
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": "auto",
        },
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "strict": True, "schema": {"type": "object"}},
            }
        },
        {"structured_outputs": {"choice": ["yes", "no"]}},
        {"stream": True, "stream_options": {"include_usage": True}},
        {
            "metadata": {"a": "b"},
            "store": False,
            "service_tier": "auto",
            "user": "me",
            "prompt_cache_key": "k",
            "verbosity": "low",
        },
        {"modalities": ["text"], "reasoning_effort": "low", "parallel_tool_calls": True},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
    ],
)
def test_what_clients_send_is_served(given: dict[str, Any]) -> None:
    wants = asked(**given).wants
    assert not wants.allowances and not wants.hosts, "no endpoint has to allow it"


def parts_of_answers() -> set[str]:
    """The types of all parts that items of a response may have, as OpenAI's client knows them."""
    found: set[str] = set()
    for item in get_args(get_args(ResponseOutputItem)[0]):
        for name in ("content", "summary", "output"):
            hint = item.model_fields[name].annotation if name in item.model_fields else None
            found |= {kind for inner in nested(hint) for kind in get_args(inner.model_fields["type"].annotation)}
    return found


def nested(hint: Any) -> list[Any]:
    """The models in the lists of a type."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint] if "type" in hint.model_fields else []
    return [model for inner in get_args(hint) for model in nested(inner)]


@pytest.mark.parametrize("kind", sorted(parts_of_answers() - {"input_file", "input_image", "computer_screenshot"}))
def test_what_a_response_says_may_be_sent_back_to_it(kind: str) -> None:
    """Nothing is kept between calls: each one carries the items that came before, thoughts too."""
    assert {"output_text", "reasoning_text", "refusal"} <= parts_of_answers()
    item = {"type": "reasoning", "id": "1", "summary": [], "content": [{"type": kind, kind: "a", "text": "a"}]}
    assert openai.read(json.dumps({"input": [item]}).encode(), ROUTES["responses"]).wants == Wants()


ECHO = {"prompt": "a", "echo": True, "logprobs": 1}


@pytest.mark.parametrize(
    ("route", "given", "allowance", "param"),
    [
        ("chat/completions", {"prompt_logprobs": 0}, "prompt_logprobs", "prompt_logprobs"),
        ("completions", {"prompt_logprobs": 1}, "prompt_logprobs", "prompt_logprobs"),
        ("completions", ECHO, "echo_logprobs", "logprobs"),
        ("completions", ECHO | {"logprobs": 0}, "echo_logprobs", "logprobs"),
        ("chat/completions", {"echo": True}, "echo_logprobs", "echo"),
        ("chat/completions", {"chat_template": "x"}, "chat_template", "chat_template"),
        ("chat/completions", {"mm_processor_kwargs": {"a": 1}}, "media", "mm_processor_kwargs"),
        ("chat/completions", {"media_io_kwargs": {"image": {}}}, "media", "media_io_kwargs"),
    ],
)
def test_what_costs_memory_is_only_where_it_is_allowed(
    route: str, given: dict[str, Any], allowance: str, param: str
) -> None:
    request = asked(route, **given)
    with pytest.raises(BadRequest, match=allowance) as caught:
        request.check_allowed((), ())
    assert caught.value.param == param
    request.check_allowed((allowance,), ())


def test_an_echo_without_logprobs_needs_nobodys_leave() -> None:
    for fields_given in (
        {"echo": True},
        {"echo": False, "logprobs": 3},
        {"logprobs": 3},
        {"echo": True, "logprobs": None},
    ):
        asked("completions", **fields_given).check_allowed((), ())


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "part",
    [
        image("data:image/png;base64,AAAA"),
        {"image_url": "data:image/png;base64,AAAA"},
        {"type": "image_url", "image_url": "DATA:image/png;base64,AAAA"},
        {"type": "text", "text": "a", "image_url": {"url": "data:,"}, "uuid": "1"},
        {"text": "a", "image_url": "data:,"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "input_image", "image_url": "data:,"},
        {"audio_url": "data:,"},
        {"type": "tool_result", "content": [image("data:,")]},
        {"type": "image", "source": {"type": "base64", "data": "AAAA"}},
    ],
)
def test_media_is_off_unless_it_is_allowed(part: dict[str, Any]) -> None:
    request = asked(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, part]}])
    with pytest.raises(BadRequest, match="media"):
        request.check_allowed((), ())
    request.check_allowed(("media",), ())


@pytest.mark.parametrize(
    "part",
    [
        image("https://images.example/a.png"),
        {"type": "input_image", "image_url": "https://images.example/a.png"},
        {"type": "image", "source": {"type": "url", "url": "https://images.example/a.png"}},
        {"video_url": "http://images.example:80/a"},
    ],
)
def test_media_is_fetched_from_hosts_that_are_named(part: dict[str, Any]) -> None:
    request = asked(messages=[{"role": "user", "content": [part]}])
    with pytest.raises(BadRequest, match=r"images\.example"):
        request.check_allowed(("media",), ("other.example",))
    request.check_allowed(("media",), ("images.example",))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://images.example/a",
        "//images.example/a",
        "https://images.example\\@169.254.169.254/",
        "https://images.example@169.254.169.254/",
        "https://images.example:8080/",
        "https://images.example#@169.254.169.254/",
        "http://[::1/",
        "https://images.example/\r\nhost: x",
        "https://imagés.example/",
        "https:///a",
        "a" * 5000,
        {"a": 1},
        3,
    ],
)
def test_a_url_that_two_readers_may_read_otherwise_is_refused(url: Any) -> None:
    error = refusal(messages=[{"role": "user", "content": [image(url)]}])
    assert error.param == "messages[0].content[0].image_url"
    assert len(error.message) < 300


@pytest.mark.parametrize(
    "part",
    [
        {"type": "prompt_embeds", "data": "AAAA"},
        {"prompt_embeds": True, "data": "AAAA"},
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"type": "text", "text": "a", "image_pil": "x", "uuid": "1"},
        {"type": "hologram"},
        {"type": 3},
        {},
        3,
        None,
    ],
)
def test_what_is_neither_text_nor_media_is_refused(part: Any) -> None:
    assert (refusal(messages=[{"role": "user", "content": [part]}]).param or "").startswith("messages[0].content[0]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("table", list(TABLES))
@given(data=st.data())
def test_any_value_of_any_field_is_taken_or_refused_by_its_name(table: str, data: st.DataObject) -> None:
    known: Table = TABLES[table]
    name, value = data.draw(st.sampled_from(sorted(known))), data.draw(JSON)
    try:
        fields.check({name: value}, known, Wants())
    except BadRequest as error:
        assert (error.param or "").startswith(name)
