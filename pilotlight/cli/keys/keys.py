"""What the key commands do, over the admin API. The key itself is data and goes to stdout, all else to stderr."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pilotlight.cli.api import Api, warn_unconfirmed
from pilotlight.cli.options import print_json, say, stop
from pilotlight.cli.tables import Table, show
from pilotlight.cli.times import duration
from pilotlight.cli.trust import lines
from pilotlight.settings import Settings

ID_LENGTH = len("key_") + 20  # characters of a key's id


def create_key(
    settings: Settings, name: str, label: str, expires_in: float | None, *, as_json: bool, as_lines: bool = False
) -> None:
    api = Api(settings.paths)
    body = {"name": label} | ({"expires_in_seconds": expires_in} if expires_in is not None else {})
    made = api.call("POST", f"/endpoints/{name}/keys", json=body)
    if as_json:
        print_json(made)
        return
    bundle = str(settings.paths.ca_bundle if settings.paths.ca_bundle.exists() else settings.paths.ca_cert)
    if as_lines:
        print("\n".join(lines(api.url, name, made["key"], bundle)))
    else:
        print(made["key"])
        say("Keep it now, it is not shown again. For your programs (--env prints these lines with the key in them):")
        say("\n".join(f"  {each}" for each in lines(api.url, name, "KEY", bundle)))
    warn_unconfirmed(made)


def list_keys(settings: Settings, name: str | None, *, live: bool, as_json: bool) -> None:
    """Of one endpoint, or of all."""
    found = Api(settings.paths).call("GET", f"/endpoints/{name}/keys" if name else "/keys")["data"]
    found = [key for key in found if not live or state_of(key) == "live"]
    if as_json:
        print_json(found)
        return
    rows = Table("key", "id", *([] if name else ["endpoint"]), "state", "label", "made", "expires")
    for key in found:
        shown, of = f"{key['prefix']}…{key['last_four']}", [] if name else [key["endpoint"] or "–"]
        rows.add_row(
            shown, key["key_id"], *of, state_of(key), key["name"] or "–", _short(key["created_at"]), expiry_of(key)
        )
    show(rows, nothing=f"no {'live ' if live else ''}key yet: pilotlight keys create {name or 'NAME'}")


def complete_id(api: Api, given: str) -> str:
    """The id of the key that `given`, a whole id or the beginning of one, names. Stops where it names none, or
    several.
    """
    if len(given) == ID_LENGTH:
        return given
    found = [key for key in api.call("GET", "/keys")["data"] if key["key_id"].startswith(given)]
    if len(found) != 1:
        stop(
            _several(given, found) if found else f"there is no key {given}: `pilotlight keys ls` lists those there are"
        )
    return str(found[0]["key_id"])


def revoke_key(settings: Settings, given: str, *, as_json: bool) -> None:
    api = Api(settings.paths)
    key_id = complete_id(api, given)
    done = api.call("DELETE", f"/keys/{key_id}")
    if as_json:
        print_json(done)
        return
    say(f"{key_id} is revoked: calls with it are answered 401 from now on")
    warn_unconfirmed(done)


def rotate_key(settings: Settings, name: str, key_id: str | None, grace: float, *, as_json: bool) -> None:
    """The new key and the old one's end are one change in Postgres: there is never none, nor one too many for good."""
    api = Api(settings.paths)
    old = _to_rotate(api, name, key_id)
    made = api.call("POST", f"/keys/{old}/rotate", json={"grace_seconds": grace})
    if as_json:
        print_json(made)
        return
    print(made["key"])
    say("Keep it now, it is not shown again.")
    if not grace:
        say(f"{old} is revoked")
    else:
        say(
            f"Both keys work for {duration(grace)}, until {made['replaced_expires_at'][:19].replace('T', ' ')} UTC; then {old} ends."
        )
        say(f"Once your programs use the new one: pilotlight keys revoke {old}")
    warn_unconfirmed(made)


def _to_rotate(api: Api, name: str, key_id: str | None) -> str:
    """The key meant: the one named, or the only one that goes on living."""
    found = api.call("GET", f"/endpoints/{name}/keys")["data"]
    if key_id is None:
        lasting = [key["key_id"] for key in found if state_of(key) == "live" and not key["expires_at"]]
        lasting = lasting or [key["key_id"] for key in found if state_of(key) == "live"]
        if not lasting:
            stop(f"{name} has no live key: make one with `pilotlight keys create {name}`")
        if len(lasting) > 1:
            stop(f"{name} has {len(lasting)} live keys: name the one to rotate, one of {', '.join(lasting)}")
        return str(lasting[0])
    meant = [key for key in found if key["key_id"].startswith(key_id)]
    meant = [key for key in meant if key["key_id"] == key_id] or meant
    if not meant:
        stop(f"{name} has no key {key_id}: `pilotlight keys ls {name}` lists those it has")
    if len(meant) > 1:
        stop(_several(key_id, meant))
    if state_of(meant[0]) != "live":
        stop(f"{meant[0]['key_id']} is {state_of(meant[0])}: make a new key with `pilotlight keys create {name}`")
    return str(meant[0]["key_id"])


def _several(given: str, meant: list[dict[str, Any]]) -> str:
    return f"{given} is the beginning of {len(meant)} keys' ids, {meant[0]['key_id']} for one: give more of it"


def state_of(key: dict[str, Any], *, now: datetime | None = None) -> str:
    if key["revoked_at"]:
        return "revoked"
    if not key["expires_at"]:
        return "live"
    expires = datetime.fromisoformat(key["expires_at"])
    return "live" if expires > (now or datetime.now(UTC)) else "expired"


def expiry_of(key: dict[str, Any], *, now: datetime | None = None) -> str:
    """When it expires, and how long that is from now."""
    if not key["expires_at"] or key["revoked_at"]:
        return "–"
    left = (datetime.fromisoformat(key["expires_at"]) - (now or datetime.now(UTC))).total_seconds()
    return f"{_short(key['expires_at'])} (in {duration(left)})" if left > 0 else _short(key["expires_at"])


def _short(moment: str) -> str:
    return moment[:19].replace("T", " ")
