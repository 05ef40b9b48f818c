"""What the key and usage commands ask for, and what they say of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from pilotlight.cli.api import UNCONFIRMED
from pilotlight.cli.endpoints import show
from pilotlight.cli.keys import keys
from pilotlight.cli.options import span
from pilotlight.cli.talk import logs
from pilotlight.cli.times import MomentError, duration, duration_seconds
from pilotlight.settings import Paths, Settings
from tests.fakes_cli import NOW, FakeApi


def key(name: str, *, expires: float | None = None, revoked: bool = False) -> dict[str, Any]:
    """`expires`: in so many seconds from now on."""
    moment = None if expires is None else (datetime.now(UTC) + timedelta(seconds=expires)).isoformat()
    common = {"key_id": name, "prefix": "pl_ab", "last_four": "wxyz", "name": "web", "created_at": NOW.isoformat()}
    return {**common, "expires_at": moment, "revoked_at": NOW.isoformat() if revoked else None}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    made = FakeApi()
    for module in (keys, show):
        monkeypatch.setattr(module, "Api", lambda paths: made)
    return made


def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


def test_rotate_takes_the_one_key_that_goes_on_living(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.found = [
        key("key_1"),
        key("key_old", expires=60.0),
        key("key_dead", revoked=True),
        key("key_past", expires=-1.0),
    ]
    keys.rotate_key(settings(tmp_path), "chat", None, 3600.0, as_json=False)
    assert api.asked[-1] == ("POST", "/keys/key_1/rotate", {"grace_seconds": 3600.0})
    out, said = capsys.readouterr()
    assert (
        out == "pl_new\n"
        and "work for 1h" in said
        and "pilotlight keys revoke key_1" in said
        and UNCONFIRMED not in said
    )


@pytest.mark.parametrize(
    ("found", "named", "said"),
    [
        ([key("key_1"), key("key_2")], None, "key_1, key_2"),
        ([key("key_1", revoked=True)], None, "no live key"),
        ([key("key_1")], "key_2", "has no key key_2"),
        ([key("key_1", revoked=True)], "key_1", "is revoked"),
        ([key("key_1", expires=-5.0)], "key_1", "is expired"),
    ],
)
def test_what_cannot_be_rotated(
    api: FakeApi,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    found: list[dict[str, Any]],
    named: str | None,
    said: str,
) -> None:
    api.found = found
    with pytest.raises(typer.Exit):
        keys.rotate_key(settings(tmp_path), "chat", named, 3600.0, as_json=False)
    assert said in capsys.readouterr().err and all(method == "GET" for method, _, _ in api.asked)


def test_without_grace_the_old_key_is_gone_and_routers_that_say_nothing_are_told_of(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.found, api.everywhere = [key("key_1")], False
    keys.rotate_key(settings(tmp_path), "chat", "key_1", 0.0, as_json=False)
    said = capsys.readouterr().err
    assert "key_1 is revoked" in said and UNCONFIRMED in said


def test_a_list_says_until_when_each_key_works(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soon = {**key("key_2"), "expires_at": (NOW + timedelta(hours=2)).isoformat()}
    assert keys.expiry_of(soon, now=NOW) == "2026-01-02 05:04:05 (in 2h)"
    assert keys.expiry_of(soon, now=NOW + timedelta(days=1)) == "2026-01-02 05:04:05"
    assert keys.expiry_of(key("key_1")) == "–" == keys.expiry_of({**soon, "revoked_at": NOW.isoformat()})
    api.found = [key("key_1", expires=7200.5)]
    keys.list_keys(settings(tmp_path), "chat", live=False, as_json=False)
    shown = capsys.readouterr().out
    assert "expires" in shown and "(in 2h)" in shown


def test_durations() -> None:
    assert [duration_seconds(text) for text in ("90s", "10m", "1.5h", "7d", "2w", "30")] == [
        90,
        600,
        5400,
        604800,
        1209600,
        30,
    ]
    for text in ("", "h", "-1h", "1 h", "1y", "soon"):
        with pytest.raises(MomentError, match="10m"):
            duration_seconds(text)
    assert [duration(seconds) for seconds in (0, 90, 3600, 93784, 604800)] == ["0s", "1m 30s", "1h", "1d 2h", "7d"]


def test_a_span_ends_after_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    assert span(None, None) == (None, None) and span("1970-01-01", "1970-01-02") == (0.0, 86400.0)
    with pytest.raises(typer.Exit):
        span("1970-01-02", "1970-01-01")
    assert "lies before" in capsys.readouterr().err


def test_usage_and_cold_starts_are_asked_for_in_a_span(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phases = [{"name": "place", "at": 1.0, "seconds": 0.25}, {"name": "load", "at": 1.25, "seconds": 0.5}]
    common = {
        "endpoint": "chat",
        "rung": "parked",
        "started_at": NOW.isoformat(),
        "replica_id": "r1",
        "snapshot_bytes": 5_000_000,
    }
    ready = {**common, "cold_start_id": "r1.2", "seconds": 0.75, "phases": phases, "reason": ""}
    api.found = [ready, {**ready, "cold_start_id": "r1", "phases": [], "reason": "no memory"}]
    show.show_cold_starts(settings(tmp_path), "chat", 5, 1.0, 2.5, as_json=False)
    assert api.asked == [("GET", "/cold-starts", {"limit": 5, "endpoint": "chat", "since": "1.0", "until": "2.5"})]
    shown = capsys.readouterr().out
    assert "r1.2" in shown and "place 0.25 load 0.50" in shown and "failed: no memory" in shown and "5 MB" in shown
    api.found = [ready]
    show.show_cold_starts(settings(tmp_path), None, 1, None, None, as_json=False)
    out, said = capsys.readouterr()
    assert "█" in out and "0.750" in out and "from parked" in said


def test_an_endpoint_may_be_called_as_a_process_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = Paths(tmp_path)
    paths.make()
    process, endpoint = paths.logs / "agent.log", paths.endpoint_logs / "agent.log"
    process.write_text("")
    assert logs.file_of(paths, "agent", process=False) == process
    endpoint.write_text("")
    assert (
        logs.file_of(paths, "agent", process=False) == endpoint
        and logs.file_of(paths, "agent", process=True) == process
    )
    (paths.endpoint_logs / "chat.log").write_text("")
    with pytest.raises(typer.Exit):
        logs.file_of(paths, "chat", process=True)
    assert "there are agent;" in capsys.readouterr().err
