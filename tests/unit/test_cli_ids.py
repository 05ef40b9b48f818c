"""Ids on the command line: the beginning of one will do where it names one; lists of keys and requests; sums of
usage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from pilotlight.cli.endpoints import show
from pilotlight.cli.keys import keys
from pilotlight.cli.usage import requests
from pilotlight.settings import Settings, load
from tests.fakes_cli import Call, Said, answered, never, prepared

FIRST, SECOND = "key_" + "a1" * 10, "key_" + "a2" * 10
REQUEST = "01a1fc1d72bd76379792f5d24e066cc7"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return prepared(load(state_dir=tmp_path / "state"))


def key(key_id: str, endpoint: str, **given: Any) -> dict[str, Any]:
    plain = {
        "name": "",
        "prefix": "pl_ab",
        "last_four": "wxyz",
        "created_at": "2026-11-21T03:19:13",
        "expires_at": None,
        "revoked_at": None,
    }
    return {"key_id": key_id, "endpoint": endpoint} | plain | given


class Installation:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, call: Call) -> Said:
        self.asked.append(f"{call.method} {call.path.removeprefix('/api/v1')}")
        if call.path.endswith("/keys"):
            return Said({"data": [key(FIRST, "one"), key(SECOND, "two", revoked_at="2026-11-21T03:19:14")]})
        if call.method == "DELETE":
            return Said({"everywhere": True})
        sums = {"requests": 2, "input_tokens": 7, "cached_tokens": 0, "output_tokens": 46, "cost": "0.5"}
        return Said({"data": [{"day": "2026-11-21", "endpoint": "one"} | sums], "has_more": False})


@pytest.fixture
def there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Installation:
    installation = Installation()
    for module in (keys, requests, show):
        monkeypatch.setattr(module, "Api", lambda paths: answered(settings, installation))
    return installation


def test_a_key_is_revoked_by_the_beginning_of_its_id(settings: Settings, there: Installation) -> None:
    keys.revoke_key(settings, "key_a1", as_json=False)
    assert there.asked == ["GET /keys", f"DELETE /keys/{FIRST}"]
    there.asked.clear()
    keys.revoke_key(settings, FIRST, as_json=False)
    assert there.asked == [f"DELETE /keys/{FIRST}"], "a whole id is looked up nowhere"


@pytest.mark.parametrize(
    ("given", "said"), [("key_a", "is the beginning of 2 keys' ids"), ("key_b", "there is no key key_b")]
)
def test_what_names_no_key_or_several_revokes_none(
    given: str, said: str, settings: Settings, there: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        keys.revoke_key(settings, given, as_json=False)
    assert said in capsys.readouterr().err and there.asked == ["GET /keys"]


def test_keys_of_all_endpoints_say_whose_they_are_and_live_ones_can_be_picked(
    settings: Settings, there: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    keys.list_keys(settings, None, live=False, as_json=False)
    words = capsys.readouterr().out.split()
    assert {"one", "two", "live", "revoked", FIRST, SECOND} <= set(words)
    keys.list_keys(settings, None, live=True, as_json=False)
    assert SECOND not in capsys.readouterr().out


@pytest.mark.parametrize("given", ["", "01a1f", "../keys", "01a1fc1d%2e", "01a1fc1ü"])
def test_what_can_be_no_requests_id_is_not_asked_for(
    given: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(requests, "Api", lambda paths: answered(settings, never))
    with pytest.raises(typer.Exit) as ended:
        requests.show_request(settings, given, as_json=False)
    assert ended.value.exit_code == 2 and "`pilotlight usage` lists them" in capsys.readouterr().err


def test_a_request_is_told_with_what_was_added_to_it_later() -> None:
    row = {
        "event_id": REQUEST,
        "endpoint": "one",
        "status": 200,
        "input_tokens": 7,
        "output_tokens": 46,
        "cost": "0.1",
        "key_id": None,
    }
    later = {"event_id": "c1", "input_tokens": 0, "cached_tokens": 0, "output_tokens": -3, "cost": "-0.01"}
    total = {"input_tokens": 7, "cached_tokens": 0, "output_tokens": 43, "cost": "0.09"}
    told = dict(requests.known_fields(row | {"corrections": [later], "total": total}))
    assert told["event_id"] == REQUEST and "key_id" not in told
    assert told["correction"] == "c1: +0 in, +0 cached, -3 out, $ -0.01" and told["in all"].endswith("43 out, $ 0.09")
    assert "in all" not in dict(requests.known_fields(row | {"corrections": []}))


def test_usage_is_summed_by_what_is_named_in_one_order(
    settings: Settings, there: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    requests.show_sums(settings, "one", ["endpoint", "day"], 1.0, None, as_json=False)
    assert there.asked == ["GET /usage/sums?by=day%2Cendpoint&endpoint=one&since=1.0"]
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["day", "endpoint", "requests"] and row.split()[:3] == ["2026-11-21", "one", "2"]
