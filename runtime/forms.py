"""The APIs whose routes we serve, and how an answer that fails looks in each. Steps 3 and 11. Pure.

Router and gate share it: an error in the middle of a stream is sent by whichever of them sees it. The failure to
survive is one that looks different from the two, so that a client reads only one of them. `runtime/tasks.py` says which
route is of which API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

Form = Literal["openai", "responses", "messages"]  # whose shape errors and events of a route have

TOKEN: Mapping[Form, bytes] = {
    "openai": b"data: {",
    "responses": b".delta\ndata: {",
    "messages": b"event: content_block_delta\n",
}
"""What an event of a token has in it, and no other."""

DONE = b"data: [DONE]\n\n"
"""The last word of a stream of OpenAI's form."""

_ANTHROPIC = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
              429: "rate_limit_error", 503: "overloaded_error"}  # fmt: skip


def body(error: Mapping[str, Any], form: Form, *, status: int) -> dict[str, Any]:
    """An answer that is an error. `error` has OpenAI's fields: message, type, param, code."""
    if form != "messages":
        return {"error": dict(error)}
    kind = _ANTHROPIC.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {**error, "type": kind}}


def event(error: Mapping[str, Any], form: Form, *, status: int) -> bytes:
    """The error as an event of a stream whose status has been sent: the SDKs raise from it.

    Of the Responses API it has that one's fields and an `error`, by which OpenAI's SDKs know one.
    """
    payload = body(error, form, status=status)
    if form == "openai":
        return b"data: %s\n\n" % json.dumps(payload).encode()
    if form == "responses":
        said = {field: error[field] for field in ("code", "message", "param")}
        payload = {"type": "error", **said, "sequence_number": 0, **payload}
    return b"event: error\ndata: %s\n\n" % json.dumps(payload).encode()
