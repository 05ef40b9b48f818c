"""The one error tree of the router, drawn at the top, and the only place where HTTP codes meet domain errors.

    RouterError
    ├── Refused: the caller must change something            4xx
    │   ├── BadRequest 400 (TooLong, EngineRefused) · Unauthorized 401 · Forbidden 403 · NotFound 404 (ModelNotFound)
    │   ├── WrongMethod 405
    │   └── TooSlow 408 · BodyTooLarge 413 · UrlTooLong 414 · UnsupportedEncoding 415 · TooMany 429 · HeadTooLarge 431
    └── Unavailable: our capacity or fault; try again        503, with Retry-After
        ├── NotReady · Draining · SpoolFull (DiskFull)       this router cannot take it
        ├── QueueFull · HoldTimeout · EndpointPaused · StartFailed            the hold (step 5) gave up
        └── UpstreamError (EngineFailed)                     the replica failed it (step 11)

Every step raises one of these. Each has OpenAI's shape, on every path, and a message that says what to do; on the
routes of another API it has that one's shape besides (`Form`). `finish` is how a usage record names the outcome. The
failure to survive: words of a caller in a message, which may be as long as a body (`quoted`).
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
    status = 500
    type = "server_error"
    code: str | None = None
    finish: Finish = "refused"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.message, self.param, self.retry_after = message, param, retry_after

    def told(self) -> dict[str, Any]:
        """The fields that OpenAI's errors have."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def body(self) -> dict[str, Any]:
        return {"error": self.told()}


class Refused(RouterError):
    status = 400
    type = "invalid_request_error"


class BadRequest(Refused):
    code = "invalid_value"


class TooLong(BadRequest):
    """More tokens than the model's context has. Clients look for this very code."""

    code = "context_length_exceeded"


class EngineRefused(BadRequest):
    """The engine's judgement on a request; `status` is its own."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message, param=param)
        self.status = status


class Unauthorized(Refused):
    status = 401
    code = "invalid_api_key"


class Forbidden(Refused):
    status = 403
    code = "forbidden"


class NotFound(Refused):
    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class WrongMethod(Refused):
    status = 405
    code = "method_not_allowed"


class TooSlow(Refused):
    status = 408
    code = "request_timeout"


class BodyTooLarge(Refused):
    status = 413
    code = "request_too_large"


class UrlTooLong(Refused):
    status = 414
    code = "url_too_long"


class UnsupportedEncoding(Refused):
    status = 415
    code = "unsupported_encoding"


class TooMany(Refused):
    """Of those who showed no good key; with a Retry-After."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class HeadTooLarge(Refused):
    status = 431
    code = "headers_too_large"


class Unavailable(RouterError):
    """Ours, not the caller's: always with a Retry-After, of at least LEAST_RETRY_SECONDS."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message, param=param, retry_after=max(retry_after, LEAST_RETRY_SECONDS))


class NotReady(Unavailable):
    code = "starting"


class Draining(Unavailable):
    code = "draining"
    finish: Finish = "timeout"


class SpoolFull(Unavailable):
    code = "ledger_unavailable"


class DiskFull(SpoolFull):
    code = "disk_full"


class QueueFull(Unavailable):
    code = "queue_full"


class HoldTimeout(Unavailable):
    code = "hold_timeout"
    finish: Finish = "timeout"


class EndpointPaused(Unavailable):
    """By its operator, who alone can resume it."""

    code = "endpoint_paused"


class StartFailed(Unavailable):
    code = "start_failed"
    finish: Finish = "upstream_error"


class UpstreamError(Unavailable):
    code = "upstream_error"
    finish: Finish = "upstream_error"


class EngineFailed(UpstreamError):
    """An error of the engine's own, told before anything of the answer was."""


def cut(text: str) -> str:
    """What somebody else said, as part of a message: not at length."""
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"


def quoted(text: str) -> str:
    """The same, in one line."""
    line = " ".join(text[: LONGEST_QUOTE + 1].split())
    return line if len(text) <= LONGEST_QUOTE else line[: LONGEST_QUOTE - 1] + "…"


def payload(error: RouterError, form: Form = "openai") -> bytes:
    return json.dumps(forms.body(error.told(), form, status=error.status)).encode()


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
    return forms.event(error.told(), form, status=error.status)
