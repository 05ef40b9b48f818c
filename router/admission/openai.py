"""Reads from an OpenAI body what routing, limits and billing need, and refuses what is malformed or not served. Step 3.

Each route (`routes.py`) takes a closed set of fields. The body goes on byte for byte, but for what is put in front of
it. That is a missing `model`, and the caller's own secret `cache_salt`. Without that, one caller could find out by its
prompts' cached tokens what another has sent. The failures to survive are bodies built to hurt, and fields that are the
platform's, not the caller's. Such a body is nested deeply, or has millions of tiny values that would hold up everyone.
Or its `n` and its batch of prompts make one request many.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from router.admission import fields, pairs
from router.admission.fields import Wants, short
from router.admission.routes import MOST_SEQUENCES, Route
from router.admission.schemas import SHAPING
from router.errors import BadRequest, ModelNotFound

INPUTS_A_SLOT = 32  # an input is read in a moment, where an answer is made token by token
LARGE_BODY = 128 << 10  # bytes; a smaller one is read within milliseconds, whatever is in it
MOST_COST = 1 << 19  # of reading a body: 1 a value, HEAVY more a list, an object or a field
HEAVY = 8
MOST_QUOTES = 1 << 17  # of a large body


@dataclass(slots=True)
class Asked:
    """What the caller wants, as far as the router has to know."""

    model: str | None
    stream: bool
    fields: dict[str, Any]  # the body, read
    wants: Wants
    choices: int  # of each prompt: `n`
    sequences: int  # that it is for the engine: prompts times choices; as many slots as it takes

    def check_allowed(self, allow: Collection[str], hosts: Collection[str]) -> None:
        """Raises BadRequest for what the revision that is to serve it does not allow."""
        for allowance, name in self.wants.allowances.items():
            if allowance not in allow:
                raise BadRequest(
                    f"'{name}' is not allowed at this endpoint. Remove it, or have its operator set allow = [\"{allowance}\"].",
                    param=name,
                )
        for host, name in self.wants.hosts.items():
            if host not in hosts:
                raise BadRequest(
                    f"'{name}' is at {short(host)}, from where this endpoint fetches nothing. Send a data: URL, or have its operator name "
                    "the host in media_hosts.",
                    param=name,
                )


def read(body: bytes, route: Route) -> Asked:
    """Raises BadRequest, with `param` naming the field."""
    if len(body) > LARGE_BODY:
        _check_cost(body)
    try:
        given = from_json(body)
    except ValueError as error:
        raise BadRequest(
            f"The body is not JSON we can read: {short(str(error))}. Send one JSON object.", param=None
        ) from error
    if not isinstance(given, dict):
        raise BadRequest("The body must be a JSON object.")
    wants = Wants()
    fields.check(given, route.fields, wants)
    wants.shaped_by = next((name for name in SHAPING if given.get(name)), "")
    needed = given.get(route.needs)
    if needed is None:
        raise missing(route.needs)
    if route.also and given.get(route.also) is None:
        raise missing(route.also)
    if route.pools and route.also:
        pairs.check(given, route.also, route.needs)
    if route.needs == "prompt" and given.get("echo") and given.get("logprobs") is not None:
        wants.allowances.setdefault("echo_logprobs", "logprobs")
    choices = given.get("n") or 1
    sequences = _sequences(_texts(needed, route.needs, most=route.texts), choices, route) if route.texts else choices
    return Asked(given.get("model"), bool(given.get("stream")), given, wants, choices, sequences)


def missing(name: str) -> BadRequest:
    return BadRequest(f"'{name}' is missing. It is required on this route.", param=name)


def own_field(name: str, value: str) -> bytes:
    """A field of the platform's, which no caller may send, as `body_for` puts it in front. The value needs no escapes:
    an id or a name.
    """
    return f'"{name}":"{value}",'.encode()


def body_for(name: str, asked: Asked, body: bytes, own: bytes = b"") -> tuple[bytes | memoryview, ...]:
    """The body as the replica of endpoint `name` is to have it, in parts, for it may be large. Raises ModelNotFound
    when it names another model.

    `own`: fields of ours, as `own_field` makes them. `cache_salt` is one: what is cached of a prompt is found by those
    with the same salt only.
    """
    if asked.model is None:
        if "model" in asked.fields:  # null: in front it would be overruled
            body = json.dumps({**asked.fields, "model": name}, ensure_ascii=False).encode()
        else:
            own += own_field("model", name)
    elif asked.model != name:
        raise ModelNotFound(
            f"The model '{short(asked.model)}' does not exist here. This URL serves '{name}': send that as 'model', or leave it out.",
            param="model",
        )
    if not own:
        return (body,)
    first = body.index(b"{") + 1
    return (b"{", own, body[first:] if len(body) < LARGE_BODY else memoryview(body)[first:])


def _sequences(prompts: int, choices: int, route: Route) -> int:
    """As many slots as it takes. Raises BadRequest where that is more than one request may."""
    if route.pools:
        return -(-prompts // INPUTS_A_SLOT)
    if prompts * choices > MOST_SEQUENCES:
        raise BadRequest(
            f"{prompts} prompts with {choices} choices each are {prompts * choices} sequences; at most {MOST_SEQUENCES} go into one request. "
            "Send several.",
            param="n",
        )
    return prompts * choices


def _texts(value: Any, name: str, *, most: int) -> int:
    """How many texts there are in `prompt` or `input`: one, or a list of at most `most`. A list of numbers is one text,
    in tokens.
    """
    if isinstance(value, str):
        return 1
    kinds = set(map(type, value)) if isinstance(value, list) else set()
    if value == []:
        raise BadRequest(f"'{name}' must not be an empty list.", param=name)
    if kinds not in ({str}, {int}, {list}):
        raise BadRequest(
            f"'{name}' must be a string, a list of strings, tokens, or a list of lists of tokens.", param=name
        )
    if kinds != {int} and len(value) > most:
        raise BadRequest(
            f"'{name}' has {len(value)} texts; at most {most} go into one request. Send several.", param=name
        )
    if kinds == {list} and not all(tokens and set(map(type, tokens)) == {int} for tokens in value):
        raise BadRequest(f"Each list in '{name}' must be of tokens: at least one, and whole numbers only.", param=name)
    return 1 if kinds == {int} else len(value)


def _check_cost(body: bytes) -> None:
    """Refuses what would take long to read. Text may hold any number of commas and brackets: only what is outside of it
    counts.

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
