"""Step 1: whom a request comes from where proxies bring it, and who is believed; who reaches the admin API; where plain
HTTP is listened for.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.addresses import of_this_machine
from pilotlight.networks import Listening, listening
from pilotlight.ports import free_port
from pilotlight.settings import SettingsError, load
from router.admission.admin_reach import OF_PROXIES, Reach, from_here
from router.admission.proxies import Proxies
from router.edge.listeners import Listeners
from tests.fakes import Admin
from tests.router_world import ADMIN_KEY, get, world

LAN = ("10.0.0.0/8", "fd00::/8")


def chain(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value.encode("latin-1")) for value in values]


@pytest.mark.parametrize(
    ("trusted", "peer", "told", "caller"),
    [
        ((), "10.0.0.1", ["1.2.3.4"], "10.0.0.1"),
        (LAN, "9.9.9.9", ["1.2.3.4"], "9.9.9.9"),
        (LAN, "10.0.0.1", [], "10.0.0.1"),
        (LAN, "10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        (LAN, "10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),  # the caller began the chain himself
        (LAN, "10.0.0.1", ["6.6.6.6", "1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        (LAN, "10.0.0.1", ["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        (LAN, "10.0.0.1", ["1.2.3.4, unknown"], "10.0.0.1"),
        (LAN, "10.0.0.1", ["1.2.3.4, nonsense, 10.0.0.2"], "10.0.0.2"),
        (LAN, "10.0.0.1", [""], "10.0.0.1"),
        (LAN, "10.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),
        (LAN, "10.0.0.1", ["[2001:db8::1]:80"], "2001:db8::1"),
        (LAN, "10.0.0.1", ['"2001:db8::1"'], "2001:db8::1"),
        (LAN, "::ffff:10.0.0.1", ["::ffff:1.2.3.4"], "1.2.3.4"),
        (LAN, "fd00::5", ["2001:db8::1"], "2001:db8::1"),
        (LAN, "", ["1.2.3.4"], ""),
        (("unix",), "", ["1.2.3.4"], "1.2.3.4"),
        (("unix",), "", [], ""),
        (("unix",), "127.0.0.1", ["1.2.3.4"], "127.0.0.1"),
    ],
)
def test_the_caller(trusted: tuple[str, ...], peer: str, told: list[str], caller: str) -> None:
    assert Proxies(trusted).caller(peer, chain(*told)) == caller


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=30), max_size=80))
def test_no_chain_is_believed_further_than_proxies_wrote_it(told: list[str]) -> None:
    assert Proxies(LAN).caller("10.0.0.1", chain(*told, "1.2.3.4, 10.0.0.2")) == "1.2.3.4"
    assert isinstance(Proxies(LAN).caller("10.0.0.1", chain(*told)), str)


@pytest.mark.parametrize(
    ("peer", "told", "scheme"),
    [("10.0.0.1", b"https", "https"), ("10.0.0.1", b"x", "http"), ("9.9.9.9", b"https", "http")],
)
def test_the_scheme(peer: str, told: bytes, scheme: str) -> None:
    assert Proxies(LAN).scheme(peer, [(b"x-forwarded-proto", told)], "http") == scheme


@pytest.mark.parametrize(
    ("trusted", "caller", "scheme"), [((), "127.0.0.1", "http"), (("127.0.0.0/8",), "6.6.6.6", "https")]
)
async def test_the_admin_process_hears_of_the_caller_as_far_as_he_is_believed(
    trusted: tuple[str, ...], caller: str, scheme: str
) -> None:
    async with world(trusted_proxies=trusted) as w:
        admin = await Admin(f"unix:{w.folder}/admin.sock").start()
        brought = ("x-forwarded-for: 6.6.6.6", "x-forwarded-proto: https")
        assert (await w.ask(url="/api/v1/endpoints", key=ADMIN_KEY, headers=brought)).status == 201
        seen = admin.requests[0].headers
        assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == (caller, scheme)
        await admin.stop()


@pytest.mark.parametrize(
    "path", ["/api/v1/endpoints", "//api/v1/endpoints", "/console", "/v1/organization/usage", "/api"]
)
@pytest.mark.parametrize(("reach", "status", "code"), [("off", 404, "not_found"), ("loopback", 403, "forbidden")])
async def test_where_the_admin_api_is_not_for_all_plain_http_does_not_lead_there(
    path: str, reach: Reach, status: int, code: str
) -> None:
    async with world(reach=reach) as w:
        admin = await Admin(f"unix:{w.folder}/admin.sock").start()
        reply = await get(w, path, key=ADMIN_KEY)
        assert (reply.status, reply.error["code"]) == (status, code)
        assert "router.admin" in reply.error["message"]
        assert admin.requests == []
        assert (await get(w, "/v1/models")).status == 200
        await admin.stop()


def scope(client: str | None, scheme: str = "https", *names: bytes) -> Any:
    return {"client": (client, 1) if client else None, "scheme": scheme, "headers": [(name, b"x") for name in names]}


@pytest.mark.parametrize(
    ("found", "here"),
    [
        (scope("127.0.0.1"), True),
        (scope("::1"), True),
        (scope("::ffff:127.0.0.1"), True),
        (scope("127.0.0.1", "http"), False),
        (scope("10.0.0.1"), False),
        (scope(None), False),
        (scope(""), False),
        *((scope("127.0.0.1", "https", name), False) for name in sorted(OF_PROXIES)),
    ],
)
def test_who_is_on_this_machine(found: Any, here: bool) -> None:
    assert from_here(found) is here


@pytest.mark.parametrize(
    ("given_", "where"),
    [
        ("", None),
        ("127.0.0.1:8080", Listening(host="127.0.0.1", port=8080)),
        ("localhost:8080", Listening(host="127.0.0.1", port=8080)),
        ("[::1]:8080", Listening(host="::1", port=8080)),
        ("unix:/run/p.sock", Listening(path="/run/p.sock")),
        ("unix:///run/p.sock", Listening(path="/run/p.sock")),
    ],
)
def test_where_plain_http_is_served(given_: str, where: Listening | None) -> None:
    assert listening(given_) == where


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("plain", "0.0.0.0:80", "unencrypted"),
        ("plain", "10.0.0.1:80", "unencrypted"),
        ("plain", "[::]:80", "unencrypted"),
        ("plain", "127.0.0.1", "not a place to listen"),
        ("plain", "127.0.0.1:0", "not a place to listen"),
        ("plain", "127.0.0.1:99999", "not a place to listen"),
        ("plain", "example.org:80", "not a place to listen"),
        ("plain", "http://127.0.0.1:80", "not a place to listen"),
        ("plain", "unix:p.sock", "whole path"),
        ("plain", "unix:/" + "x" * 200, "107 bytes"),
        ("trusted_proxies", "nonsense", "not an address"),
        ("trusted_proxies", "10.0.0.0/33", "not an address"),
        ("trusted_proxies", "*", "not an address"),
        ("admin", "private", "public"),
    ],
)
def test_what_is_wrong_is_named(field: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=rf"router\.{field}.*{says}"):
        load(router={field: value})


def test_networks_are_lists_or_text() -> None:
    for value in ("10.0.0.5, 192.168.1.7/16,unix", ["10.0.0.5", "192.168.1.7/16", "UNIX:"]):
        assert load(router={"trusted_proxies": value}).router.trusted_proxies == (
            "10.0.0.5/32",
            "192.168.0.0/16",
            "unix",
        )


def test_a_socket_that_a_killed_router_left_is_taken_over_and_one_in_use_is_not(tmp_path: Path) -> None:
    place = tmp_path / "p.sock"
    config = load(state_dir=tmp_path / "s", router={"port": free_port(), "plain": f"unix:{place}"})
    first = Listeners.bind(config)
    assert stat.S_IMODE(place.stat().st_mode) == 0o660
    again = load(state_dir=tmp_path / "s", router={"port": free_port(), "plain": f"unix:{place}"})
    with pytest.raises(OSError, match="another program answers there") as raised:
        Listeners.bind(again)
    assert "router.plain" in raised.value.filename
    first.close()
    second = Listeners.bind(again)
    inherited = Listeners.inherited(str(second))
    assert inherited.descriptors == second.descriptors
    assert inherited.plain is not None
    for each in (inherited.public, inherited.plain):
        each.detach()  # they are the same: closed once
    second.close()


def test_the_addresses_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.7\n        /32 host LOCAL\n"
        "     |-- 10.0.0.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 169.254.1.1\n        /32 host LOCAL\n"
    )
    (tmp_path / "if_inet6").write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "20010db8000000000000000000000007 02 40 00 80     eth0\n"
        "20010db80000000000000000000000ff 02 40 00 01     eth0\n"
        "fe800000000000000000000000000001 02 40 20 80     eth0\n"
        "garbage\n"
    )
    assert of_this_machine(tmp_path) == ["10.0.0.7", "2001:db8::7"]
    assert of_this_machine(tmp_path / "none") == []
    assert all(not address.startswith("127.") for address in of_this_machine())
