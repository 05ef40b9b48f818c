"""Step 11: an engine's errors in words for callers. The sentences here are vLLM 0.32's own."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.errors import LONGEST_QUOTE, RouterError
from router.relay.engine_words import LONGEST_SENTENCE, TOOLS, error_of, for_operators

ID = "0" * 32


def told(status: int, message: str, **more: object) -> RouterError:
    body = {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status, **more}}
    return error_of(status, json.dumps(body).encode(), request_id=ID)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 20 output tokens and your prompt contains at least 4077 "
        "input tokens, for a total of at least 4097 tokens. Please reduce the length of the input prompt or the number of requested output tokens.",
        "The engine prompt length 9000 exceeds the max_model_len 4096. Please reduce prompt.",
    ],
)
def test_too_long_a_prompt_has_the_code_that_clients_look_for(message: str) -> None:
    error = told(400, message, param="input_tokens")
    body = error.body()["error"]
    assert (error.status, body["type"], body["code"]) == (400, "invalid_request_error", "context_length_exceeded")
    assert "maximum context length" in body["message"] and "max_model_len" not in body["message"]
    assert "prompt is too long" in body["message"], "LangChain's ContextOverflowError hangs on it"


@pytest.mark.parametrize(
    ("said", "context", "told_of"),
    [
        (
            "max_tokens=1025 cannot be greater than max_model_len=1024. Please request fewer output tokens.",
            1024,
            "'max_tokens' asks for 1025",
        ),
        (
            "truncate_prompt_tokens=5000 cannot be greater than max_model_len = 4096.",
            4096,
            "'truncate_prompt_tokens' asks for 5000",
        ),
        ("Input length (5000) exceeds model's maximum context length (4096).", 4096, "has 5000 tokens"),
        (
            "The decoder prompt (length 5001) is longer than the maximum model length of 4096. Make sure that …",
            4096,
            "has 5001 tokens",
        ),
        (
            "The engine prompt length 9000 exceeds the max_model_len 4096. Please reduce prompt.",
            4096,
            "has 9000 tokens",
        ),
        (
            "This model's maximum context length is 1024 tokens. However, your prompt contains at least 1025 input tokens.",
            1024,
            "1025 tokens",
        ),
    ],
)
def test_the_context_is_told_as_the_engine_has_it_whatever_its_sentence(said: str, context: int, told_of: str) -> None:
    message = told(400, said).message
    assert f"maximum context length is {context} tokens" in message and told_of in message


def test_characters_are_not_called_tokens() -> None:
    said = "This model's maximum context length is 1024 tokens. However, your prompt contains 15027 characters (more than 14336 characters)."
    assert "15027 characters" in told(400, said, param="input_text").message


@pytest.mark.parametrize("status", [400, 404, 422, 500, 501, 503, 302, 204])
def test_every_error_has_openais_form_with_codes_that_are_strings(status: int) -> None:
    error = told(status, "no")
    body = error.body()["error"]
    assert isinstance(body["code"], str) and body["type"] in ("invalid_request_error", "server_error")
    assert (error.status >= 500) == (body["type"] == "server_error")


@pytest.mark.parametrize(
    "message",
    [
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        'tool_choice="required" requires --tool-call-parser to be set',
    ],
)
def test_tools_without_a_parser_are_told_in_our_words(message: str) -> None:
    error = told(400, message)
    assert (error.message, error.param) == (TOOLS, "tools")
    assert "--" not in error.message


@pytest.mark.parametrize(
    "message",
    [
        "Set --max-logprobs higher",
        "VLLM_MAX_N_SEQUENCES is 16",
        "vllm does not do this",
        "ValueError: no",
        "cannot open /var/lib/pilotlight/state/x",
        'Traceback (most recent call last): File "x"',
        "read <path> first",
        "",
    ],
)
def test_what_is_for_operators_is_a_reference_to_callers(message: str) -> None:
    error = told(400, message, param="logprobs")
    assert ID in error.message and "'logprobs'" in error.message
    assert message == "" or message not in error.message


@pytest.mark.parametrize("status", [500, 502, 599])
def test_an_engines_own_fault_says_nothing_of_it(status: int) -> None:
    error = told(status, "CUDA out of memory at cuda:0")
    assert (error.status, error.code) == (503, "upstream_error")
    assert ID in error.message and "CUDA" not in error.message and error.retry_after >= 1


def test_a_full_disk_is_told_as_one() -> None:
    assert told(503, "The disk is full.", code="disk_full").code == "disk_full"


def test_what_a_caller_can_change_is_told_with_its_field() -> None:
    error = told(400, "`top_logprobs` must be a positive value or -1.", param="top_logprobs")
    assert (error.message, error.param) == ("`top_logprobs` must be a positive value or -1.", "top_logprobs")


def test_a_field_is_named_as_its_caller_has_it() -> None:
    assert told(400, "List should have at most 32 items", param="body.stop").param == "stop"
    assert told(400, "--max-model-len is for you", param="body.stop").param == "stop"


def test_a_grammar_is_refused_by_the_name_of_the_field_that_has_it() -> None:
    body = json.dumps(
        {"error": {"message": "The grammar is not served.", "param": "response_format", "code": 400}}
    ).encode()
    for field in ("structured_outputs", "tools"):
        assert error_of(400, body, request_id=ID, shaped_by=field).param == field
    assert error_of(400, body, request_id=ID).param == "response_format"
    other = body.replace(b"response_format", b"seed")
    assert error_of(400, other, request_id=ID, shaped_by="tools").param == "seed"


@pytest.mark.parametrize("mark", ["''", '""', "``", "{}", "[]"])
def test_nothing_long_is_quoted(mark: str) -> None:
    error = told(400, f"Invalid value {mark[0]}{'secret ' * 900}{mark[1]}: not allowed")
    assert len(error.message) <= LONGEST_SENTENCE
    assert len(error.message) < len("Invalid value '': not allowed") + LONGEST_QUOTE + 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[1]",
        b'"x"',
        b"\xff",
        b"<html>",
        b'{"error":5}',
        b'{"error":{"message":{"a":1},"param":7,"code":[]}}',
        b"[" * 9000,
    ],
)
def test_what_is_no_error_is_one_all_the_same(body: bytes) -> None:
    for status in (400, 500):
        assert error_of(status, body, request_id=ID).message
    for_operators(body)


@given(st.integers(200, 599), st.text(max_size=3000), st.none() | st.text(max_size=200))
@example(400, "\r", None)  # blank is as good as nothing
def test_whatever_it_says_the_answer_is_short_and_one_line(status: int, message: str, param: str | None) -> None:
    error = told(status, message, param=param)
    assert 0 < len(error.message) <= LONGEST_SENTENCE and "\n" not in error.message
    assert error.param is None or len(error.param) <= LONGEST_QUOTE


def test_the_log_has_no_prompts() -> None:
    assert (
        for_operators(b'{"error":{"message":"bad \'my secret prompt\' at 3"}}')
        == "bad '\xe2\x80\xa6' at 3".encode("latin-1").decode()
    )


@pytest.mark.parametrize("unit", ["/.", "{", "[", "'", "`x", "aError", "/a/", "a"])
def test_no_words_take_long_to_read(unit: str) -> None:
    """64 KB of what would make a pattern try everything: as quickly as any, within a wide bound."""
    body = json.dumps({"error": {"message": unit * (65_000 // len(unit))}}).encode()
    began = time.process_time()
    error_of(400, body, request_id=ID)
    for_operators(body)
    assert time.process_time() - began < 1.0
