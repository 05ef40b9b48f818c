"""The errors of the router, in one tree, and the only place where HTTP codes meet them.

    RouterError
    ├── Refused: the caller must change something            4xx
    │   ├── BadRequest 400 (TooLong, EngineRefused) · Unauthorized 401 · Forbidden 403 · NotFound 404 (ModelNotFound)
    │   ├── WrongMethod 405
    │   └── TooSlow 408 · BodyTooLarge 413 · UrlTooLong 414 · UnsupportedEncoding 415 · TooMany 429 · HeadTooLarge 431
    └── Unavailable: our capacity or fault; try again        503, with Retry-After
        ├── NotReady · Draining · SpoolFull (DiskFull)       this router cannot take it
        ├── QueueFull · HoldTimeout · EndpointPaused · StartFailed            the hold (step 5) gave up
        └── UpstreamError (EngineFailed)                     the replica failed it (step 11)

Every step raises one of these. A class's docstring is its meaning in the reference. Each error has OpenAI's shape, on
every path, and a message that says what to do. On the routes of another API it has that one's shape besides (`Form`).
`finish` is how a usage record names the outcome. The failure to survive is a caller's own words in a message, which may
be as long as a body (`quoted`).
"""

from __future__ import annotations

import json
import math
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from router.finish import Finish
from runtime import forms
from runtime.forms import Form

LEAST_RETRY_SECONDS = 1.0
LONGEST_QUOTE = 100  # characters of what a caller, an operator or an engine said


class RouterError(Exception):
    """An error of ours; the log of the router or the admin process has it."""

    status = 500
    type = "server_error"
    code: str | None = None
    finish: Finish = "refused"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def fields(self) -> dict[str, Any]:
        """The fields that OpenAI's errors have."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def body(self) -> dict[str, Any]:
        return {"error": self.fields()}


class Refused(RouterError):
    """The caller must change something."""

    status = 400
    type = "invalid_request_error"


class BadRequest(Refused):
    """The body, the path or the query is malformed, or not for this endpoint; `param` names the field."""

    code = "invalid_value"


class TooLong(BadRequest):
    """Prompt and answer together have more tokens than the model's context."""

    code = "context_length_exceeded"  # clients look for this very word


class EngineRefused(BadRequest):
    """The engine does not take the request; the message says what of it, or has an id to ask the operator about."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message, param=param)
        self.status = status  # the engine's own


class Unauthorized(Refused):
    """No key, a wrong, expired or revoked one."""

    status = 401
    code = "invalid_api_key"


class Forbidden(Refused):
    """The key is another endpoint's; or a preflight's origin is in no `cors_origins`."""

    status = 403
    code = "forbidden"


class NotFound(Refused):
    """There is no such path, endpoint, key or settled request."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """`model` names no endpoint."""

    code = "model_not_found"


class WrongMethod(Refused):
    """The path is there, the method is not."""

    status = 405
    code = "method_not_allowed"


class TooSlow(Refused):
    """Head, or the next part of the body, did not come within `router.header_seconds`, or all of it within
    `router.upload_seconds`.
    """

    status = 408
    code = "request_timeout"


class BodyTooLarge(Refused):
    """The body has more than `router.max_body_bytes`."""

    status = 413
    code = "request_too_large"


class UrlTooLong(Refused):
    """The URL is too long."""

    status = 414
    code = "url_too_long"


class UnsupportedEncoding(Refused):
    """The body's `Content-Encoding` is none of gzip, deflate and zstd, or there are several."""

    status = 415
    code = "unsupported_encoding"


class TooMany(Refused):
    """More requests without a good key have come from this address than
    `router.refusals_per_second_per_address`. With a key nothing changes.
    """

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class HeadTooLarge(Refused):
    """The headers are too large."""

    status = 431
    code = "headers_too_large"


class Unavailable(RouterError):
    """The activator or the database is away for the moment."""

    # Ours, not the caller's: always with a Retry-After, of at least LEAST_RETRY_SECONDS.
    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message, param=param, retry_after=max(retry_after, LEAST_RETRY_SECONDS))


class NotReady(Unavailable):
    """This router does not know the endpoints and keys yet."""

    code = "starting"


class Draining(Unavailable):
    """This router is stopping."""

    code = "draining"
    finish: Finish = "timeout"


class SpoolFull(Unavailable):
    """This router cannot write usage records: its disk fails."""

    code = "ledger_unavailable"


class DiskFull(SpoolFull):
    """The disk is full, or the spool or the journals have all they may; the message says how much is free and
    needed.
    """

    code = "disk_full"


class QueueFull(Unavailable):
    """`max_held` requests of the endpoint wait already; or bodies that wait, or come in, have
    `router.max_held_bytes`, and this key's most of them.
    """

    code = "queue_full"


class HoldTimeout(Unavailable):
    """No slot became free within `hold_seconds`; where there was no room for a replica, the message says what it
    waited for.
    """

    code = "hold_timeout"
    finish: Finish = "timeout"


class EndpointPaused(Unavailable):
    """The endpoint's operator has paused it (`pilotlight pause`)."""

    code = "endpoint_paused"


class StartFailed(Unavailable):
    """A replica could not be started, or is larger than any node; `pilotlight ps` has the reason."""

    code = "start_failed"
    finish: Finish = "upstream_error"


class UpstreamError(Unavailable):
    """The replica broke off before it answered."""

    code = "upstream_error"
    finish: Finish = "upstream_error"


class EngineFailed(UpstreamError):
    """The engine failed at the request; the router's log has its own words under the request's id."""


def cut(text: str) -> str:
    """What somebody else said, as part of a message: not at length."""
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"


def quoted(text: str) -> str:
    """The same, in one line."""
    line = " ".join(text[: LONGEST_QUOTE + 1].split())
    return line if len(text) <= LONGEST_QUOTE else line[: LONGEST_QUOTE - 1] + "…"


def payload(error: RouterError, form: Form = "openai") -> bytes:
    return json.dumps(forms.body(error.fields(), form, status=error.status)).encode()


def headers(error: RouterError) -> list[tuple[bytes, bytes]]:
    """The headers an answer with this error has besides its length."""
    fields = [(b"content-type", b"application/json")]
    if error.retry_after:
        fields.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
    if error.status == 415:
        fields.append((b"accept-encoding", b"gzip, deflate, zstd"))  # as RFC 9110 asks
    return fields


def answer(error: RouterError, *, request_id: bytes = b"", keep_alive: bool, form: Form = "openai") -> bytes:
    """The whole HTTP/1.1 answer."""
    body = payload(error, form)
    fields = [*headers(error), (b"content-length", b"%d" % len(body))]
    if request_id:
        fields.append((b"x-request-id", request_id))
    if error.status == 401:
        fields.append((b"www-authenticate", b"Bearer"))
    if not keep_alive:
        fields.append((b"connection", b"close"))
    return STATUS_LINE[error.status] + b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n" + body


def event(error: RouterError, form: Form = "openai") -> bytes:
    """The error as an event of a stream whose status has been sent: the SDKs raise from it."""
    return forms.event(error.fields(), form, status=error.status)
