"""Reads what the first line of a request is aimed at, and which fields may stand in its head only once. Step 1; pure.

The failure to survive is a head that two readers take two ways (RFC 9112, 3.2). It has several hosts or keys, a target
that is no path, or a port that is none. Each is refused with what to send instead.
"""

from __future__ import annotations

import functools
import re

from router.errors import BadRequest

ONCE = frozenset({b"host", b"authorization", b"x-api-key"})  # of several, a proxy may have looked at another than we do
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::(\d{0,5}))?")
_MOST_PORT = 65535


def origin_form(url: bytes, method: bytes) -> bytes:
    """The path and query that are meant, beginning with a slash. Raises BadRequest.

    1. A path, as nearly all send it; `#` and what follows was never meant for us.
    2. A whole URL, as some proxies send it: whatever host it names is this one.
    3. `*`, which only OPTIONS may ask about.
    """
    if url.startswith(b"/"):  # 1
        if not url.isascii():
            raise BadRequest("The URL has bytes that are no ASCII. Write them as %XX.")
        return url.partition(b"#")[0] if b"#" in url else url
    if absolute := _ABSOLUTE.match(url):  # 2
        _check_authority(absolute[1], "The URL's host")
        rest = url[absolute.end() :]
        return origin_form(rest if rest.startswith(b"/") else b"/" + rest, method)
    if url == b"*" and method == b"OPTIONS":  # 3
        return b"/*"
    raise BadRequest("The request is for no path. Begin it with a slash: GET /v1/models HTTP/1.1.")


def fields_of(headers: list[tuple[bytes, bytes]], version: str) -> dict[bytes, bytes]:
    """The fields by name, ONCE's among them. Raises BadRequest where one is missing or there twice, or a host is
    none.
    """
    found = dict(headers)
    if len(found) < len(headers):
        found = _joined(headers)
    if (host := found.get(b"host")) is not None:
        _check_authority(host, "The Host header")
    elif version == "1.1":
        raise BadRequest("The request has no Host header, which HTTP/1.1 asks for. Send one.", param="host")
    return found


def _joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """One that stands there several times is as if its values stood in one, between commas: none is passed over."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in found and name in ONCE:
            raise BadRequest(f"The request has several {name.decode().title()} headers. Send one.", param=name.decode())
        found[name] = found[name] + b", " + value if name in found else value
    return found


@functools.lru_cache(maxsize=256)
def _check_authority(host: bytes, what: str) -> None:
    found = _AUTHORITY.fullmatch(host)
    if found is None or (found[1] and int(found[1]) > _MOST_PORT):
        raise BadRequest(f"{what} is no NAME or NAME:PORT. Send the name you connect to.", param="host")


def without_offer(method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The head of a request that offers another protocol (h2c, WebSocket), as one that does not."""
    fields = [field for field in headers if field[0] not in (b"upgrade", b"connection", b"http2-settings")]
    return b"%s %s HTTP/1.1\r\n%s\r\n" % (method, url, b"".join([b"%s: %s\r\n" % field for field in fields]))
