"""Origins of web pages, as browsers name them in `Origin`: which may read our answers. For settings and endpoints.

The failure to survive is an origin that can never match, for it has a path or a typing error. Whoever wrote it would
look for its fault in vain, so it is refused.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

from pilotlight.lists import words

ANY = "*"
MOST_ORIGINS = 100
_FORM = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\s\x00-\x20\x7f]+?)(?::(\d{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def normal(text: str) -> str:
    """The origin as browsers write it: small letters, no port where it is the scheme's own. Raises ValueError."""
    if text.strip() == ANY:
        return ANY
    found = _FORM.fullmatch(text.strip().lower())
    if found is None or (found[3] and not 0 < int(found[3]) < 65536):
        raise ValueError(
            f"{text[:100]!r} is not an origin: give SCHEME://HOST or SCHEME://HOST:PORT, without a path or a slash at its end, or *"
        )
    scheme, host, port = found.groups()
    if "*" in host:
        raise ValueError(f"{text[:100]!r} has a * in it: name each origin, or give * alone for every web page")
    try:
        host = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{text[:100]!r} has a name that DNS cannot hold: write it as browsers send it") from None
    return f"{scheme}://{host}" + (f":{port}" if port and port != _DEFAULT_PORTS.get(scheme) else "")


def _listed(value: object) -> object:
    parts = words(value, what="origins, such as https://app.example.org")
    if len(parts) > MOST_ORIGINS:
        raise ValueError(f"it has {len(parts)} origins, at most {MOST_ORIGINS} are taken: give * for every web page")
    return tuple(dict.fromkeys(map(normal, parts)))


Origins = Annotated[tuple[str, ...], BeforeValidator(_listed)]
