"""What the key commands do, over the admin API. The key itself is data and goes to stdout, all else to stderr."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pilotlight.cli.api import Api
from pilotlight.cli.options import print_json, say, stop
from pilotlight.cli.show import console, table
from pilotlight.settings import Settings


def create_key(settings: Settings, name: str, label: str, expires_in: float | None, *, as_json: bool) -> None:
    api = Api(settings.paths)
    made = _create(api, name, label, expires_in)
    if as_json:
        print_json(made)
        return
    print(made["key"])
    say(f"Keep it now, it is not shown again. Base URL: {api.url}/e/{name}/v1   CA: {api.ca_file}")


def list_keys(settings: Settings, name: str, *, as_json: bool) -> None:
    found = Api(settings.paths).call("GET", f"/endpoints/{name}/keys")["data"]
    if as_json:
        print_json(found)
        return
    rows = table("key", "id", "label", "made", "state")
    for key in found:
        rows.add_row(f"{key['prefix']}…{key['last_four']}", key["key_id"], key["name"] or "–", _short(key["created_at"]), state_of(key))
    console().print(rows)


def revoke_key(settings: Settings, key_id: str, *, as_json: bool) -> None:
    done = Api(settings.paths).call("DELETE", f"/keys/{key_id}")
    if as_json:
        print_json(done)
        return
    say(f"{key_id} is revoked: calls with it are answered 401 from now on")


def rotate_key(settings: Settings, name: str, key_id: str, *, now: bool, as_json: bool) -> None:
    """The new key first, so that a failure half-way leaves one too many and never none."""
    api = Api(settings.paths)
    old = next((key for key in api.call("GET", f"/endpoints/{name}/keys")["data"] if key["key_id"] == key_id), None)
    if old is None:
        stop(f"{name} has no key {key_id}: `pilotlight keys ls {name}` lists those it has")
    if state_of(old) != "live":
        stop(f"{key_id} is {state_of(old)}: make a new key with `pilotlight keys create {name}`")
    made = _create(api, name, old["name"], None)
    if not as_json:
        print(made["key"])
        say("Keep it now, it is not shown again.")
    if now:
        api.call("DELETE", f"/keys/{key_id}")
    if as_json:
        print_json({**made, "replaces": key_id, "old_revoked": now})
    elif now:
        say(f"{key_id} is revoked")
    else:
        say(f"Both keys work. When your programs use the new one: pilotlight keys revoke {key_id}")


def state_of(key: dict[str, Any], *, now: datetime | None = None) -> str:
    if key["revoked_at"]:
        return "revoked"
    if not key["expires_at"]:
        return "live"
    expires = datetime.fromisoformat(key["expires_at"])
    return "live" if expires > (now or datetime.now(UTC)) else "expired"


def _create(api: Api, name: str, label: str, expires_in: float | None) -> dict[str, Any]:
    body = {"name": label} | ({"expires_in_seconds": expires_in} if expires_in is not None else {})
    made: dict[str, Any] = api.call("POST", f"/endpoints/{name}/keys", json=body)
    return made


def _short(moment: str) -> str:
    return moment[:19].replace("T", " ")
