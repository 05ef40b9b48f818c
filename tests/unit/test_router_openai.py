"""Step 3: what is read from a body, what is refused, and what is changed (nothing but a missing `model`)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.admission.openai import body_for, own_field, read
from router.admission.request import match_route
from router.admission.routes import ROUTES
from router.errors import BadRequest, ModelNotFound

CHAT, TEXT, VECTORS = ROUTES["chat/completions"], ROUTES["completions"], ROUTES["embeddings"]
MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> bytes:
    return json.dumps({"messages": MESSAGES, **fields}).encode()


def test_what_is_read() -> None:
    asked = read(chat(model="tiny", stream=True, n=2, max_tokens=5, tools=[{}]), CHAT)
    assert (asked.model, asked.stream) == ("tiny", True)
    assert read(chat(stream=None, model=None, max_completion_tokens=None, use_beam_search=False), CHAT).stream is False


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream": "yes"}, "stream"),
        ({"model": 3}, "model"),
        ({"n": 129}, "n"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.0}, "n"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": 1e99}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"cache_salt": "x"}, "cache_salt"),
        ({"priority": 1}, "priority"),
        ({"kv_transfer_params": None}, "kv_transfer_params"),
        ({"request_id": "x"}, "request_id"),
        ({"ec_transfer_params": {"a": 1}}, "ec_transfer_params"),
        ({"vllm_xargs": {"ec_transfer_params": "x"}}, "vllm_xargs"),
        ({"stream_interval": 50}, "stream_interval"),
        ({"stream_interval": 1, "stream": True}, "stream_interval"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"use_beam_search": 1}, "use_beam_search"),
        ({"use_beam_search": "true", "n": 1, "best_of": 2}, "use_beam_search"),
    ],
)
def test_what_is_refused_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest, match=param.partition(".")[0]) as caught:
        read(chat(**fields), CHAT)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"3", b'{"a":1}x', b'{"a": "\xff"}', b"\x00", b"[" * 100_000, b'{"a":' * 100_000],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read(body, CHAT)


@pytest.mark.parametrize(
    ("prompt", "good"),
    [
        ("hi", True),
        (["a", "b"], True),
        ([1, 2, 3] * 1000, True),
        ([[1], [2]], True),
        (["a"] * 128, True),
        (["a"] * 129, False),
        ([[1]] * 129, False),
        ([], False),
        ({}, False),
        (3, False),
        (None, False),
    ],
)
def test_prompts(prompt: Any, good: bool) -> None:
    body = json.dumps({"prompt": prompt}).encode()
    if good:
        read(body, TEXT)
    else:
        with pytest.raises(BadRequest) as caught:
            read(body, TEXT)
        assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("given", "good"),
    [
        ("hi", True),
        (["a"] * 2048, True),
        (["a"] * 2049, False),
        ([7] * 5000, True),
        ([[7, 8]] * 2048, True),
        ([[7]] * 2049, False),
        ([], False),
        ([[]], False),
        ([["a"]], False),
        ([1, "a"], False),
        ([True], False),
        ([1.5], False),
        ([None], False),
        ({"text": "a"}, False),
        (None, False),
        (3, False),
    ],
)
def test_inputs(given: Any, good: bool) -> None:
    body = json.dumps({"input": given}).encode()
    if good:
        read(body, VECTORS)
    else:
        with pytest.raises(BadRequest, match="input") as caught:
            read(body, VECTORS)
        assert caught.value.param == "input"


PARTS = [b"[],", b"{},", b'{"":0},', b'{"a":1},', b"[[],[]],", b'"",', b'"\\\\",', b"1,", b"1.5,", b'"\\"",']


def bomb(part: bytes) -> bytes:
    return b'{"prompt":[' + part * ((8 << 20) // len(part)) + b"0]}"


FIELDS = b'{"prompt":"a",' + b",".join(b'"%x":0' % n for n in range(900_000)) + b"}"


@pytest.mark.parametrize("body", [*map(bomb, PARTS), FIELDS], ids=[*(part.decode() for part in PARTS), "fields"])
def test_a_body_built_to_hurt_is_refused_unread(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.admission.openai.from_json", lambda _: pytest.fail("it was read"))
    with pytest.raises(BadRequest, match="too many values"):
        read(body, TEXT)


@pytest.mark.parametrize("text", ['a,"b",[{:}]\\', ",", '"', "\\", "[{", '\\"', "x,y\n"])
def test_text_is_never_too_much(text: str) -> None:
    content = text * ((4 << 20) // len(json.dumps(text)))
    asked = read(chat(messages=[{"role": "user", "content": content}] * 2), CHAT)
    assert asked.fields["messages"][0]["content"] == content


def test_a_body_with_the_right_model_is_not_touched() -> None:
    body = b' \n{ "messages" : [{}],"model":"tiny" , "seed": 1}'
    assert b"".join(body_for("tiny", read(body, CHAT), body)) == body


def test_a_missing_model_is_put_in_front() -> None:
    body = b'\n { "messages": [{"content":"{"}], "seed": 1}'
    assert (
        b"".join(body_for("tiny", read(body, CHAT), body))
        == b'{"model":"tiny", "messages": [{"content":"{"}], "seed": 1}'
    )


def test_what_is_ours_is_put_in_front() -> None:
    body = chat(model="tiny", seed=1)
    assert (
        b"".join(body_for("tiny", read(body, CHAT), body, own_field("cache_salt", "s")))
        == b'{"cache_salt":"s",' + body[1:]
    )
    for fields_given in ({}, {"model": None}):
        body = chat(**fields_given)
        sent = json.loads(b"".join(body_for("tiny", read(body, CHAT), body, own_field("cache_salt", "s"))))
        assert sent == {"cache_salt": "s", "model": "tiny", "messages": MESSAGES}


@pytest.mark.parametrize(
    ("fields", "sequences"),
    [
        ({"prompt": "a"}, 1),
        ({"prompt": ["a"] * 20}, 20),
        ({"prompt": ["a"] * 16, "n": 8}, 128),
        ({"prompt": [1, 2, 3], "n": 2}, 2),
        ({"prompt": [[1], [2]], "n": None}, 2),
    ],
)
def test_sequences_are_prompts_times_choices(fields: dict[str, Any], sequences: int) -> None:
    assert read(json.dumps(fields).encode(), TEXT).sequences == sequences


def test_more_sequences_than_a_request_may_have_are_refused() -> None:
    with pytest.raises(BadRequest, match="128") as caught:
        read(json.dumps({"prompt": ["a"] * 17, "n": 8}).encode(), TEXT)
    assert caught.value.param == "n"
    assert read(json.dumps({"input": ["a"] * 65}).encode(), VECTORS).sequences == 3


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, ""),
        ({"response_format": None}, ""),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        (
            {"structured_outputs": {"regex": "a"}, "tools": [{"type": "function", "function": {"name": "f"}}]},
            "structured_outputs",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
)
def test_the_field_that_shapes_the_answer_is_known(fields: dict[str, Any], name: str) -> None:
    assert read(chat(**fields), CHAT).wants.shaped_by == name


def test_a_null_model_is_replaced() -> None:
    body = chat(model=None)
    assert json.loads(b"".join(body_for("tiny", read(body, CHAT), body))) == {"messages": MESSAGES, "model": "tiny"}


def test_another_model_does_not_exist() -> None:
    body = chat(model="gpt-4")
    with pytest.raises(ModelNotFound, match="gpt-4") as caught:
        b"".join(body_for("tiny", read(body, CHAT), body))
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "n", "stream", "messages", "stop", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    body = json.dumps(value).encode()
    try:
        asked = read(body, CHAT)
    except BadRequest as error:
        assert error.message
        return
    try:
        assert json.loads(b"".join(body_for("tiny", asked, body))) == {**value, "model": "tiny"}
    except ModelNotFound:
        assert value["model"] not in (None, "tiny")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (b"/v1/chat/completions", (CHAT, None)),
        (b"/e/tiny/v1/completions", (TEXT, "tiny")),
        (b"//e//tiny///v1/chat//completions?x=1", (CHAT, "tiny")),
        (b"/e/a%20b/v1/completions", (TEXT, "a b")),
        (b"/v1/chat/completions/", None),
        (b"/v1/embeddings", (VECTORS, None)),
        (b"/v1/moderations", None),
        (b"/e/tiny/chat/completions", None),
        (b"/", None),
        (b"*", None),
    ],
)
def test_hot_urls(url: bytes, found: Any) -> None:
    assert match_route(url) == found
