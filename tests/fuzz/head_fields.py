"""What stands in a request's head and is read by itself: its target, its host, who a proxy says it is of, what a page
asks to be let in with; and the name that a TLS client asks for.
"""

from __future__ import annotations

import ipaddress
from typing import cast

from router.admission.cors import Cors
from router.admission.proxies import Proxies
from router.admission.target import fields_of, origin_form, without_offer
from router.edge.certificate import Certificates
from router.errors import BadRequest, Forbidden

SEEDS = (
    b"/v1/models?x=%41#f\nhost\nh:8443\nx-forwarded-for\n10.0.0.1, 192.0.2.1:80\nx-forwarded-proto\nhttps",
    b'http://[::1]:8443/e/t/v1/completions?a=b\nhost\n[::1]:1\nx-forwarded-for\n"[2001:db8::1%25eth0]:99",10.1.1.1',
    b"*\nhost\nx:99999\nhost\ny\norigin\nhttps://a.example\naccess-control-request-headers\nauthorization, x-y",
    b"h:1\nx-forwarded-for\n::ffff:192.0.2.1\norigin\nnull\nauthorization\nBearer a\nauthorization\nBearer b",
)
PEERS = ("", "10.0.0.9", "192.0.2.9", "::ffff:10.0.0.9", "fe80::1%eth0")
PROXIES = Proxies(("10.0.0.0/8", "unix"))
CORS = Cors(("https://a.example",), lambda name: ("*",) if name == "open" else ())


class _Pair:
    names_address = True


def target(data: bytes) -> None:
    """Lines: the target, then names and values in turn."""
    url, *lines = data.split(b"\n")
    headers = [(name.lower(), value) for name, value in zip(lines[::2], lines[1::2], strict=False)]
    for method in (b"GET", b"OPTIONS"):
        try:
            path = origin_form(url, method)
            assert path.startswith(b"/") and b"#" not in path and path.isascii(), path
            assert origin_form(path, method) == path or path == b"/*"
            fields = fields_of(headers, "1.1")
            assert len(fields) == len({name for name, _ in headers})
        except BadRequest as error:
            assert len(error.message) < 400
    assert b"upgrade:" not in without_offer(b"GET", b"/", [field for field in headers if b":" not in field[0]]).lower()
    for peer in PEERS:
        caller = PROXIES.caller(peer, headers)
        assert caller == peer or ipaddress.ip_address(caller), caller
        assert PROXIES.scheme(peer, headers, "http") in ("http", "https")
    _page(dict(headers))
    _handshake(url)


def _page(fields: dict[bytes, bytes]) -> None:
    asked = fields.get(b"access-control-request-headers", b"")
    origin = fields.get(b"origin", b"")
    for endpoint in (None, "open"):
        try:
            told = CORS.preflight(origin, endpoint, asked)
        except Forbidden as error:
            assert len(error.message) < 400
        else:
            assert not any(b"\r" in value or b"\n" in value for _, value in told), told
        assert CORS.lines(origin, endpoint).count(b"\r\n") in (1, 3)


def _handshake(name: bytes) -> None:
    """TLS gives names as text of ASCII, or none."""
    certificates = Certificates.__new__(Certificates)
    ours, own = _Pair(), _Pair()
    certificates.__dict__.update(_ours=ours, _own=own)
    chosen = cast(object, certificates._for(name.decode("ascii", "ignore") or None))
    assert chosen in (ours, own)
