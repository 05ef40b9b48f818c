"""Step 1 for web pages: an origin that is let in can ask and read every answer, errors too; any other is told nothing;
nobody gets more.
"""

from __future__ import annotations

from typing import Any

import pytest

from activator.wire import Changes
from pilotlight.origins import normal
from pilotlight.settings import SettingsError, from_environment, load
from tests.router_world import ADMIN_KEY, OTHER_KEY, Client, Reply, World, endpoint_row, request, world

APP, OTHER = "https://app.example.org", "https://evil.example.org"
CHAT = "/e/tiny/v1/chat/completions"


async def preflight(
    w: World, path: str, origin: str, *, asks: str = "authorization,content-type,x-stainless-os", host: str = "x"
) -> Reply:
    client = await w.client()
    fields = f"origin: {origin}\r\naccess-control-request-method: POST\r\naccess-control-request-headers: {asks}\r\n"
    client.send(f"OPTIONS {path} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n".encode())
    status, headers = await client.head()
    body = await client.reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(status, headers, body)


def allowed(reply: Reply) -> str | None:
    assert "access-control-allow-credentials" not in reply.headers
    return reply.headers.get("access-control-allow-origin")


@pytest.mark.parametrize(
    ("path", "origin", "everywhere", "at_endpoint", "let_in"),
    [
        (CHAT, APP, (), (), None),
        (CHAT, APP, (APP,), (), APP),
        (CHAT, APP, (), (APP,), APP),
        (CHAT, APP, (), ("*",), "*"),
        (CHAT, APP, ("*",), (), "*"),
        (CHAT, OTHER, (APP,), (APP,), None),
        (CHAT, APP.upper(), (APP,), (), None),  # browsers send small letters
        (CHAT, APP + "/", (APP,), (), None),
        (CHAT, APP + ":8443", (APP,), (), None),
        (CHAT, "null", (APP,), (), None),
        ("//e//tiny//v1/chat/completions", APP, (), (APP,), APP),
        ("/e/none/v1/chat/completions", APP, (), (APP,), None),
        ("/v1/chat/completions", APP, (), (APP,), None),  # no endpoint is named before the body is sent
        ("/v1/chat/completions", APP, (APP,), (), APP),
        ("/v1/models", APP, (APP,), (), APP),
    ],
)
async def test_preflights(
    path: str, origin: str, everywhere: tuple[str, ...], at_endpoint: tuple[str, ...], let_in: str | None
) -> None:
    async with world(cors_origins=everywhere) as w:
        w.show(endpoint_row(w.row(), cors_origins=at_endpoint))
        reply = await preflight(w, path, origin)
        assert allowed(reply) == let_in
        if let_in is None:
            assert (reply.status, reply.error["code"]) == (403, "forbidden")
            return
        assert reply.status == 204
        assert "POST" in reply.headers["access-control-allow-methods"]
        assert reply.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
        assert float(reply.headers["access-control-max-age"]) > 0


async def test_an_endpoints_own_host() -> None:
    async with world(domain="llm.test") as w:
        w.show(endpoint_row(w.row(), cors_origins=(APP,)))
        assert allowed(await preflight(w, "/v1/chat/completions", APP, host="tiny.llm.test")) == APP
        reply = await w.ask(url="/v1/chat/completions", host="tiny.llm.test", headers=(f"origin: {APP}",))
        assert (reply.status, allowed(reply)) == (200, APP)


@pytest.mark.parametrize("asks", ["a b", "x\x01", "x" * 3000, "", "authorization,,x", "x:y"])
async def test_only_names_of_headers_are_said_back(asks: str) -> None:
    async with world(cors_origins=(APP,)) as w:
        reply = await preflight(w, CHAT, APP, asks=asks)
        assert reply.status in (204, 400)
        assert (
            reply.headers.get("access-control-allow-headers", "authorization, content-type")
            == "authorization, content-type"
        )


ANSWERS: list[tuple[dict[str, Any], int]] = [
    ({}, 200),
    ({"stream": True}, 200),
    ({"key": None}, 401),
    ({"key": OTHER_KEY}, 403),
    ({"body": b"{"}, 400),
    ({"headers": ("content-encoding: br",)}, 415),
    ({"model": "none"}, 404),
    ({"url": "/e/tiny/v1/nothing"}, 404),
    ({"url": "/e/tiny/v1/models"}, 405),
]


@pytest.mark.parametrize(("asked", "status"), ANSWERS)
async def test_every_answer_can_be_read_by_a_page_let_in_and_by_no_other(asked: dict[str, Any], status: int) -> None:
    async with world(cors_origins=(APP,)) as w:
        headers = asked.pop("headers", ()) if "headers" in asked else ()
        for origin, let_in in ((APP, APP), (OTHER, None)):
            reply = await w.ask(**asked, headers=(*headers, f"origin: {origin}"))
            assert (reply.status, allowed(reply)) == (status, let_in)
            assert "origin" in reply.headers["vary"].lower(), "or a cache on the way gives one page's answer to another"
            assert reply.headers.get("access-control-expose-headers") == ("*" if let_in else None)
        plain = await w.ask(**asked, headers=headers)
        assert (plain.status, allowed(plain)) == (status, None)
        assert b"vary" not in plain.raw_head.lower(), "who is no browser gets what it always got"


async def test_a_held_stream_and_its_error() -> None:
    async with world(cors_origins=(APP,), waiting_seconds=0.01) as w:
        w.show(endpoint_row(hold_seconds=0.05))
        client = await w.client()
        client.post(stream=True, headers=(f"origin: {APP}",))
        status, headers = await client.head()
        assert (status, headers["access-control-allow-origin"]) == (200, APP)


async def test_one_connection_serves_pages_of_several_origins() -> None:
    async with world(cors_origins=(APP,)) as w:
        client: Client = await w.client()
        client.send(request(headers=(f"origin: {APP}",)) + request(headers=(f"origin: {OTHER}",)) + request())
        assert [allowed(await client.answer()) for _ in range(3)] == [APP, None, None]


async def test_the_admin_api_is_for_no_page() -> None:
    async with world(cors_origins=("*",)) as w:
        for path in ("/api/v1/endpoints", "/console", "/v1x", "/v1/organization/usage", "/v1//organization"):
            assert allowed(await preflight(w, path, APP)) is None
        assert allowed(await w.ask(url="/api/v1/endpoints", key=ADMIN_KEY, headers=(f"origin: {APP}",))) is None


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("https://APP.Example.org", APP),
        (" https://app.example.org:443 ", APP),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("https://müller.example", "https://xn--mller-kva.example"),
        ("*", "*"),
    ],
)
def test_origins_are_kept_as_browsers_write_them(given: str, taken: str) -> None:
    assert normal(given) == taken


@pytest.mark.parametrize(
    "given", ["https://app.example.org/", "https://a/b", "app.example.org", "null", "", "https://*.example.org", "https://a:0", "https://a:99999",
              "https://a b", "https://a\nb", "https://user@a", "https://a?x", "https://"],
)  # fmt: skip
def test_what_can_never_match_is_refused_by_settings_and_endpoints(given: str) -> None:
    with pytest.raises(SettingsError, match=r"router\.cors_origins"):
        load(router={"cors_origins": [given]})
    with pytest.raises(ValueError, match="cors_origins"):
        Changes.model_validate({"cors_origins": [given]})


def test_an_environment_variable_holds_several() -> None:
    given = from_environment({"PILOTLIGHT_ROUTER__CORS_ORIGINS": f"{APP}, http://localhost:3000,{APP}"})
    assert load(**given).router.cors_origins == (APP, "http://localhost:3000")
    assert Changes.model_validate({"cors_origins": ""}).cors_origins == (), "`set NAME cors_origins=` takes them away"
