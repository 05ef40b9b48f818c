"""Puts into words for callers what an engine says when it does not serve a request. Step 11; pure.

The engine's own words are for operators: they name flags of its command line, Python classes, paths. They are logged in
full, under the request's id. A caller is told what it can change, in OpenAI's form with its codes. Where it can change
nothing it is told the id to ask its operator about. The failures to survive: an answer that is not JSON, or no error,
or megabytes of it. And it quotes back without end what a caller sent.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from router.errors import (
    LONGEST_QUOTE,
    BadRequest,
    DiskFull,
    EngineFailed,
    EngineRefused,
    ModelNotFound,
    RouterError,
    TooLong,
    quoted,
)

SHAPED = "response_format"  # what an engine calls any field of which it makes a grammar
LONGEST_SENTENCE = 300  # characters of what an engine says that are passed on
LONGEST_LOGGED = 1000  # characters
MOST_READ = 8 * LONGEST_SENTENCE  # characters; what follows decides nothing, and patterns need time for each
_LONG_CONTEXT = re.compile(
    r"maximum context length|max_model_len|longer than the maximum|context window", re.IGNORECASE
)
_CONTEXT = re.compile(
    r"(?:context length|model length|max_model_len|context window)(?: is| of)?[\s(=]{0,4}(\d{2,9})\b", re.IGNORECASE
)
_MORE_THAN_ALL = re.compile(r"(?<!\w)([a-z_]{1,40})=(\d{2,9}) cannot be greater than")
_NUMBER = re.compile(r"(?<![\w.])(\d{2,9})\b")
_OPERATORS = re.compile(
    r"(?<![\w-])--[a-z]|\bVLLM_|\bvllm\b|Traceback|<path>|(?<!\w)/[\w.-]+/[\w.-]|(?<=\w)(?:Error|Exception)\b"
)
_TOOLS = re.compile(r"tool[- _](?:choice|call|parser)", re.IGNORECASE)
_LONG_TEXT = re.compile(
    "|".join(
        rf"(?<!\w){a}[^{b}]{{{LONGEST_QUOTE},}}(?:{b}|$)" for a, b in ("''", '""', "``", (r"\{", r"\}"), (r"\[", r"\]"))
    )
)
_QUOTED = re.compile(r"'[^']{9,}'|\"[^\"]{9,}\"|`[^`]{33,}`|\{.{9,}\}|\[.{9,}\]")
_FIELD = re.compile(r"[A-Za-z_][\w.\[\]-]{0,99}")


class Words(NamedTuple):
    """What an engine's error says, as far as it can be read."""

    message: str = ""
    param: str | None = None
    code: str = ""


def read(body: bytes) -> Words:
    """Of OpenAI's form, Anthropic's, or FastAPI's; else nothing."""
    try:
        parsed = json.loads(body)
        error = parsed.get("error", parsed)
        message = error.get("message") or error.get("detail") or ""
        param, code = error.get("param"), error.get("code")
    except (ValueError, AttributeError, RecursionError):
        return Words()
    named = isinstance(param, str) and _FIELD.fullmatch(param)
    text = message if isinstance(message, str) else json.dumps(message)
    return Words(text[:MOST_READ], param if named else None, code if isinstance(code, str) else "")


def error_of(status: int, body: bytes, *, request_id: str, shaped_by: str = "") -> RouterError:
    """What the caller of `request_id` is told of an answer of this status. `shaped_by`: the field of the request that
    says what its answer is to look like, for the engine calls all of them by one name.

    1. Not of the kinds a caller can do anything about: a reference. An engine without room says so with a 503, and is
       tried again.
    2. More tokens than the context has, in words and with the code that clients look for.
    3. What the endpoint is not set up for, such as tools without a parser.
    4. What else it refuses: its sentence, cut, where it says nothing that is for operators only.
    """
    words = read(body)
    if shaped_by and words.param == SHAPED:
        words = words._replace(param=shaped_by)
    if words.code == DiskFull.code and status == 503:  # 1
        return DiskFull(DISK_FULL)
    if (status >= 500 and status != 501) or status < 400:
        return EngineFailed(
            f"The engine could not serve this request. Try again; if it stays so, tell your operator this id: {request_id}."
        )
    if status == 404:
        return ModelNotFound(
            "The engine does not know this model. `GET /v1/models` lists what this key can use.", param="model"
        )
    if _LONG_CONTEXT.search(words.message):  # 2
        return TooLong(_too_long(words.message), param=_of_a_caller(words.param))
    if words.message.strip() and status != 501 and not _OPERATORS.search(words.message):  # 4
        return EngineRefused(_sentence(words.message), param=_of_a_caller(words.param), status=status)
    if _TOOLS.search(words.message):  # 3
        return BadRequest(TOOLS, param="tools")
    param = _of_a_caller(words.param)
    what = f"'{param}' as it stands here" if param else "this request as it stands"
    message = f"This endpoint does not serve {what}. Change it, or ask your operator, with this id: {request_id}."
    return EngineRefused(message, param=param, status=400 if status == 501 else status)


def for_operators(body: bytes) -> str:
    """The engine's own words for the log, without what it quotes: that may be a caller's prompt."""
    return _QUOTED.sub("'…'", " ".join(read(body).message[:LONGEST_LOGGED].split()))


DISK_FULL = "The disk of this model's node is full, and nothing more can be written down for it. Make room there, and try again."
TOOLS = (
    "This endpoint is not set up for 'tools' with 'tool_choice': \"auto\". Leave them out, name a tool or \"required\" in 'tool_choice', or ask "
    "your operator to deploy it with a tool parser (see docs/tools.md)."
)


def _of_a_caller(param: str | None) -> str | None:
    """vLLM names arguments of its own there, or where in the whole request a field is."""
    field = (param or "").removeprefix("body.")
    return {"input_tokens": "messages", "max_model_len": None, "input_text": "input"}.get(field, field or None)


def _too_long(message: str) -> str:
    """OpenAI's sentence, whose beginning clients look for too; LangChain goes by "prompt is too long" where its client
    leaves out the code.

    A field that asks for more than there is at all is named: then it is not the prompt.
    """
    named = _CONTEXT.search(message)
    context = int(named[1]) if named else 0
    longest = f" is {context} tokens" if context else " is shorter than this request"
    if more := _MORE_THAN_ALL.search(message):
        return (
            f"This model's maximum context length{longest}, and '{more[1]}' asks for {more[2]}. Ask for fewer tokens."
        )
    others = [number for number in map(int, _NUMBER.findall(message)) if number > context]
    counted = "characters" if "characters" in message else "tokens"
    asked = f": this request has {max(others)} {counted} or more" if context and others else ""
    return f"This model's maximum context length{longest}, and the prompt is too long{asked}. Send less, or ask for fewer tokens."


def _sentence(message: str) -> str:
    """One line, at most LONGEST_SENTENCE characters, and nothing quoted in it longer than LONGEST_QUOTE."""
    line = " ".join(message.split())
    line = _LONG_TEXT.sub(lambda found: f"{found[0][0]}{quoted(found[0][1:])}{found[0][0]}", line)
    return line if len(line) <= LONGEST_SENTENCE else line[: LONGEST_SENTENCE - 1] + "…"
