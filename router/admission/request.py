"""Tells which requests are inference calls, and keeps what the later steps need of one. Step 1."""

from __future__ import annotations

import functools
import random
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from router.admission.routes import ROUTES, Route
from router.admission.target import origin_form
from runtime.wire import SEQUENCES_HEADER

KEPT = frozenset(
    {
        b"authorization",
        b"x-api-key",
        b"prefer",
        b"traceparent",
        b"tracestate",
        b"content-length",
        b"content-encoding",
        b"expect",
        b"host",
        b"origin",
        b"transfer-encoding",
    }
)
_VERSION = 0x7 << 76 | 0b10 << 62  # of a UUIDv7, and its variant
_RANDOM = (1 << 76) - 1 & ~(0b11 << 62)
_TRACED = frozenset({b"traceparent", b"tracestate"})  # all that goes on to the replica
_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


@dataclass(slots=True)
class Request:
    """One inference call as it came in. `endpoint` is the name in the URL, path or host, None where `model` is to name
    it.
    """

    route: Route
    endpoint: str | None
    headers: dict[bytes, bytes] = field(default_factory=dict)  # those in KEPT
    body: bytes = b""

    @property
    def wait_seconds(self) -> float | None:
        """Of `Prefer: wait=N`."""
        prefer = self.headers.get(b"prefer")
        match = _WAIT.search(prefer) if prefer else None
        return float(match[1]) if match else None

    def most_held(self, seconds: float) -> float:
        """How long it may be held: `seconds`, or less where its `Prefer: wait=N` says so."""
        wait = self.wait_seconds if b"prefer" in self.headers else None
        return seconds if wait is None else min(wait, seconds)

    def upstream(self, event_id: str, body: Sequence[bytes | memoryview], sequences: int = 1) -> bytes:
        """The request as the replica is to have it: nothing of the client's head but what is allow-listed. `body`: its
        parts, which are copied once.
        """
        headers, traced = self.headers, b""
        if not _TRACED.isdisjoint(headers):
            traced = b"".join([b"%s: %s\r\n" % (name, value) for name, value in headers.items() if name in _TRACED])
        if sequences > 1:
            traced += b"%s: %d\r\n" % (SEQUENCES_HEADER.encode(), sequences)
        head = b"%s%s\r\ncontent-length: %d\r\n%s\r\n" % (
            self.route.head,
            event_id.encode(),
            sum(map(len, body)),
            traced,
        )
        return b"".join((head, *body))


def expects_continue(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the client waits for a word from us before it sends the body."""
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers)


@functools.lru_cache(maxsize=256)
def aimed(url: bytes, method: bytes) -> tuple[bytes, tuple[Route, str | None] | None]:
    """The path that a request's first line means, and what `match_route` says of it where this may be a call. Raises
    BadRequest.
    """
    path = origin_form(url, method)
    return path, match_route(path) if method == b"POST" else None


def match_route(url: bytes) -> tuple[Route, str | None] | None:
    """The route and the endpoint named in the URL, if this is an inference route; `//` counts as `/`."""
    path = url.partition(b"?")[0]
    if b"%" in path:
        path = unquote_to_bytes(path)
    if b"//" in path:
        path = re.sub(rb"/+", b"/", path)
    name: str | None = None
    if path.startswith(b"/e/"):
        raw, _, rest = path[3:].partition(b"/")
        path = b"/" + rest
        name = raw.decode("latin-1")
    if not path.startswith(b"/v1/"):
        return None
    route = ROUTES.get(path[4:].decode("latin-1"))
    return (route, name) if route else None


def named_by_host(host: bytes, domain: str) -> str | None:
    """The endpoint that `Host: ENDPOINT.DOMAIN` names; None where it names none, or there is no domain."""
    name, _, rest = host.partition(b":")[0].decode("latin-1").lower().rstrip(".").partition(".")
    return name if name and domain and rest == domain else None


def new_event_id() -> str:
    """A UUIDv7 as 32 hex digits: sorts by time, unique without asking anyone."""
    return "%032x" % (time.time_ns() // 1_000_000 << 80 | _VERSION | random.getrandbits(76) & _RANDOM)
