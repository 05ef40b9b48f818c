"""Step 3: reads from an OpenAI body only what routing, limits and billing need, and refuses what is malformed.

All else is the engine's to judge. The body goes on byte for byte, but for a missing `model`, which is put in front. The
failures to survive: bodies built to hurt (nesting, millions of tiny values that would hold up everyone while they are
read, `n` and prompt batches that make one request many), and fields that are the platform's, not the caller's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_core import from_json

from router.errors import BadRequest, ModelNotFound
from runtime.wire import Task

MOST_CHOICES = 8  # of `n` and `best_of`
MOST_PROMPTS = 16  # in one completions body
MOST_INPUTS = 2048  # in one embeddings body, as at OpenAI
LARGE_BODY = 128 << 10  # bytes; a smaller one is read within milliseconds, whatever is in it
MOST_COST = 1 << 19  # of reading a body: 1 a value, HEAVY more a list, an object or a field
HEAVY = 8
MOST_QUOTES = 1 << 17  # of a large body
PRIVILEGED = frozenset(
    {"cache_salt", "priority", "kv_transfer_params", "ec_transfer_params", "vllm_xargs", "request_id", "stream_interval"}
)
# `vllm_xargs` sets whatever else an engine knows. `stream_interval` is how many tokens an event has, by which a broken stream is counted.
BEAMS = "use_beam_search"  # vLLM asks its engine anew for every beam and token
COUNTS = {"n": (1, MOST_CHOICES), "best_of": (1, MOST_CHOICES), "max_tokens": (0, 1 << 31), "max_completion_tokens": (0, 1 << 31)}
_OPENING = re.compile(rb"\s*\{")


@dataclass(frozen=True, slots=True)
class Route:
    """One route we serve: its path at the replica, the task it needs, the field it cannot do without."""

    path: str
    task: Task
    needs: str
    head: bytes  # of the request to the replica, up to the value of x-request-id


def _route(path: str, task: Task, needs: str) -> Route:
    head = f"POST {path} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\nx-request-id: "
    return Route(path, task, needs, head.encode())


ROUTES = {
    "chat/completions": _route("/v1/chat/completions", "generate", "messages"),
    "completions": _route("/v1/completions", "generate", "prompt"),
    "embeddings": _route("/v1/embeddings", "embed", "input"),
}


class Asked(NamedTuple):
    """What the caller wants, as far as the router has to know."""

    model: str | None
    stream: bool
    fields: dict[str, Any]  # the body, read

    @property
    def choices(self) -> int:
        """Of each prompt: `n`, checked when it was read."""
        wanted = self.fields.get("n")
        return wanted if isinstance(wanted, int) and wanted > 0 else 1


def read(body: bytes, route: Route) -> Asked:
    """Raises BadRequest, with `param` naming the field."""
    if len(body) > LARGE_BODY:
        _check_cost(body)
    try:
        fields = from_json(body)
    except ValueError as error:
        raise BadRequest(f"The body is not JSON we can read: {error}. Send one JSON object.", param=None) from error
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.")
    if not PRIVILEGED.isdisjoint(fields):
        name = min(PRIVILEGED & fields.keys())
        raise BadRequest(f"'{name}' is set by the platform. Remove it from the request.", param=name)
    if fields.get(BEAMS) not in (None, False):
        raise BadRequest(f"'{BEAMS}' is not served: its tokens could not be counted. Remove it, or ask for 'n' choices.", param=BEAMS)
    _check_needed(fields, route.needs)
    for name, (least, most) in COUNTS.items():
        if name in fields:
            _check_count(fields[name], name, least=least, most=most)
    model, stream = fields.get("model"), fields.get("stream")
    if model is not None and not isinstance(model, str):
        raise BadRequest("'model' must be a string.", param="model")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("'stream' must be true or false.", param="stream")
    return Asked(model, bool(stream), fields)


def body_for(name: str, asked: Asked, body: bytes) -> bytes:
    """The body as the replica of endpoint `name` is to have it. Raises ModelNotFound when it names another model."""
    if asked.model == name:
        return body
    if asked.model is not None:
        raise ModelNotFound(
            f"The model '{asked.model}' does not exist here. This URL serves '{name}': send that as 'model', or leave it out.",
            param="model",
        )
    if "model" in asked.fields:  # null: in front it would be overruled
        return json.dumps({**asked.fields, "model": name}).encode()
    return _OPENING.sub(lambda _: b'{"model":%s,' % json.dumps(name).encode(), body, count=1)


def _check_needed(fields: dict[str, Any], name: str) -> None:
    value = fields.get(name)
    if value is None:
        raise BadRequest(f"'{name}' is missing. It is required on this route.", param=name)
    if name == "messages":
        if not isinstance(value, list) or not value:
            raise BadRequest("'messages' must be a list of at least one message.", param=name)
        for message in value:
            if not isinstance(message, dict):
                raise BadRequest("Each of 'messages' must be an object with 'role' and 'content'.", param=name)
    else:
        _check_texts(value, name, most=MOST_PROMPTS if name == "prompt" else MOST_INPUTS)


def _check_texts(value: Any, name: str, *, most: int) -> None:
    """`prompt` or `input`: one text, or a list of at most `most`. A list of numbers is one text, in tokens."""
    if isinstance(value, str):
        return
    kinds = set(map(type, value)) if isinstance(value, list) else set()
    if value == []:
        raise BadRequest(f"'{name}' must not be an empty list.", param=name)
    if kinds not in ({str}, {int}, {list}):
        raise BadRequest(f"'{name}' must be a string, a list of strings, tokens, or a list of lists of tokens.", param=name)
    if kinds != {int} and len(value) > most:
        raise BadRequest(f"'{name}' has {len(value)} texts; at most {most} go into one request. Send several.", param=name)
    if kinds == {list} and not all(tokens and set(map(type, tokens)) == {int} for tokens in value):
        raise BadRequest(f"Each list in '{name}' must be of tokens: at least one, and whole numbers only.", param=name)


def _check_cost(body: bytes) -> None:
    """Refuses what would take long to read. Text may hold any number of commas and brackets: only what is outside of it counts.

    1. Cheap even with all text counted: nothing more to see.
    2. Without text, which `split` at the quotes leaves out once escaped quotes are gone.
    """
    if _cost(body) <= MOST_COST:  # 1
        return
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body  # 2
    if plain.count(b'"') > MOST_QUOTES or _cost(b"".join(plain.split(b'"')[::2])) > MOST_COST:
        raise BadRequest("The body has too many values to be one request. Send several.")


def _cost(text: bytes) -> int:
    values, heavy = len(text) - len(text.translate(None, b",")), len(text) - len(text.translate(None, b"[{:"))
    return values + HEAVY * heavy


def _check_count(value: Any, name: str, *, least: int, most: int) -> None:
    if value is None:
        return
    if type(value) is not int:
        raise BadRequest(f"'{name}' must be a whole number.", param=name)
    if not least <= value <= most:
        raise BadRequest(f"'{name}' must be between {least} and {most}; it is {value}.", param=name)
