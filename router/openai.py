"""Step 3: reads from an OpenAI body only what routing, limits and billing need, and refuses what is malformed.

All else is the engine's to judge. The body goes on byte for byte, but for a missing `model`, which is put in front. The
failures to survive: bodies built to hurt (nesting, `n` and prompt batches that make one request many), and fields
that are the platform's, not the caller's.
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
PRIVILEGED = frozenset({"cache_salt", "priority", "kv_transfer_params", "request_id"})
COUNTS = {"n": (1, MOST_CHOICES), "best_of": (1, MOST_CHOICES), "max_tokens": (0, 1 << 31), "max_completion_tokens": (0, 1 << 31)}
_OPENING = re.compile(rb"\s*\{")


@dataclass(frozen=True, slots=True)
class Route:
    """One route we serve: its path at the replica, the task it needs, the field it cannot do without."""

    path: str
    task: Task
    needs: str


ROUTES = {
    "chat/completions": Route("/v1/chat/completions", "generate", "messages"),
    "completions": Route("/v1/completions", "generate", "prompt"),
}


class Asked(NamedTuple):
    """What the caller wants, as far as the router has to know."""

    model: str | None
    stream: bool
    fields: dict[str, Any]  # the body, read


def read(body: bytes, route: Route) -> Asked:
    """Raises BadRequest, with `param` naming the field."""
    try:
        fields = from_json(body)
    except ValueError as error:
        raise BadRequest(f"The body is not JSON we can read: {error}. Send one JSON object.", param=None) from error
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.")
    if not PRIVILEGED.isdisjoint(fields):
        name = min(PRIVILEGED & fields.keys())
        raise BadRequest(f"'{name}' is set by the platform. Remove it from the request.", param=name)
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
    elif isinstance(value, list):
        if not value:
            raise BadRequest("'prompt' must not be an empty list.", param=name)
        if len(value) > MOST_PROMPTS and not isinstance(value[0], int):  # a list of numbers is one prompt, in tokens
            raise BadRequest(f"'prompt' has {len(value)} prompts; at most {MOST_PROMPTS} go into one request. Send several.", param=name)
    elif not isinstance(value, str):
        raise BadRequest("'prompt' must be a string, a list of strings, or tokens.", param=name)


def _check_count(value: Any, name: str, *, least: int, most: int) -> None:
    if value is None:
        return
    if type(value) is not int:
        raise BadRequest(f"'{name}' must be a whole number.", param=name)
    if not least <= value <= most:
        raise BadRequest(f"'{name}' must be between {least} and {most}; it is {value}.", param=name)
