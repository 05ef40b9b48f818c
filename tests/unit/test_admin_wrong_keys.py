"""Wrong admin keys: a line a minute and address, bounded, and nothing of the key in it."""

from __future__ import annotations

import structlog
from starlette.types import Message, Receive, Scope, Send

from router.admin.access import RequireAdminKey
from router.admin.wrong_keys import EVERY_SECONDS, MOST_ADDRESSES, OTHERS, WrongKeys


def test_an_address_is_told_of_once_a_minute_with_how_many_there_were() -> None:
    wrong = WrongKeys()
    assert wrong.came("192.0.2.1", 0.0) == ("192.0.2.1", 1)
    assert [wrong.came("192.0.2.1", now) for now in (1.0, 2.0, 59.0)] == [None] * 3
    assert wrong.came("192.0.2.2", 3.0) == ("192.0.2.2", 1)
    assert wrong.came("192.0.2.1", EVERY_SECONDS) == ("192.0.2.1", 4)


def test_a_flood_of_addresses_is_one_line_more_and_no_more_memory() -> None:
    wrong = WrongKeys()
    told = [wrong.came(f"10.0.{number // 250}.{number % 250}", 0.0) for number in range(1000)]
    assert sum(each is not None for each in told) == MOST_ADDRESSES + 1 and told[MOST_ADDRESSES] == (OTHERS, 1)
    assert len(wrong._of) == MOST_ADDRESSES + 1
    assert wrong.came("10.9.9.9", EVERY_SECONDS) == ("10.9.9.9", 1) and len(wrong._of) == 1


async def test_what_is_told_of_it() -> None:
    app = RequireAdminKey(_unreached, key="right")
    with structlog.testing.capture_logs() as logs:
        for authorization in (b"Bearer wrong-secret", b"Bearer wrong-secret", b"", b"Basic dTpw"):
            headers = [(b"authorization", authorization), (b"x-forwarded-for", b"192.0.2.7")]
            assert await _status(app, {"type": "http", "headers": headers}) == 401
    assert [(line["action"], line["origin"], line["count"]) for line in logs] == [("admin.wrong_key", "192.0.2.7", 1)]
    assert "secret" not in str(logs)


async def _status(app: RequireAdminKey, scope: Scope) -> int:
    heard: list[Message] = []

    async def send(message: Message) -> None:
        heard.append(message)

    await app(scope, _nothing, send)
    status: int = heard[0]["status"]
    return status


async def _nothing() -> Message:
    return {"type": "http.request"}


async def _unreached(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("a wrong key came through")
