"""Decides who reaches the admin API through the router (`router.admin`): everybody with an admin key, this machine
alone, or nobody.

Step 1, the other branch. An admin key is the installation, so the port that strangers see need not lead there. The
failure to survive is a proxy on this machine, all of whose callers come from loopback. Whatever came by plain HTTP, or
has a line that proxies write, was brought by one.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import Forbidden, NotFound

Reach = Literal["public", "loopback", "off"]
RELAYED = ("/api", "/console", "/v1/organization")  # paths of the admin process's, and what is below them
OF_PROXIES = frozenset(
    {
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-real-ip",
        b"forwarded",
        b"via",
    }
)


class Guarded:
    """The admin API, an ASGI application, for those who may. Raises Forbidden, NotFound to the others."""

    def __init__(self, admin: ASGIApp, reach: Reach) -> None:
        self._admin, self._reach = admin, reach

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._reach == "off":
            raise NotFound(
                "The admin API is not served on this port (router.admin is off). Use the command line on the machine itself."
            )
        if self._reach == "loopback" and not from_here(scope):
            raise Forbidden(
                "The admin API is served to this machine alone (router.admin is loopback), over HTTPS and without a proxy. Use the command line there."
            )
        await self._admin(scope, receive, send)


def is_relayed(path: str) -> bool:
    """Whether this is the admin process's to answer: it alone of our pages reads bodies, and it is for no web page of
    others.
    """
    plain = re.sub("/+", "/", path)
    return any(plain == prefix or plain.startswith(f"{prefix}/") for prefix in RELAYED)


def from_here(scope: Scope) -> bool:
    """Whether a program on this machine is connected to our HTTPS port, and was no proxy's."""
    client = scope.get("client")
    if scope["scheme"] != "https" or not client or any(name in OF_PROXIES for name, _ in scope["headers"]):
        return False
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
