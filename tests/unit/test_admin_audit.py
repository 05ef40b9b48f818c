"""Every change by the admin API, and every command that changes something, leaves its row; a new one without an act
fails here.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
import typer
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from activator.wire import Done
from pilotlight.audit import Note, noted, waiting
from pilotlight.cli import acts
from pilotlight.cli.audit import what_changed
from pilotlight.cli.main import app
from pilotlight.cli.snapshot import commands as snapshot_commands
from pilotlight.settings import Paths
from router.admin.acts import ACTS, differing, recorded
from tests.fakes_admin import ADMIN_KEY, DIGEST, Bench, play
from tests.fakes_cli import ran

KEY_ID = "key_0"
TRIED: dict[
    tuple[str, str], tuple[Any, str, str, dict[str, Any]]
] = {  # (method, path) → body, act, object, what changed
    ("PUT", "/endpoints/{name}"): (
        {"digest": DIGEST, "slots": 3},
        "endpoint.deploy",
        "chat",
        {"revision": 7, "digest": [None, DIGEST]},
    ),
    ("DELETE", "/endpoints/{name}"): (None, "endpoint.rm", "chat", {"revoked_keys": 2}),
    ("POST", "/endpoints/{name}/rollback"): ({"to": 3}, "endpoint.rollback", "chat", {"number": 7}),
    ("POST", "/endpoints/{name}/wake"): (None, "endpoint.wake", "chat", {}),
    ("POST", "/endpoints/{name}/keys"): ({"name": "web"}, "key.create", "chat", {"name": "web"}),
    ("POST", "/keys/{key_id}/rotate"): ({"grace_seconds": 5}, "key.rotate", KEY_ID, {"name": "web"}),
    ("DELETE", "/keys/{key_id}"): (None, "key.revoke", KEY_ID, {"revoked_at": 1.0}),
    ("PUT", "/endpoints/{name}/prices"): (
        {"input_per_million": 1, "cached_per_million": 1, "output_per_million": 2},
        "prices.set",
        "chat",
        {"input_per_million": [None, "1"]},
    ),
}


async def acted(bench: Bench, method: str, path: str, **given: Any) -> Note:
    """The only act that is new."""
    before = len(bench.store.acts)
    await bench.ask(method, f"/api/v1{path}", **given)
    await bench.audit.collect()
    (note,) = bench.store.acts[before:]
    assert list(bench.notes.iterdir()) == []
    return note


def test_every_route_that_changes_something_has_an_act_and_is_tried_here() -> None:
    assert TRIED.keys() == ACTS.keys()

    async def handler(request: Request) -> JSONResponse:
        return JSONResponse({})

    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(KeyError, match="forgotten"):
            recorded(
                [Route("/forgotten", handler, methods=[method])],
                folder=Path("/"),
                admin_key=ADMIN_KEY,
                settle=lambda: None,
            )


@pytest.mark.parametrize("route", TRIED)
def test_an_act_leaves_one_row_with_who_and_what(tmp_path: Path, route: tuple[str, str]) -> None:
    body, act, what, changed = TRIED[route]

    async def scene(bench: Bench) -> None:
        bench.activator.answer = Done(ok=True, result={"number": 7, "revoked_keys": 2})
        bench.store.made.append(
            {"key_id": KEY_ID, "name": "web", "endpoint_id": "ep_chat", "prefix": "pl_ab", "last_four": "1234"}
        )
        path = route[1].format(name="chat", key_id=KEY_ID)
        headers = {"x-pilotlight-by": "ann", "x-forwarded-for": "192.0.2.7"}
        note = await acted(bench, route[0], path, json=body, headers=headers)
        assert (note.act, note.object, note.outcome, note.reason) == (act, what, "done", "")
        assert (note.who, note.said_by, note.origin) == (
            f"admin key {ADMIN_KEY[:5]}…{ADMIN_KEY[-4:]}",
            "ann",
            "192.0.2.7",
        )
        assert note.asked == (body or {})
        assert {name: note.changed.get(name) for name in changed} == changed
        assert ADMIN_KEY not in note.bytes().decode() and "hash" not in note.changed and "key" not in note.changed

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("paused", "act"), [(True, "endpoint.pause"), (False, "endpoint.resume"), ("no", "endpoint.set")]
)
def test_a_put_is_named_as_an_operator_names_it(tmp_path: Path, paused: Any, act: str) -> None:
    async def scene(bench: Bench) -> None:
        assert (await acted(bench, "PUT", "/endpoints/chat", json={"paused": paused})).act == act

    play(tmp_path, scene)


def test_what_is_refused_or_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        refused = await acted(bench, "PUT", "/endpoints/chat", json={"slots": 0})
        assert (
            refused.outcome == "refused"
            and "slots" in refused.reason
            and refused.asked == {"slots": 0}
            and not refused.changed
        )
        assert (await acted(bench, "PUT", "/endpoints/chat", content=b"{nonsense")).outcome == "refused"
        assert (await acted(bench, "DELETE", "/endpoints/nobody")).outcome == "refused"
        assert (await acted(bench, "DELETE", "/keys/k%00x")).object == "k x"
        bench.activator.answer = None  # it dies amid the command
        assert (await acted(bench, "DELETE", "/endpoints/chat")).outcome == "failed"

    play(tmp_path, scene)


def test_who_has_no_key_does_nothing_and_reading_is_no_act(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        assert (await bench.ask("DELETE", "/api/v1/endpoints/chat", key="pl_wrong")).status_code == 401
        for path in ("endpoints", "endpoints/chat", "keys", "audit", "endpoints/chat/prices"):
            assert (await bench.ask("GET", f"/api/v1/{path}")).status_code == 200
        assert list(bench.notes.iterdir()) == [] == bench.store.acts

    play(tmp_path, scene)


def test_notes_wait_for_postgres_and_the_listing_takes_them_in(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.store.away = True
        assert (await bench.ask("PUT", "/api/v1/endpoints/chat", json={"digest": DIGEST})).status_code == 200
        await bench.audit.collect()
        assert len(list(waiting(bench.notes))) == 1 and not bench.store.acts
        bench.store.away = False
        found = (await bench.ask("GET", "/api/v1/audit", params={"since": 5, "limit": 1})).json()
        assert found == {"object": "list", "data": [{"act": "endpoint.deploy"}], "has_more": False}
        assert bench.store.asked == {"org_id": "default", "since": 5.0, "until": None, "limit": 2} and not list(
            bench.notes.iterdir()
        )

    play(tmp_path, scene)


def test_a_note_that_nobody_can_read_or_postgres_never_takes_is_put_aside(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        bench.store.never.add("key.revoke")
        (bench.notes / "act_0.json").write_text("nonsense")
        await bench.ask("DELETE", "/api/v1/keys/nobody")
        await acted_aside(bench)
        assert (await acted_again(bench)).act == "endpoint.rm"

    async def acted_aside(bench: Bench) -> None:
        await bench.audit.collect()
        assert [file.suffix for file in bench.notes.iterdir()] == [".refused", ".refused"] and not bench.store.acts

    async def acted_again(bench: Bench) -> Note:
        await bench.ask("DELETE", "/api/v1/endpoints/nobody")
        await bench.audit.collect()
        return bench.store.acts[0]

    play(tmp_path, scene)


def test_the_admin_process_takes_them_in_by_itself(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        running = asyncio.create_task(bench.audit.run())
        await asyncio.sleep(0)  # it has looked, and waits
        await bench.ask("DELETE", "/api/v1/endpoints/nobody")
        async with asyncio.timeout(5):
            while not bench.store.acts:
                await asyncio.sleep(0)
        running.cancel()

    play(tmp_path, scene)


def test_what_differs_is_what_was_and_what_is() -> None:
    before = {"slots": 1, "engine_args": {"a": 1, "b": 2}, "zero": "parked"}
    wanted = {"slots": 2, "engine_args": {"a": 1, "c": 3}, "zero": "parked"}
    assert differing(before, wanted) == {"slots": [1, 2], "engine_args.c": [None, 3]}
    assert differing(None, {"slots": 2}) == {"slots": [None, 2]}


def leaves(command: Any, path: str = "") -> list[str]:
    below = getattr(command, "commands", None)
    return [name for each in below for name in leaves(below[each], f"{path} {each}".strip())] if below else [path]


CHANGES_NOTHING = {
    "audit", "bench coldstart", "config explain", "demo", "doctor", "events", "help", "keys ls", "logs", "ls", "ps", "request",
    "revisions", "snapshot ls", "snapshot show", "snapshot synth", "snapshot verify", "starts", "status", "up", "usage export", "usage show",
    "usage sum",
}  # fmt: skip


def test_every_command_is_known_to_change_something_or_nothing() -> None:
    tables = (acts.BY_THE_API, set(acts.NOTED), CHANGES_NOTHING)
    assert sorted(leaves(typer.main.get_command(app))) == sorted(name for table in tables for name in table)


ARGUMENTS = {
    "snapshot pack": ["nowhere"], "snapshot pin": ["sha256:1"], "snapshot unpin": ["sha256:1"], "snapshot rm": ["sha256:1"],
    "snapshot push": ["sha256:1", "/nowhere"], "snapshot pull": ["/nowhere", "sha256:1"], "backup": ["/nowhere/b.tar"], "restore": ["/nowhere/b.tar"],
}  # fmt: skip


@pytest.mark.parametrize("command", acts.NOTED)
def test_a_command_on_files_leaves_a_note(tmp_path: Path, command: str) -> None:
    paths = Paths(tmp_path / "state")
    paths.make()
    ran(*command.split(), *ARGUMENTS.get(command, []), "--state", str(paths.state))
    ((_, note),) = waiting(paths.audit)
    assert note is not None and note.act == acts.NOTED[command] and note.outcome in ("done", "refused")
    assert note.who.startswith(("user ", "uid ")) and note.origin == "this machine" and note.at > 1.7e9


def test_only_looking_what_would_go_is_no_act(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "state")
    paths.make()
    ran("snapshot", "prune", "--dry-run", "--state", str(paths.state))
    assert not list(waiting(paths.audit)) and "dry_run" in inspect.signature(snapshot_commands.prune).parameters


def test_a_row_is_told_by_what_changed_else_by_what_was_asked() -> None:
    note = noted(
        act="a",
        object="o",
        who="w",
        origin="h",
        at=0.0,
        asked={"slots": 2},
        changed={"slots": [None, 2], "revision": None},
    )
    row: dict[str, Any] = {name: getattr(note, name) for name in ("asked", "changed", "reason")}
    assert what_changed(row) == "slots: – → 2" and what_changed(row | {"changed": {}, "reason": "no"}) == "no; slots: 2"
