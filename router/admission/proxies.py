"""Finds who a request comes from where a proxy brings it: the caller's address and scheme, believed only of trusted
proxies.

Step 1. `router.trusted_proxies` names those whose `X-Forwarded-For` and `X-Forwarded-Proto` count. Of anybody else they
are only text that a stranger has chosen. The chain is read from its end, where the nearest proxy wrote: the first
address that is no trusted proxy's is the caller's. The failure to survive is a chain with nonsense in it, or one that a
caller began to write himself. It is believed as far as trusted proxies wrote it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from pilotlight.networks import UNIX, Network, network

FORWARDED_FOR, FORWARDED_PROTO = b"x-forwarded-for", b"x-forwarded-proto"
LONGEST_CHAIN = 50  # addresses looked at


class Proxies:
    """`trusted`: addresses and networks as `router.trusted_proxies` has them, and `unix` for whoever may open our
    socket.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        named = list(trusted)
        self._unix = UNIX in named
        self._networks: Sequence[Network] = [network(name) for name in named if name != UNIX]

    def caller(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The caller's address. `peer`: the connection's other end, empty for a Unix socket; so is the answer where
        nothing better is known.
        """
        if not self.trusts(peer):
            return peer
        chain = ",".join(value.decode("latin-1") for name, value in headers if name == FORWARDED_FOR).split(",")
        found = peer
        for text in chain[: -LONGEST_CHAIN - 1 : -1]:
            address = _address(text)
            if address is None:
                break
            found = str(address)
            if not self._is_proxy(address):
                break
        return found

    def scheme(self, peer: str, headers: Iterable[tuple[bytes, bytes]], scheme: str) -> str:
        """`https` where a trusted proxy says that it was; else that of our connection."""
        if not self.trusts(peer):
            return scheme
        said = next((value.strip().lower() for name, value in headers if name == FORWARDED_PROTO), b"")
        return {b"https": "https", b"http": "http"}.get(said, scheme)

    def trusts(self, peer: str) -> bool:
        if not peer:
            return self._unix
        address = _address(peer) if self._networks else None
        return address is not None and self._is_proxy(address)

    def _is_proxy(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return any(address.version == known.version and address in known for known in self._networks)


def with_callers(app: ASGIApp, proxies: Proxies) -> ASGIApp:
    """The pages, with the caller's address and scheme in their scope instead of the proxy's."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            peer = scope["client"][0] if scope.get("client") else ""
            if proxies.trusts(peer):
                caller = proxies.caller(peer, scope["headers"])
                port = scope["client"][1] if caller == peer and scope.get("client") else 0
                scheme = proxies.scheme(peer, scope["headers"], scope["scheme"])
                scope = {**scope, "client": (caller, port) if caller else None, "scheme": scheme}
        await app(scope, receive, send)

    return called


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """As proxies write it, with or without a port; an IPv4 address that was mapped into IPv6 is one of IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
