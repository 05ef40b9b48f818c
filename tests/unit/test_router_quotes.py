"""What a caller has sent comes back at most in small: no answer quotes more than 100 characters of it, wherever they
stood in the request.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router import errors
from router.admission.openai import read
from router.admission.routes import ROUTES, Route
from router.errors import LONGEST_QUOTE, BadRequest
from tests.fakes import FakeRequest, json_answer
from tests.router_world import ADMIN_KEY, KEY, world

LONG = "q" * 400
WIDE = "é" * 400  # `\u00e9` in an answer's JSON
VALUES: tuple[Any, ...] = (
    LONG,
    WIDE,
    [LONG],
    {LONG: LONG},
    {"type": LONG},
    [{"type": LONG}],
    [{LONG: LONG}],
    [{"role": LONG}],
    int("9" * 400),
)


def assert_small(reply: bytes, what: str) -> None:
    for letter in ("q", "9", r"\u00e9", "%C3%A9", "é"):
        runs = re.findall(f"(?:{re.escape(letter)})+", reply.decode())
        longest = max((len(run) // len(letter) for run in runs), default=0)
        assert longest <= LONGEST_QUOTE, f"{what}: {longest} characters come back: {reply[:300]!r}"


def whole(route: Route) -> dict[str, Any]:
    least: dict[str, Any] = (
        {"messages": [{"role": "user", "content": "x"}]} if route.needs == "messages" else {route.needs: "x"}
    )
    return {**least, "max_tokens": 1} if route.also else least


@pytest.mark.parametrize("name", ROUTES)
def test_no_field_or_value_comes_back_at_length(name: str) -> None:
    route = ROUTES[name]
    bodies = [LONG, json.dumps(LONG), json.dumps({**whole(route), LONG: 1}), f'{{"{LONG}"', f'{{"a": {LONG}}}']
    bodies += [json.dumps({**whole(route), field: value}) for field in route.fields for value in VALUES]
    refused = 0
    for body in bodies:
        try:
            read(body.encode(), route)
        except BadRequest as error:
            refused += 1
            assert_small(errors.answer(error, keep_alive=True, form=route.form), body[:80])
    assert refused > len(route.fields)


@pytest.mark.parametrize("name", ROUTES)
async def test_no_engine_gives_it_back_at_length(name: str) -> None:
    async with world() as w:

        async def refuse(request: FakeRequest) -> AsyncIterator[bytes]:
            told = {
                "error": {"message": f"bad value '{request.body.decode()}'", "type": LONG, "param": LONG, "code": LONG}
            }
            yield json_answer(400, json.dumps(told).encode())

        w.replica.answer = refuse
        route = ROUTES[name]
        reply = await w.ask(
            url=f"/e/tiny/v1/{name}", body=json.dumps({**whole(route), "model": "tiny", "stop": LONG}).encode()
        )
        assert 400 <= reply.status < 500
        assert_small(reply.raw_head + reply.body, name)
        reply = await w.ask(url=f"/e/tiny/v1/{name}", body=json.dumps({**whole(route), "model": LONG}).encode())
        assert reply.status in (400, 404)
        assert_small(reply.raw_head + reply.body, name)


async def test_no_url_or_header_comes_back_at_length() -> None:
    paths = [
        f"/{LONG}",
        f"/v1/models/{LONG}",
        f"/e/{LONG}/v1/models",
        f"/e/{LONG}/v1/chat/completions",
        f"/e/{LONG}/health",
        f"/v1/{LONG}",
    ]
    paths += [
        f"/healthz?{LONG}",
        f"/api/{LONG}",
        "/e/" + "%C3%A9" * 400 + "/v1/models",
        f"http://{LONG}/x",
        f"/v1/responses/{LONG}",
    ]
    async with world() as w:
        for path in paths:
            for method in ("GET", "POST", "DELETE", "OPTIONS", "LOCK"):
                for key in (KEY, ADMIN_KEY, LONG):
                    client = await w.client()
                    client.send(
                        f"{method} {path} HTTP/1.1\r\nhost: {LONG}\r\nauthorization: Bearer {key}\r\nprefer: wait={LONG}\r\n"
                        f"origin: https://{LONG}\r\ncontent-type: {LONG}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}".encode()
                    )
                    assert_small(await client.closed(), f"{method} {path[:40]}")
