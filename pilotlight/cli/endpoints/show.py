"""The commands that show endpoints: ls, ps, events, and the cold starts of `starts`."""

from __future__ import annotations

from typing import Any

from pilotlight.cli.api import Api, filters
from pilotlight.cli.options import print_json, say
from pilotlight.cli.tables import Table, show, show_text
from pilotlight.cli.waterfall import print_waterfall
from pilotlight.room import look, shortage
from pilotlight.settings import Settings
from pilotlight.sizes import human

NO_ENDPOINT = "no endpoint yet: pilotlight deploy NAME --model FOLDER"


def show_endpoints(settings: Settings, *, as_json: bool) -> None:
    api = Api(settings.paths)
    found = api.call("GET", "/endpoints")["data"]
    if as_json:
        print_json(found)
        return
    rows = Table("endpoint", "URL", "revision", "task", "snapshot", "replicas", "idle after", "rests", "slots")
    for row in found:
        rows.add_row(
            row["name"],
            f"{api.url}/e/{row['name']}/v1",
            _revisions(row),
            row["task"],
            (row["digest"] or "")[7:19],
            f"{row['min_replicas']}–{row['max_replicas']}",
            f"{row['idle_timeout_seconds']:g} s",
            row.get("zero") or "",
            str(row["slots"]),
        )
    show(rows, nothing=NO_ENDPOINT)


def _revisions(row: dict[str, Any]) -> str:
    """The one that serves, the one that is to follow it, and the newest where that has failed."""
    text = str(row.get("number") or "–")
    if row.get("next"):
        text += f", {row['next']['number']} on its way"
    elif row.get("last_failed"):
        number = row["last_failed"]["number"]
        text += " fails" if number == row.get("number") else f", {number} failed"
    return f"{text}, paused" if row.get("paused") else text


def show_status(settings: Settings, *, as_json: bool) -> None:
    status = Api(settings.paths).call("GET", "/status")
    if as_json:
        print_json(status)
        return
    rows = Table(
        "endpoint", "revision", "demand", "replica", "state", "in flight", "memory", prose="phases of its start, s"
    )
    for endpoint in status["endpoints"]:
        for revision in of_interest(endpoint):
            for replica in revision["replicas"] or [{}]:
                rows.add_row(
                    endpoint["name"],
                    _revision(revision, endpoint),
                    str(revision["demand"]),
                    *_replica(replica, revision, paused=bool(endpoint.get("paused"))),
                )
    show(rows, nothing=NO_ENDPOINT)
    for node in status["nodes"]:
        show_text(_node(node))
    _show_disk(settings)


def of_interest(endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """The revisions with replicas, or the route, or on their way to it; and the newest, which may have failed. Pure."""
    revisions: list[dict[str, Any]] = endpoint["revisions"]
    newest = max((revision["number"] for revision in revisions), default=0)
    led = {part[0] for part in endpoint["route"] if part[1]} | {endpoint.get("next")}
    return [each for each in revisions if each["replicas"] or each["revision_id"] in led or each["number"] == newest]


def _show_disk(settings: Settings) -> None:
    from pilotlight.cli import shares
    from pilotlight.cli.postgres_check import postgres
    from pilotlight.cli.running import is_running

    show(shares.shares_table(shares.shares(settings), settings.paths))
    if reason := shortage(look(settings.paths), settings.disk):
        show_text(f"new calls are refused: {reason}", alarm=True)
    if is_running(settings.paths) and not (found := postgres(settings)).ok:
        show_text(f"Postgres: {found.text}; it is tried again for ever, and records wait on disk", alarm=True)


def _revision(revision: dict[str, Any], endpoint: dict[str, Any]) -> str:
    revision_id = revision["revision_id"]
    routed = any(part[0] == revision_id and part[1] for part in endpoint["route"])
    failed = "failed" if revision.get("outcome") == "failed" else "old"
    state = "" if routed else " next" if endpoint.get("next") == revision_id else f" {failed}"
    return f"{revision_id}{state}"


def show_events(settings: Settings, name: str, limit: int, *, as_json: bool) -> None:
    found = Api(settings.paths).call("GET", f"/endpoints/{name}/events", params={"limit": limit})["data"]
    if as_json:
        print_json(found)
        return
    rows = Table("when", "what", "revision", "replica", "node", prose="said")
    for row in found:
        rows.add_row(
            row["at"][:19].replace("T", " "),
            row["kind"],
            row["revision_id"],
            row["replica_id"],
            row["node_id"],
            row["text"],
        )
    show(rows, nothing=f"no event of {name} yet")


def _replica(replica: dict[str, Any], revision: dict[str, Any], *, paused: bool = False) -> tuple[str, ...]:
    if not replica:
        failure = revision.get("failure", "")
        away = revision.get("waits_for_node")
        waits = (
            "waits"
            if away
            else "waits for room"
            if revision.get("waits_for_room")
            else "paused"
            if paused
            else "at zero"
        )
        why = failure or revision.get("waits_for") or revision.get("reason", "")
        return ("–", "cannot start" if failure else waits, "", "", why)
    phases = sorted(replica["phases"], key=lambda phase: phase["at"])
    depth = f"{replica['in_flight']} of {replica['slots']}"
    taken = replica.get("private_bytes", 0) + replica.get("kv_cache_bytes", 0)
    start = " ".join(f"{phase['name']} {phase['seconds']:.2f}" for phase in phases)
    why = f" ({revision['reason']})" if revision.get("reason") else ""
    return replica["replica_id"], replica["state"], depth, human(taken) if taken else "", f"{start}{why}".strip()


def _node(node: dict[str, Any]) -> str:
    environment = node["environment"]
    memory = f"{human(node['committed_bytes'])} of {human(node.get('budget_bytes') or node['memory_bytes'])} memory committed"
    if node.get("standby_bytes"):
        memory += f", a standby {human(node['standby_bytes'])}"
    away = "" if node["connected"] else ", not connected"
    reason = f" ({node['standby_reason']})" if node.get("standby_reason") else ""
    return (
        f"node {node['node_id']}: {environment['engine']} {environment['version']} on {environment['device']}, "
        f"{node['standbys_ready']} standby ready{reason}, {memory}{away}"
    )


def show_cold_starts(
    settings: Settings, name: str | None, limit: int, since: float | None, until: float | None, *, as_json: bool
) -> None:
    found = Api(settings.paths).call("GET", "/cold-starts", params={"limit": limit} | filters(name, since, until))[
        "data"
    ]
    if as_json:
        print_json(found)
    elif len(found) == 1:
        print_waterfall(found[0]["phases"], found[0]["seconds"])
        say(_said(found[0]))
    else:
        print_cold_starts(found)


def print_cold_starts(starts: list[dict[str, Any]]) -> None:
    rows = Table("when", "endpoint", "from", "seconds", "snapshot", "start", prose="phases, s; why it failed")
    for start in starts:
        phases_text = " ".join(
            f"{phase['name']} {phase['seconds']:.2f}"
            for phase in sorted(start["phases"], key=lambda phase: phase["at"])
        )
        rows.add_row(
            start["started_at"][:19].replace("T", " "),
            start["endpoint"],
            start["rung"],
            f"{start['seconds']:.3f}",
            human(start["snapshot_bytes"]) if start["snapshot_bytes"] else "–",
            start["cold_start_id"],
            f"{phases_text}; failed: {start['reason']}" if start["reason"] else phases_text,
        )
    show(rows, nothing="no start that fits: the first call of an endpoint makes one, or `pilotlight wake NAME`")


def _said(start: dict[str, Any]) -> str:
    begun = f"{start['endpoint']} from {start['rung']}, {start['started_at'][:19].replace('T', ' ')} UTC, replica {start['replica_id']}"
    return f"{begun}; failed: {start['reason']}" if start["reason"] else begun
