"""Follows a deploy until its revision serves or has failed; and the commands about revisions.

The old revision serves all the while, so leaving (Ctrl-C, `--no-wait`, a lost connection) changes nothing. The
activator goes on with the deploy, and whoever leaves is told so. The first revision of a name has no call that would
start it, so it is woken once. What cannot start is then said by the deploy, and not by the first caller's error.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from pilotlight.cli.acts import who
from pilotlight.cli.api import Api, ApiError
from pilotlight.cli.drawn import line, standing
from pilotlight.cli.options import print_json, say, stop
from pilotlight.cli.tables import Table, joined, show, written
from pilotlight.settings import Settings

POLL_SECONDS = 0.5  # the admin API does not push
LONGEST_SECONDS = 900.0  # beyond the longest start the settings allow by default
WAITS = "{name}: revision {number} is on its way; what serves goes on until it is ready. `pilotlight ps` shows it."
LEFT = "{name}: revision {number} is on its way, and goes on by itself: `pilotlight ps` shows it, `pilotlight rollback {name}` drops it"
LEFT_FIRST = "{name}: revision {number} is deployed, and starts by itself: `pilotlight ps` shows it, `pilotlight rm {name}` removes it"


@dataclass(frozen=True)
class Outcome:
    """What became of a deploy. `text`: why it failed."""

    kind: Literal["serves", "failed", "on its way", "not tried"]
    text: str = ""

    def fields(self) -> dict[str, str]:
        return {"outcome": self.kind, "failure": self.text if self.kind == "failed" else ""}


def follow(api: Api, name: str, deploy: dict[str, Any], *, wait: bool, at_once: bool = False) -> Outcome:
    """Returns once the revision of `deploy` serves or has failed, or where nobody waits for that."""
    for note in deploy.get("notes") or ():
        say(f"{name}: {note}")
    if unchecked := deploy.get("unchecked"):
        say(f"{name}: its engine arguments were not checked before the start: {unchecked}")
    number, pending = deploy["number"], deploy.get("pending")
    if not wait:
        if pending:
            say(WAITS.format(name=name, number=number))
        return Outcome("on its way" if pending else "not tried" if deploy.get("changed") else "serves")
    try:
        proves = bool(deploy.get("changed")) and not pending and not at_once and _woken(api, name, deploy)
        return _outcome(api, name, deploy, proves=proves)
    except KeyboardInterrupt:
        say((LEFT if pending else LEFT_FIRST).format(name=name, number=number))
        raise


def _woken(api: Api, name: str, deploy: dict[str, Any]) -> bool:
    """Starts a revision that has the route already and has never been tried; whether one start is to be waited for."""
    endpoint = _endpoint(api.call("GET", "/status"), name)
    revision = _revision(endpoint, deploy["revision_id"])
    if revision is None or revision.get("outcome") == "proved":
        return False
    if endpoint and endpoint.get("paused"):
        say(f"{name} is paused: its first call after `pilotlight resume {name}` shows whether it serves")
        return False
    try:
        api.call("POST", f"/endpoints/{name}/wake")
    except ApiError as error:
        if error.status not in (404, 405):
            raise
        say(f"{name}: this server cannot start it now; its first call does")
        return False
    return True


def _outcome(api: Api, name: str, deploy: dict[str, Any], *, proves: bool) -> Outcome:
    deadline = time.monotonic() + LONGEST_SECONDS
    with line() as draw:
        while True:
            done, text = progress(api.call("GET", "/status"), name, deploy, proves=proves)
            if done:
                return Outcome("failed", text) if text else Outcome("serves")
            draw(text)
            if time.monotonic() > deadline:
                stop(
                    f"{name}: after {LONGEST_SECONDS:g} s {text}; what serves goes on, and so does the deploy: `pilotlight ps`"
                )
            time.sleep(POLL_SECONDS)


def until_ready(api: Api, name: str, deploy: dict[str, Any]) -> Outcome:
    """Until a replica of the revision, which has been woken, is ready, or none starts any more."""
    deadline = time.monotonic() + LONGEST_SECONDS
    with line() as draw:
        while True:
            status = api.call("GET", "/status")
            revision = _revision(_endpoint(status, name), deploy["revision_id"])
            if revision is None:
                return Outcome(
                    "failed", f"{name} was changed or removed meanwhile: `pilotlight ls` shows what there is"
                )
            if any(replica["state"] == "ready" for replica in revision["replicas"]):
                return Outcome("serves")
            if not revision["replicas"] and revision.get("failure"):
                return Outcome("failed", f"{name}: revision {deploy['number']} cannot start: {revision['failure']}")
            if time.monotonic() > deadline:
                return Outcome(
                    "failed", f"{name}: not ready after {LONGEST_SECONDS:g} s; `pilotlight ps` shows how it stands"
                )
            draw(f"{name} {standing(revision, status.get('nodes', ()))}")
            time.sleep(POLL_SECONDS)


def progress(status: dict[str, Any], name: str, deploy: dict[str, Any], *, proves: bool = False) -> tuple[bool, str]:
    """(True, "") where it serves, or will with its first call; (True, why) where it never will; else (False, how it
    stands).

    `proves`: it has the route already, and has been woken to show that it serves. Pure.
    """
    number, revision_id = deploy["number"], deploy["revision_id"]
    endpoint = _endpoint(status, name)
    if endpoint is None:
        return True, f"{name} was removed meanwhile"
    revision = _revision(endpoint, revision_id)
    routed = any(part[0] == revision_id and part[1] for part in endpoint["route"])
    if endpoint.get("next") == revision_id:
        return False, f"revision {number} {standing(revision, status.get('nodes', ()), beside=True)}"
    tried = proves or bool(revision and revision["min_replicas"])
    if revision and revision.get("outcome") == "failed" and (not routed or tried):
        serving = [
            r["number"] for r in endpoint["revisions"] if any(part[0] == r["revision_id"] for part in endpoint["route"])
        ]
        goes_on = f"; revision {serving[0]} goes on serving" if serving and not routed else ""
        return True, f"{name}: revision {number} failed: {revision['failure']}{goes_on}"
    if not routed:
        return True, f"{name}: revision {number} was replaced by another deploy before it served"
    if revision and tried and revision.get("outcome") != "proved":
        return False, f"revision {number} {standing(revision, status.get('nodes', ()))}"
    return True, ""


def _endpoint(status: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next(
        (endpoint for endpoint in status["endpoints"] if endpoint["name"] == name and not endpoint["removed"]), None
    )


def _revision(endpoint: dict[str, Any] | None, revision_id: str) -> dict[str, Any] | None:
    return (
        next((each for each in endpoint["revisions"] if each["revision_id"] == revision_id), None) if endpoint else None
    )


def end(outcome: Outcome, shown: dict[str, Any], *, as_json: bool) -> None:
    """As JSON what there is to tell, failed or not; and the end with exit code 1 where it failed."""
    if as_json:
        print_json(shown | outcome.fields())
    if outcome.kind == "failed":
        stop(outcome.text)


def show_revisions(settings: Settings, name: str, limit: int, *, as_json: bool) -> None:
    found = Api(settings.paths).call("GET", f"/endpoints/{name}/revisions", params={"limit": limit})["data"]
    if as_json:
        print_json(found)
        return
    rows = Table("number", "state", "when", "by", "snapshot", prose="what differs from the one before; why it failed")
    for row in found:
        differs = ", ".join(f"{field}: {_short(was)} → {_short(now)}" for field, (was, now) in row["differs"].items())
        failed = f"failed: {row['failure']}" if row["failure"] else ""
        said = joined((differs, failed))
        rows.add_row(
            str(row["number"]),
            row["state"],
            row["created_at"][:19].replace("T", " "),
            row["created_by"],
            row["digest"][7:19],
            said,
        )
    show(rows)


def _short(value: Any) -> str:
    return value[:19] + "…" if isinstance(value, str) and value.startswith("sha256:") else written(value)


def rollback(settings: Settings, name: str, to: int | None, *, wait: bool, at_once: bool, as_json: bool) -> None:
    api = Api(settings.paths)
    done = api.call("POST", f"/endpoints/{name}/rollback", json={"to": to, "at_once": at_once, "by": who()})
    deploy = done["deploy"]
    outcome = follow(api, name, deploy, wait=wait, at_once=at_once)
    end(outcome, done | {"deploy": deploy | {"pending": outcome.kind == "on its way"}}, as_json=as_json)
    if as_json:
        return
    if not deploy["changed"]:
        say(f"{name} is on revision {deploy['number']} and stays there: nothing to do{_why_nothing(to)}")
    elif outcome.kind != "on its way":
        say(f"{name} is on revision {deploy['number']}")


def _why_nothing(to: int | None) -> str:
    return (
        ""
        if to is not None
        else ". The newest revision never served; --to NUMBER goes further back (`pilotlight revisions`)"
    )
