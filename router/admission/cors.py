"""Tells a browser whether a web page may send a call, and read the answer. Step 1.

Nothing is allowed by default. An origin is let in everywhere (`router.cors_origins`) or at one endpoint (its
`cors_origins`). There the URL has to name the endpoint, for a preflight has neither a key nor a body. This protects the
user of a browser, not us. The browser refuses a page that is not let in, and our keys keep strangers out. So there are
no cookies and no `allow-credentials`, and the admin API has none of it. The failure to survive is an answer without
these lines, which a page cannot read: errors have them too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pilotlight.origins import ANY
from router import errors
from router.admission.admin_reach import is_relayed
from router.errors import Forbidden, quoted

SERVED = ("/v1/", "/e/")  # paths that web pages may call
KEPT_SECONDS = 600  # how long a browser need not ask again
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
_USUAL = b"authorization, content-type"
_VARY = b"vary: origin\r\n"


class Cors:
    """`everywhere`: origins let in at every endpoint; `at`: those of the endpoint of a name."""

    def __init__(self, everywhere: Iterable[str] = (), at: Callable[[str], Iterable[str]] = lambda name: ()) -> None:
        self._everywhere, self._at = frozenset(everywhere), at

    def lines(self, origin: bytes, endpoint: str | None) -> bytes:
        """Lines for the head of an answer to a page of this origin. `endpoint`: the name in the URL or host, None where
        there is none.
        """
        allowed = self._allowed(origin, endpoint)
        return (
            b"access-control-allow-origin: %b\r\naccess-control-expose-headers: *\r\n%b" % (allowed, _VARY)
            if allowed
            else _VARY
        )

    def preflight(self, origin: bytes, endpoint: str | None, asked: bytes) -> list[tuple[bytes, bytes]]:
        """The answer's headers, where a page may send a call with the headers that it `asked` for. Raises Forbidden
        where it may not.
        """
        allowed = self._allowed(origin, endpoint)
        if not allowed:
            raise Forbidden(
                f"Web pages of {quoted(origin.decode('latin-1'))} may not call this. Name that origin in 'cors_origins' of the endpoint, or in router.cors_origins."
            )
        names = asked if len(asked) <= 2000 and _NAMES.fullmatch(asked) else _USUAL
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", names),
            (b"access-control-max-age", b"%d" % KEPT_SECONDS),
            (b"vary", b"origin, access-control-request-headers"),
        ]

    def _allowed(self, origin: bytes, endpoint: str | None) -> bytes:
        """What is said to be allowed, empty for nothing. It is told from our list, never from what was sent."""
        for listed in (self._everywhere, self._at(endpoint) if endpoint else ()):
            if ANY in listed:
                return ANY.encode()
            if (text := origin.decode("latin-1")) in listed:
                return text.encode("latin-1")
        return b""


def with_cors(app: ASGIApp, cors: Cors, *, refused: Callable[[int], None]) -> ASGIApp:
    """The pages, for browsers too: preflights are answered here, all else gets its lines on its way out."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        fields = dict(scope.get("headers", ()))
        origin, path = fields.get(b"origin"), scope.get("path", "")
        if scope["type"] != "http" or origin is None or not path.startswith(SERVED) or is_relayed(path):
            await app(scope, receive, send)
            return
        endpoint = path.split("/", 3)[2] if path.startswith("/e/") else None
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in fields:
            await _answer_preflight(
                cors, origin, endpoint, fields.get(b"access-control-request-headers", b""), send, refused
            )
            return
        lines = [(name, value) for name, value in _fields(cors.lines(origin, endpoint))]

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *lines]}
            await send(message)

        await app(scope, receive, sent)

    return called


async def _answer_preflight(
    cors: Cors, origin: bytes, endpoint: str | None, asked: bytes, send: Send, refused: Callable[[int], None]
) -> None:
    status, body = 204, b""
    try:
        headers = cors.preflight(origin, endpoint, asked)
    except Forbidden as error:
        refused(error.status)
        status, body = error.status, errors.payload(error)
        headers = [*errors.headers(error), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _fields(lines: bytes) -> list[tuple[bytes, bytes]]:
    found = (line.split(b": ", 1) for line in lines.split(b"\r\n") if line)
    return [(name, value) for name, value in found]
