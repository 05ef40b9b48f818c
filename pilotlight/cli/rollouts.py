"""Follows a deploy until its revision serves or has failed; and the commands about revisions.

The old revision serves all the while, so leaving (Ctrl-C, `--no-wait`, a lost connection) changes nothing: the activator goes on with it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pilotlight.cli.api import Api
from pilotlight.cli.options import print_json, say, stop
from pilotlight.cli.tables import Table, joined, show
from pilotlight.settings import Settings

POLL_SECONDS = 0.5  # the admin API does not push
LONGEST_SECONDS = 900.0  # beyond the longest start the settings allow by default
WAITS = "{name}: revision {number} is on its way; what serves goes on until it is ready. `pilotlight ps` shows it."


class Drawn(Protocol):
    def __call__(self, text: str) -> None: ...


def who() -> str:
    """Who deploys, as `pilotlight revisions` tells it."""
    import getpass

    try:
        return f"{getpass.getuser()} (local)"
    except (KeyError, OSError):  # a user without a name
        return "local"


def follow(api: Api, name: str, deploy: dict[str, Any], *, wait: bool) -> None:
    """Returns once the revision of `deploy` serves, or where there is nothing to wait for; stops where it has failed."""
    for note in deploy.get("notes") or ():
        say(f"{name}: {note}")
    if unchecked := deploy.get("unchecked"):
        say(f"{name}: nobody has looked at its engine arguments before: {unchecked}")
    if not wait:
        if deploy.get("pending"):
            say(WAITS.format(name=name, number=deploy["number"]))
        return
    deadline = time.monotonic() + LONGEST_SECONDS
    with _line() as draw:
        while True:
            done, text = progress(api.call("GET", "/status"), name, deploy)
            if done:
                break
            draw(text)
            if time.monotonic() > deadline:
                stop(f"{name}: after {LONGEST_SECONDS:g} s {text}; what serves goes on, and so does the deploy: `pilotlight ps`")
            time.sleep(POLL_SECONDS)
    if text:
        stop(text)


def progress(status: dict[str, Any], name: str, deploy: dict[str, Any]) -> tuple[bool, str]:
    """(True, "") where it serves, or will with its first call; (True, why) where it never will; else (False, how it stands). Pure."""
    number, revision_id = deploy["number"], deploy["revision_id"]
    endpoint = next((endpoint for endpoint in status["endpoints"] if endpoint["name"] == name and not endpoint["removed"]), None)
    if endpoint is None:
        return True, f"{name} was removed meanwhile"
    revision = next((revision for revision in endpoint["revisions"] if revision["revision_id"] == revision_id), None)
    routed = any(part[0] == revision_id and part[1] for part in endpoint["route"])
    if endpoint.get("next") == revision_id:
        return False, f"revision {number} {_standing(revision)}"
    if revision and revision.get("outcome") == "failed" and (not routed or revision["min_replicas"]):
        serving = [r["number"] for r in endpoint["revisions"] if any(part[0] == r["revision_id"] for part in endpoint["route"])]
        goes_on = f"; revision {serving[0]} goes on serving" if serving and not routed else ""
        return True, f"{name}: revision {number} failed: {revision['failure']}{goes_on}"
    if not routed:
        return True, f"{name}: revision {number} was replaced by another deploy before it served"
    if revision and revision["min_replicas"] and revision.get("outcome") != "proved":
        return False, f"revision {number} {_standing(revision)}"
    return True, ""


def _standing(revision: dict[str, Any] | None) -> str:
    """How a revision on its way stands, in words."""
    if revision is None:
        return "is on its way"
    if waits_for := revision.get("waits_for"):
        return f"waits, for there is no room for both: {waits_for}"
    starting = [replica for replica in revision["replicas"] if replica["state"] == "starting"]
    if not starting:
        return "is on its way"
    phases = sorted(starting[0]["phases"], key=lambda phase: phase["at"])
    done = f", {phases[-1]['name']} done" if phases else ""
    return f"starts, for {starting[0]['age_seconds']:.0f} s{done}"


@contextmanager
def _line() -> Iterator[Drawn]:
    """One line on stderr that is drawn anew on a terminal; elsewhere each new kind of news is a line, once."""
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("") as status:
            yield lambda text: status.update(text)
        return
    said: set[str] = set()

    def once(text: str) -> None:
        kind = text.split(", for ")[0] if " starts, for " in text else text
        if kind not in said:
            said.add(kind)
            say(text)

    yield once


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
            str(row["number"]), row["state"], row["created_at"][:19].replace("T", " "), row["created_by"], row["digest"][7:19], said
        )
    show(rows)


def _short(value: Any) -> str:
    return "–" if value is None else value[:19] + "…" if isinstance(value, str) and value.startswith("sha256:") else str(value)


def rollback(settings: Settings, name: str, to: int | None, *, wait: bool, at_once: bool, as_json: bool) -> None:
    api = Api(settings.paths)
    done = api.call("POST", f"/endpoints/{name}/rollback", json={"to": to, "at_once": at_once, "by": who()})
    deploy = done["deploy"]
    follow(api, name, deploy, wait=wait)
    if as_json:
        print_json(done)
    elif not deploy["changed"]:
        say(f"{name} is what that revision was: nothing to do")
    elif not deploy["pending"] or wait:
        say(f"{name} is on revision {deploy['number']}")
