"""The admin API: who may use it, what it refuses and how it says so, what it asks of the activator."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from activator.wire import Deploy, Done, Remove, Rollback, Wake
from pilotlight.keys import hash_key, mint, well_formed
from router.admin.export import COLUMNS, csv_lines, json_lines
from router.admin.snapshots import Snapshots
from router.admin.store import AdminStore, Row, plain
from router.errors import LONGEST_QUOTE, Unavailable
from router.ledger.postgres import Database
from snapshots.pack import pack
from tests.fakes_admin import ADMIN_KEY, DIGEST, PEPPER, Bench, play


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    assert isinstance(body["error"], dict)
    return body["error"]


@pytest.mark.parametrize("key", [None, "", "pl_wrong", ADMIN_KEY + "x", ADMIN_KEY[:-1], mint()])
@pytest.mark.parametrize("path", ["/api/v1/endpoints", "/api/v1/nothing", "/"])
def test_without_the_admin_key_nothing_is_answered(tmp_path: Path, key: str | None, path: str) -> None:
    async def scene(bench: Bench) -> None:
        response = await bench.ask("GET", path, key=key)
        assert error(response, 401)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
        assert ADMIN_KEY not in response.text

    play(tmp_path, scene, activator=False)


def test_unknown_paths_and_methods_have_the_same_shape(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        assert error(await bench.ask("GET", "/api/v1/nothing"), 404)["code"] == "not_found"
        response = await bench.ask("PATCH", "/api/v1/status")
        assert error(response, 405)["code"] == "method_not_allowed" and "GET" in response.headers["allow"]

    play(tmp_path, scene, activator=False)


def test_what_was_sent_comes_back_at_most_in_small(tmp_path: Path) -> None:
    long = "q" * 400

    async def scene(bench: Bench) -> None:
        asked = [
            bench.ask("GET", f"/api/v1/{long}"),
            bench.ask("GET", f"/api/v1/requests/{long}"),
            bench.ask("GET", f"/api/v1/endpoints/{long}/keys"),
            bench.ask("POST", f"/api/v1/keys/{long}/rotate", json={}),
            bench.ask("DELETE", f"/api/v1/keys/{long}"),
            bench.ask("GET", "/api/v1/usage", params={long: long, "since": long}),
            bench.ask("PUT", "/api/v1/endpoints/chat", json={long: 1, "digest": long, "engine_args": {long: [long]}}),
            bench.ask("PUT", "/api/v1/endpoints/chat", content=long.encode()),
            bench.ask("PUT", "/api/v1/endpoints/chat/prices", content=f'{{"input_per_million": {long}}}'.encode()),
        ]
        for response in [await each for each in asked]:
            assert response.status_code >= 400
            runs = re.findall("q+", response.text)
            assert max(map(len, runs), default=0) <= LONGEST_QUOTE, response.text

    play(tmp_path, scene)


def test_deploy_reaches_the_activator_whole(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        args = {"max_model_len": 512, "enforce_eager": True, "gpu": 0.5, "dtype": "bfloat16"}
        body = {
            "digest": DIGEST,
            "engine_args": args,
            "max_replicas": 3,
            "idle_timeout_seconds": 5,
            "slots": 8,
            "max_held": 7,
        }
        response = await bench.ask("PUT", "/api/v1/endpoints/chat", json=body)
        assert response.status_code == 200 and response.json()["name"] == "chat"
        sent = bench.activator.commands[0]
        assert sent == Deploy(
            org_id="default",
            name="chat",
            digest=DIGEST,
            engine_args={"max-model-len": 512, "enforce-eager": True, "gpu": 0.5, "dtype": "bfloat16"},
            max_replicas=3,
            idle_timeout_seconds=5.0,
            slots=8,
            max_held=7,
            by="admin key",
        )
        assert isinstance(sent, Deploy) and sent.engine_args and sent.engine_args["enforce-eager"] is True
        await bench.ask(
            "PUT", "/api/v1/endpoints/chat", json={"digest": DIGEST, "min_replicas": 2, "target_concurrency": 100}
        )
        partial = bench.activator.commands[1]
        assert partial == Deploy(
            org_id="default", name="chat", digest=DIGEST, min_replicas=2, target_concurrency=100, by="admin key"
        ), "what it does not name is the activator's to know, and so is what that must fit"

    play(tmp_path, scene)


def test_deploy_answers_even_when_postgres_is_away(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.store.away = True
        response = await bench.ask("PUT", "/api/v1/endpoints/chat", json={"digest": DIGEST})
        assert response.status_code == 200 and response.json()["name"] == "chat"

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"digest": "sha256:short"}, "digest"),
        ({"digest": DIGEST, "task": "paint"}, "task"),
        ({"digest": DIGEST, "min_replicas": 2, "max_replicas": 1}, "max_replicas"),
        ({"digest": DIGEST, "slots": 0}, "slots"),
        ({"digest": DIGEST, "hold_seconds": 1e9}, "hold_seconds"),
        ({"digest": DIGEST, "idle_timeout_seconds": 8 * 86400}, "idle_timeout_seconds"),
        ({"digest": DIGEST, "task": "classify"}, "task"),
        ({"digest": DIGEST, "slots": 4, "target_concurrency": 5}, "target_concurrency"),
        ({"digest": DIGEST, "task": "embed", "zero": "parked"}, "zero"),
        ({"digest": DIGEST, "colour": "red"}, "colour"),
        ({"digest": DIGEST, "engine_args": {"nested": {"a": 1}}}, "engine_args.nested"),
        ({"digest": DIGEST, "engine_args": {"dtype": "a\0b"}}, "engine_args.dtype"),
        ({"digest": DIGEST, "engine_args": {"d\0type": "a"}}, "engine_args"),
        ({"digest": DIGEST, "engine_args": {"seed=1": 2}}, "engine_args"),
        ({"digest": DIGEST, "engine_args": {"max_model_len": 1, "max-model-len": 2}}, "engine_args"),
        ([], None),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, body: Any, param: str | None) -> None:
    async def scene(bench: Bench) -> None:
        wrong = error(await bench.ask("PUT", "/api/v1/endpoints/chat", json=body), 400)
        assert wrong["param"] == param and wrong["type"] == "invalid_request_error" and wrong["message"]
        assert not bench.activator.commands

    play(tmp_path, scene)


@pytest.mark.parametrize("name", ["Chat", "-a", "a" * 64, "a.b", "a_b"])
def test_a_name_that_could_not_be_a_host_name_is_refused(tmp_path: Path, name: str) -> None:
    async def scene(bench: Bench) -> None:
        assert (
            error(await bench.ask("PUT", f"/api/v1/endpoints/{name}", json={"digest": DIGEST}), 400)["param"] == "name"
        )

    play(tmp_path, scene)


def test_a_body_that_is_no_json_or_too_large_is_refused(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        error(await bench.ask("PUT", "/api/v1/endpoints/chat", content=b"{"), 400)
        error(await bench.ask("PUT", "/api/v1/endpoints/chat", content=b" " * (2 << 20)), 413)

    play(tmp_path, scene)


def test_what_the_activator_refuses_is_the_callers_to_mend_and_its_absence_is_ours(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.activator.answer = Done(ok=False, message="no such snapshot: push it first")
        wrong = error(await bench.ask("PUT", "/api/v1/endpoints/chat", json={"digest": DIGEST}), 400)
        assert wrong["message"] == "no such snapshot: push it first"
        bench.activator.answer = None
        response = await bench.ask("PUT", "/api/v1/endpoints/chat", json={"digest": DIGEST})
        error(response, 503)
        assert response.headers["retry-after"] == "2"

    play(tmp_path, scene)


def test_an_activator_that_is_away_is_a_503_with_retry_after(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        for method, path in (("GET", "/api/v1/status"), ("DELETE", "/api/v1/endpoints/chat")):
            response = await bench.ask(method, path)
            assert error(response, 503)["code"] == "unavailable" and response.headers["retry-after"] == "2"

    play(tmp_path, scene, activator=False)


def test_status_list_get_and_delete(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        assert (await bench.ask("GET", "/api/v1/status")).json() == {"nodes": []}
        assert [row["name"] for row in (await bench.ask("GET", "/api/v1/endpoints")).json()["data"]] == ["chat"]
        assert (await bench.ask("GET", "/api/v1/endpoints/chat")).json()["endpoint_id"] == "ep_chat"
        error(await bench.ask("GET", "/api/v1/endpoints/other"), 404)
        error(await bench.ask("DELETE", "/api/v1/endpoints/other"), 404)
        gone = (await bench.ask("DELETE", "/api/v1/endpoints/chat")).json()
        assert (gone["deleted"], gone["revoked_keys"], gone["everywhere"]) == (True, 0, True) and not bench.ledger.asked
        assert bench.activator.commands[1:] == [Remove(org_id="default", name="chat")]
        bench.activator.answer = Done(ok=True, result={"revoked_keys": 2, "revoked_key": "key_1", "prices_ended": True})
        bench.ledger.everywhere = False
        gone = (await bench.ask("DELETE", "/api/v1/endpoints/chat")).json()
        assert (gone["revoked_keys"], gone["prices_ended"], gone["everywhere"]) == (2, True, False)
        assert bench.ledger.asked == [("key_1", False)], (
            "the answer waits for the routers, as that of a revocation does"
        )

    play(tmp_path, scene)


def test_a_database_that_is_away_is_a_503_with_retry_after(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.store.away = True
        response = await bench.ask("GET", "/api/v1/endpoints")
        assert error(response, 503) and response.headers["retry-after"] == "2"

    play(tmp_path, scene, activator=False)


def test_a_key_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        response = await bench.ask(
            "POST", "/api/v1/endpoints/chat/keys", json={"name": "laptop", "expires_in_seconds": 60}
        )
        assert response.status_code == 201
        key, made = response.json()["key"], bench.store.made[0]
        assert well_formed(key) and made["hash"] == hash_key(PEPPER, key)
        assert (made["prefix"], made["last_four"], made["expires_in"]) == (key[:5], key[-4:], 60.0)
        assert key not in str({**made, "hash": b""})
        assert response.json()["key_id"] == made["key_id"] and "hash" not in response.json()
        listed = (await bench.ask("GET", "/api/v1/endpoints/chat/keys")).json()
        assert key not in str(listed) and listed["data"][0]["key_id"] == made["key_id"]
        assert (await bench.ask("DELETE", f"/api/v1/keys/{made['key_id']}")).json()["revoked"] is True
        error(await bench.ask("DELETE", "/api/v1/keys/key_none"), 404)
        assert (await bench.ask("POST", "/api/v1/endpoints/chat/keys")).status_code == 201, "a body is optional"

    play(tmp_path, scene, activator=False)


@pytest.mark.parametrize(
    ("body", "param"),
    [({"expires_in_seconds": 0}, "expires_in_seconds"), ({"scope": "admin"}, "scope"), ({"name": "a\0"}, "name")],
)
def test_a_key_cannot_be_made_with_other_rights(tmp_path: Path, body: dict[str, Any], param: str) -> None:
    async def scene(bench: Bench) -> None:
        assert error(await bench.ask("POST", "/api/v1/endpoints/chat/keys", json=body), 400)["param"] == param
        assert error(await bench.ask("POST", "/api/v1/endpoints/other/keys", json={}), 404)
        assert not bench.store.made

    play(tmp_path, scene, activator=False)


def test_an_answer_about_a_key_says_whether_the_routers_know(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        made = (await bench.ask("POST", "/api/v1/endpoints/chat/keys")).json()
        assert made["everywhere"] is True and bench.ledger.asked == [(made["key_id"], True)]
        gone = (await bench.ask("DELETE", f"/api/v1/keys/{made['key_id']}")).json()
        assert gone["everywhere"] is True and bench.ledger.asked[1:] == [(made["key_id"], False)]
        bench.ledger.everywhere = False
        assert (await bench.ask("POST", "/api/v1/endpoints/chat/keys")).json()["everywhere"] is False

    play(tmp_path, scene, activator=False)


def test_a_rotated_key_has_its_successor_and_its_grace(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        old = (await bench.ask("POST", "/api/v1/endpoints/chat/keys", json={"name": "laptop"})).json()
        response = await bench.ask("POST", f"/api/v1/keys/{old['key_id']}/rotate", json={"grace_seconds": 3600})
        assert response.status_code == 201 and response.headers["cache-control"] == "no-store"
        new = response.json()
        assert (
            well_formed(new["key"])
            and new["key"] != old["key"]
            and new["replaces"] == old["key_id"]
            and new["name"] == "laptop"
        )
        assert bench.store.made[1]["hash"] == hash_key(PEPPER, new["key"])
        assert bench.store.rotated == [(old["key_id"], 3600.0, None)] and bench.ledger.asked[-1] == (
            new["key_id"],
            True,
        )
        for body, param in (({"grace_seconds": -1}, "grace_seconds"), ({"grace": 1}, "grace")):
            assert (
                error(await bench.ask("POST", f"/api/v1/keys/{old['key_id']}/rotate", json=body), 400)["param"] == param
            )
        assert error(await bench.ask("POST", "/api/v1/keys/key_none/rotate"), 404)["param"] == "key_id"

    play(tmp_path, scene, activator=False)


def test_usage_is_filtered_and_money_is_never_a_float(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        answer = (await bench.ask("GET", "/api/v1/usage?endpoint=chat&limit=5&since=2024-01-01T00:00:00Z")).json()
        assert bench.store.asked == {
            "org_id": "default",
            "endpoint_id": "ep_chat",
            "since": 1704067200.0,
            "until": None,
            "limit": 5,
        }
        assert answer["totals"]["cost"] == "0.0000300000" and answer["has_more"] is True
        await bench.ask("GET", "/api/v1/usage?since=12.5&until=2024-01-01")
        assert bench.store.asked == {
            "org_id": "default",
            "endpoint_id": None,
            "since": 12.5,
            "until": 1704067200.0,
            "limit": 100,
        }
        error(await bench.ask("GET", "/api/v1/usage?endpoint=other"), 404)
        for query, param in (
            ("limit=0", "limit"),
            ("since=9&until=8", "until"),
            ("since=soon", "since"),
            ("since=2024-13-45", "since"),
            ("colour=red", "colour"),
        ):
            assert error(await bench.ask("GET", f"/api/v1/usage?{query}"), 400)["param"] == param

    play(tmp_path, scene, activator=False)


def test_a_request_is_shown_with_its_phases_and_a_missing_one_says_why(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        shown = (await bench.ask("GET", "/api/v1/requests/e1")).json()
        assert shown["phases"] == [{"name": "load"}] and shown["output_tokens"] == 7, "the row is as it was settled"
        assert [row["event_id"] for row in shown["corrections"]] == ["e1.2"]
        assert shown["total"] == {"input_tokens": 20, "cached_tokens": 4, "output_tokens": 5, "cost": "0.0000038000"}
        assert "look again" in error(await bench.ask("GET", "/api/v1/requests/e2"), 404)["message"]

    play(tmp_path, scene, activator=False)


def test_the_beginning_of_a_requests_id_will_do_where_it_names_one(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        told = error(await bench.ask("GET", "/api/v1/requests/abcdef0"), 400)
        assert told["param"] == "event_id" and "several requests" in told["message"]
        assert "'abcdef01'" in error(await bench.ask("GET", "/api/v1/requests/abcdef01"), 404)["message"], (
            "found, but it has no row here"
        )
        assert "'abcdef'" not in error(await bench.ask("GET", "/api/v1/requests/ffffff"), 404)["message"]

    play(tmp_path, scene, activator=False)


def test_usage_is_summed_by_what_is_named(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        answer = (await bench.ask("GET", "/api/v1/usage/sums?by=day,key&endpoint=chat&limit=2&since=1")).json()
        assert bench.store.asked == {
            "org_id": "default", "endpoint_id": "ep_chat", "since": 1.0, "until": None, "limit": 3, "by": ["day", "key"],
        }  # fmt: skip
        assert len(answer["data"]) == 2 and answer["has_more"] is True
        for query, param in (("by=colour", "by"), ("by=", "by"), ("by=day;drop", "by"), ("limit=0", "limit")):
            assert error(await bench.ask("GET", f"/api/v1/usage/sums?{query}"), 400)["param"] == param

    play(tmp_path, scene, activator=False)


def test_keys_of_all_endpoints_are_listed_without_the_keys(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        made = (await bench.ask("POST", "/api/v1/endpoints/chat/keys", json={"name": "x"})).json()
        listed = (await bench.ask("GET", "/api/v1/keys")).json()["data"]
        assert listed == [{"object": "key", "key_id": made["key_id"], "endpoint": "chat"}]

    play(tmp_path, scene)


def test_a_wake_reaches_the_activator(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.activator.answer = Done(ok=True, result={"revision_id": "rev_1", "number": 1, "ready": False})
        answer = await bench.ask("POST", "/api/v1/endpoints/chat/wake")
        assert answer.status_code == 202
        assert answer.json() == {
            "object": "endpoint",
            "name": "chat",
            "revision_id": "rev_1",
            "number": 1,
            "ready": False,
        }
        assert bench.activator.commands == [Wake(org_id="default", name="chat")]
        error(await bench.ask("POST", "/api/v1/endpoints/other/wake"), 404)

    play(tmp_path, scene)


def test_cold_starts_are_listed_up_to_the_limit(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        answer = (await bench.ask("GET", "/api/v1/cold-starts?endpoint=chat&limit=2&since=1&until=2")).json()
        assert [row["cold_start_id"] for row in answer["data"]] == ["r0", "r1"] and answer["has_more"] is True
        assert bench.store.asked == {
            "org_id": "default",
            "endpoint_id": "ep_chat",
            "since": 1.0,
            "until": 2.0,
            "limit": 3,
        }
        assert (await bench.ask("GET", "/api/v1/cold-starts")).json()["has_more"] is False
        error(await bench.ask("GET", "/api/v1/cold-starts?endpoint=other"), 404)
        assert error(await bench.ask("GET", "/api/v1/cold-starts?limit=0"), 400)["param"] == "limit"

    play(tmp_path, scene, activator=False)


def test_events_of_an_endpoint(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        answer = (await bench.ask("GET", "/api/v1/endpoints/chat/events?limit=2")).json()
        assert [(row["event_id"], row["text"]) for row in answer["data"]] == [(0, "ep_chat"), (1, "ep_chat")]
        error(await bench.ask("GET", "/api/v1/endpoints/other/events"), 404)
        assert error(await bench.ask("GET", "/api/v1/endpoints/chat/events?limit=0"), 400)["param"] == "limit"

    play(tmp_path, scene, activator=False)


def test_money_is_said_with_all_its_decimals() -> None:
    assert plain({"cost": Decimal("0E-10"), "told": "", "phases": "[]"}) == {"cost": "0.0000000000", "phases": []}
    assert plain({"cost": Decimal("1.0000000001")}) == {"cost": "1.0000000001"}
    moment = datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert plain({"admitted_at": moment, "expires_at": None}) == {
        "admitted_at": "2024-01-01T00:00:00+00:00",
        "expires_at": None,
    }


PRICES: dict[str, Any] = {"input_per_million": "0.25", "cached_per_million": "0", "output_per_million": 1}


def test_a_price_is_taken_to_its_last_digit_as_text_or_as_a_number(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        body = b'{"input_per_million": 123456.0123456789, "cached_per_million": "0.0000000001", "output_per_million": 1e-3}'
        response = await bench.ask("PUT", "/api/v1/endpoints/chat/prices", content=body)
        assert response.status_code == 201, response.text
        assert response.json()["input_per_million"] == "123456.0123456789"
        made = bench.store.priced[0]
        assert (made["cached"], made["output"], made["valid_from"]) == (Decimal("1e-10"), Decimal("0.001"), None)
        assert (made["org_id"], made["endpoint_id"]) == ("default", "ep_chat")
        later = datetime.now().astimezone(timezone(timedelta(hours=2))) + timedelta(days=1)
        assert (
            await bench.ask("PUT", "/api/v1/endpoints/chat/prices", json=PRICES | {"valid_from": later.isoformat()})
        ).status_code == 201
        assert bench.store.priced[1]["valid_from"] == later and bench.store.priced[1][
            "valid_from"
        ].utcoffset() == timedelta(0)
        naive = f"{later.year + 1}-01-01T00:00:00"
        assert (
            await bench.ask("PUT", "/api/v1/endpoints/chat/prices", json=PRICES | {"valid_from": naive})
        ).status_code == 201
        assert bench.store.priced[2]["valid_from"].isoformat() == f"{naive}+00:00", "without an offset it is UTC"
        listed = (await bench.ask("GET", "/api/v1/endpoints/chat/prices")).json()
        assert len(listed["data"]) == 3 and listed["in_force"] == {"object": "price", "endpoint": "chat", "version": 1}

    play(tmp_path, scene, activator=False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input_per_million"),
        ({"output_per_million": "-0.1"}, "output_per_million"),
        ({"output_per_million": "0.00000000001"}, "output_per_million"),
        ({"cached_per_million": "1e6"}, None),
        ({"cached_per_million": 1_000_001}, "cached_per_million"),
        ({"cached_per_million": True}, "cached_per_million"),
        ({"cached_per_million": None}, "cached_per_million"),
        ({"cached_per_million": "cheap"}, "cached_per_million"),
        ({"cached_per_million": "NaN"}, "cached_per_million"),
        ({"input_per_million": [1]}, "input_per_million"),
        ({"valid_from": "soon"}, "valid_from"),
        ({"valid_from": 1.5}, "valid_from"),
        ({"valid_from": "2020-01-01T00:00:00Z"}, "valid_from"),
        ({"currency": "EUR"}, "currency"),
    ],
)
def test_a_wrong_price_is_refused_by_name(tmp_path: Path, body: dict[str, Any], param: str | None) -> None:
    async def scene(bench: Bench) -> None:
        response = await bench.ask("PUT", "/api/v1/endpoints/chat/prices", json=PRICES | body if body else {})
        if param is None:
            assert response.status_code == 201, response.text
        else:
            assert error(response, 400)["param"] == param and not bench.store.priced

    play(tmp_path, scene, activator=False)


@pytest.mark.parametrize(
    "body",
    [
        b'{"input_per_million": 1e99999999999999999999}',
        b"{",
        b'{"input_per_million": NaN}',
        b"[" * 100_000,
        b'{"input_per_million": ' + b"1" * 5000 + b"}",
        b"\xff",
        b'{"\\ud800": 1}',
    ],
)
def test_a_price_that_is_no_json_is_refused(tmp_path: Path, body: bytes) -> None:
    async def scene(bench: Bench) -> None:
        assert error(await bench.ask("PUT", "/api/v1/endpoints/chat/prices", content=body), 400)["message"]
        assert error(await bench.ask("PUT", "/api/v1/endpoints/other/prices", json=PRICES), 404)

    play(tmp_path, scene, activator=False)


def usage_row(**more: Any) -> Row:
    return (
        dict.fromkeys(COLUMNS, "x")
        | {"streamed": True, "cost": "0.0000000001", "first_byte_ms": None, "phases": []}
        | more
    )


def test_an_export_asks_for_what_the_query_says_and_has_the_columns_of_usage(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.store.pages = [[usage_row(event_id="a"), usage_row(event_id="b")], [usage_row(event_id="c")]]
        response = await bench.ask(
            "GET", "/api/v1/usage/export?endpoint=chat&since=2024-01-01T00:00:00Z&until=1704067300"
        )
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/csv")
        assert bench.store.asked == {
            "org_id": "default",
            "endpoint_id": "ep_chat",
            "since": 1704067200.0,
            "until": 1704067300.0,
        }
        assert response.text.split("\r\n")[0] == ",".join(COLUMNS) and [
            line[:2] for line in response.text.split("\r\n")[1:4]
        ] == [
            "a,",
            "b,",
            "c,",
        ]
        response = await bench.ask("GET", "/api/v1/usage/export?format=jsonl")
        assert bench.store.asked == {"org_id": "default", "endpoint_id": None, "since": None, "until": None}
        assert len(response.text.splitlines()) == 3 and '"phases":[]' in response.text
        bench.store.pages = []
        assert (await bench.ask("GET", "/api/v1/usage/export")).text == ",".join(COLUMNS) + "\r\n"
        error(await bench.ask("GET", "/api/v1/usage/export?endpoint=other"), 404)
        error(await bench.ask("POST", "/api/v1/usage/export"), 405)
        for query, param in (
            ("format=xls", "format"),
            ("since=soon", "since"),
            ("since=2&until=1", "until"),
            ("until=1e300", "until"),
            ("limit=1", "limit"),
        ):
            assert error(await bench.ask("GET", f"/api/v1/usage/export?{query}"), 400)["param"] == param

    play(tmp_path, scene, activator=False)


def test_an_export_that_cannot_begin_is_a_503_and_one_cut_off_has_no_end(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.store.away = True
        assert (await bench.ask("GET", "/api/v1/usage/export")).headers["retry-after"] == "2"
        bench.store.away, bench.store.cut_off, bench.store.pages = False, True, [[usage_row()]]
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            await asyncio.Event().wait()

        headers = [(b"authorization", f"Bearer {ADMIN_KEY}".encode())]
        path = "/api/v1/usage/export"
        await bench.app(
            {
                "type": "http",
                "method": "GET",
                "path": path,
                "raw_path": path.encode(),
                "root_path": "",
                "query_string": b"",
                "headers": headers,
            },
            receive,
            send,
        )
        assert [message.get("more_body") for message in sent] == [None, True, True], "nothing says that this was all"

    play(tmp_path, scene, activator=False)


@pytest.mark.parametrize(
    "evil", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", '=HYPERLINK("http://x")']
)
def test_no_cell_of_a_csv_is_a_formula(evil: str) -> None:
    (cells,) = csv.reader(io.StringIO(csv_lines([usage_row(path=evil, endpoint='a,"b"\n')]), newline=""))
    row = dict(zip(COLUMNS, cells, strict=True))
    assert row["path"] == "'" + evil and row["endpoint"] == 'a,"b"\n'
    assert (row["streamed"], row["first_byte_ms"], row["cost"]) == ("true", "", "0.0000000001")
    assert json.loads(json_lines([usage_row(path=evil)]))["path"] == evil, "JSON needs no such thing"


@pytest.mark.parametrize(
    "cut",
    [
        asyncpg.InternalClientError("got result for unknown protocol state 0"),
        asyncpg.ConnectionDoesNotExistError(),
        TimeoutError(),
        BrokenPipeError(),
    ],
)
def test_a_connection_cut_while_in_use_is_a_503(cut: Exception) -> None:
    class CutOff(Database):
        def __init__(self) -> None: ...

        @asynccontextmanager
        async def connection(self) -> AsyncIterator[Any]:
            yield self

        async def fetch(self, *_: object) -> None:
            raise cut

        async def connect(self, purpose: str, **limits: str) -> Any:
            raise cut

    async def scene() -> None:
        store = AdminStore(CutOff())
        with pytest.raises(Unavailable):
            await store.endpoints()
        with pytest.raises(Unavailable):
            await anext(store.export_usage(org_id="default", endpoint_id=None, since=None, until=None))

    asyncio.run(scene())


def a_revision(number: int, **given: Any) -> Row:
    values: Row = {"digest": DIGEST, "engine_args": {"a": 1}, "slots": 4, "outcome": "proved", "failure": ""}
    return {"number": number, "revision_id": f"rev{number}", **values, **given}


def test_revisions_say_their_state_and_what_differs_from_the_one_before(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.store.had = [
            a_revision(4, slots=9, outcome=""),
            a_revision(3, engine_args={"b": 2}, outcome="failed", failure="no such argument"),
            a_revision(2, slots=8),
            a_revision(1),
        ]
        bench.store.route = {"route": [["rev2", 100]], "next": {"revision_id": "rev4"}}
        found = (await bench.ask("GET", "/api/v1/endpoints/chat/revisions")).json()["data"]
        assert [(row["number"], row["state"]) for row in found] == [
            (4, "next"),
            (3, "failed"),
            (2, "serves"),
            (1, "served"),
        ]
        assert found[1]["differs"] == {"slots": [8, 4], "engine_args.a": [1, None], "engine_args.b": [None, 2]}
        assert found[2]["differs"] == {"slots": [4, 8]} and found[3]["differs"] == {}
        (newest,) = (await bench.ask("GET", "/api/v1/endpoints/chat/revisions?limit=1")).json()["data"]
        assert newest["differs"]["slots"] == [4, 9], "also where the one before is not told"

    play(tmp_path, scene, activator=False)


def test_a_rollback_reaches_the_activator(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.activator.answer = Done(
            ok=True, result={"revision_id": "rev5", "number": 5, "pending": True, "changed": True}
        )
        response = await bench.ask("POST", "/api/v1/endpoints/chat/rollback", json={"to": 3, "by": "me"})
        assert response.json()["deploy"] == {
            "revision_id": "rev5",
            "number": 5,
            "pending": True,
            "changed": True,
            "unchecked": None,
            "notes": [],
        }
        assert bench.activator.commands == [Rollback(org_id="default", name="chat", to=3, by="me")]
        assert error(await bench.ask("POST", "/api/v1/endpoints/chat/rollback", json={"to": 0}), 400)["param"] == "to"
        assert error(await bench.ask("POST", "/api/v1/endpoints/none/rollback", json={}), 404)["param"] == "name"

    play(tmp_path, scene)


def test_a_snapshot_nobody_has_is_refused_before_anything_moves(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.snapshots.missing = DIGEST
        wrong = error(await bench.ask("PUT", "/api/v1/endpoints/chat", json={"digest": DIGEST}), 400)
        assert wrong["param"] == "digest" and "is nowhere" in wrong["message"]
        assert not bench.activator.commands
        assert (await bench.ask("PUT", "/api/v1/endpoints/chat", json={"slots": 3})).status_code == 200, (
            "the one it has is not asked for"
        )

    play(tmp_path, scene)


async def test_a_snapshot_is_had_from_the_store_or_the_origin_or_nobody_can_say(tmp_path: Path) -> None:
    model = Path(__file__).parents[2] / "snapshots" / "demo" / "model"
    here, there = tmp_path / "here", tmp_path / "there"
    digest = pack(model, there).digest
    assert "is not in" in await Snapshots(here, "").refusal(digest)
    assert await Snapshots(there, "").refusal(digest) == ""
    assert await Snapshots(here, str(there)).refusal(digest) == ""
    assert f"nor is it in {here}" in await Snapshots(here, str(there)).refusal(DIGEST)
    assert await Snapshots(here, str(tmp_path / "away")).refusal(digest) == "", (
        "an origin that does not answer refuses nothing"
    )
