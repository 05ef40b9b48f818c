"""The commands that show something: ls, ps, usage, and the waterfall of a cold start."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from pilotlight.cli.api import Api
from pilotlight.cli.options import print_json, say
from pilotlight.room import look, shortage
from pilotlight.settings import Settings


def console() -> Console:
    """As wide as the terminal; 120 columns where there is none, so that nothing is cut in a file or a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def table(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, no_wrap=True, overflow="ignore")
    return made


def show_endpoints(settings: Settings, *, as_json: bool) -> None:
    api = Api(settings.paths)
    found = api.call("GET", "/endpoints")["data"]
    if as_json:
        print_json(found)
        return
    rows = table("endpoint", "revision", "task", "snapshot", "replicas", "idle after", "rests", "slots", "URL")
    for row in found:
        rows.add_row(
            row["name"],
            _revisions(row),
            row["task"],
            (row["digest"] or "")[7:19],
            f"{row['min_replicas']}–{row['max_replicas']}",
            f"{row['idle_timeout_seconds']:g} s",
            row.get("zero") or "",
            str(row["slots"]),
            f"{api.url}/e/{row['name']}/v1",
        )
    console().print(rows)


def _revisions(row: dict[str, Any]) -> str:
    """The one that serves, the one that is to follow it, and the newest where that has failed."""
    told = str(row.get("number") or "–")
    if row.get("next"):
        told += f", {row['next']['number']} on its way"
    elif row.get("last_failed"):
        number = row["last_failed"]["number"]
        told += " fails" if number == row.get("number") else f", {number} failed"
    return told


def show_status(settings: Settings, *, as_json: bool) -> None:
    status = Api(settings.paths).call("GET", "/status")
    if as_json:
        print_json(status)
        return
    out = console()
    rows = table("endpoint", "revision", "demand", "replica", "state", "in flight", "memory")
    rows.add_column("phases of its start, s")  # broken where the terminal is narrow
    for endpoint in status["endpoints"]:
        for revision in endpoint["revisions"]:
            for replica in revision["replicas"] or [{}]:
                rows.add_row(endpoint["name"], _revision(revision, endpoint), str(revision["demand"]), *_replica(replica, revision))
    out.print(rows)
    for node in status["nodes"]:
        out.print(_node(node))
    _print_disk(settings, out)


def _print_disk(settings: Settings, out: Console) -> None:
    from pilotlight.cli import shares, state_checks

    out.print(shares.shares_table(shares.shares(settings), settings.paths))
    if reason := shortage(look(settings.paths), settings.disk):
        out.print(f"[red]new calls are refused: {reason}[/red]")
    if state_checks.is_running(settings.paths) and not (found := state_checks.postgres(settings)).ok:
        out.print(f"[red]Postgres: {found.text}[/red]; it is tried for ever, and records wait on disk")


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
    rows = table("when", "what", "revision", "node")
    rows.add_column("said")
    for row in found:
        rows.add_row(row["at"][:19].replace("T", " "), row["kind"], row["revision_id"], row["node_id"], row["text"])
    console().print(rows)


def _replica(replica: dict[str, Any], revision: dict[str, Any]) -> tuple[str, ...]:
    if not replica:
        failure = revision.get("failure", "")
        waits = "waits for room" if revision.get("waits_for_room") else "at zero"
        return ("–", "cannot start" if failure else waits, "", "", failure or revision.get("waits_for", ""))
    phases = sorted(replica["phases"], key=lambda phase: phase["at"])
    depth = f"{replica['in_flight']} of {replica['slots']}"
    taken = replica.get("private_bytes", 0) + replica.get("kv_cache_bytes", 0)
    told = " ".join(f"{phase['name']} {phase['seconds']:.2f}" for phase in phases)
    return replica["replica_id"], replica["state"], depth, size(taken) if taken else "", told


def _node(node: dict[str, Any]) -> str:
    environment = node["environment"]
    memory = f"{size(node['committed_bytes'])} of {size(node.get('budget_bytes') or node['memory_bytes'])} memory committed"
    if node.get("standby_bytes"):
        memory += f", a standby {size(node['standby_bytes'])}"
    away = "" if node["connected"] else ", not connected"
    reason = f" ({node['standby_reason']})" if node.get("standby_reason") else ""
    return (
        f"node {node['node_id']}: {environment['engine']} {environment['version']} on {environment['device']}, "
        f"{node['standbys_ready']} standby ready{reason}, {memory}{away}"
    )


def size(count: float) -> str:
    """Bytes as people read them, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def show_usage(settings: Settings, name: str | None, limit: int, since: float | None, until: float | None, *, as_json: bool) -> None:
    usage = Api(settings.paths).call("GET", "/usage", params={"limit": limit} | asked(name, since, until))
    if as_json:
        print_json(usage)
        return
    print_usage(console(), usage)


def print_usage(out: Console, usage: dict[str, Any]) -> None:
    rows = table("request", "when", "start", "finish", "input", "cached", "output", "counted by", "cost, $")
    for row in usage["rows"]:
        rows.add_row(
            row["event_id"][:13],
            row["admitted_at"][:19].replace("T", " "),
            row["start"],
            row["finish"],
            str(row["input_tokens"]),
            str(row["cached_tokens"]),
            str(row["output_tokens"]),
            row["count_source"] + (", correction" if row.get("corrects") else ""),
            str(row["cost"]),
        )
    out.print(rows)


def show_cold_starts(settings: Settings, name: str | None, limit: int, since: float | None, until: float | None, *, as_json: bool) -> None:
    found = Api(settings.paths).call("GET", "/cold-starts", params={"limit": limit} | asked(name, since, until))["data"]
    if as_json:
        print_json(found)
    elif len(found) == 1:
        print_waterfall(console(), found[0]["phases"], found[0]["seconds"])
        say(_said(found[0]))
    else:
        print_cold_starts(console(), found)


def print_cold_starts(out: Console, starts: list[dict[str, Any]]) -> None:
    rows = table("when", "endpoint", "from", "seconds", "snapshot", "start")
    rows.add_column("phases, s; why it failed")  # broken where the terminal is narrow
    for start in starts:
        told = " ".join(f"{phase['name']} {phase['seconds']:.2f}" for phase in sorted(start["phases"], key=lambda phase: phase["at"]))
        rows.add_row(
            start["started_at"][:19].replace("T", " "),
            start["endpoint"],
            start["rung"],
            f"{start['seconds']:.3f}",
            size(start["snapshot_bytes"]) if start["snapshot_bytes"] else "–",
            start["cold_start_id"],
            f"{told}; failed: {start['reason']}" if start["reason"] else told,
        )
    out.print(rows)


def _said(start: dict[str, Any]) -> str:
    begun = f"{start['endpoint']} from {start['rung']}, {start['started_at'][:19].replace('T', ' ')} UTC, replica {start['replica_id']}"
    return f"{begun}; failed: {start['reason']}" if start["reason"] else begun


def print_waterfall(out: Console, phases: list[dict[str, Any]], total_seconds: float, width: int = 40) -> None:
    """One bar a phase on a common axis. `phases`: name, at (monotonic seconds), seconds; the rest of the total is shown too."""
    begin = min((phase["at"] for phase in phases), default=0.0)
    rows = table("phase", "seconds", "")
    for phase in sorted(phases, key=lambda phase: phase["at"]):
        offset = round((phase["at"] - begin) / total_seconds * width) if total_seconds else 0
        length = max(1, round(phase["seconds"] / total_seconds * width)) if total_seconds else 1
        rows.add_row(phase["name"], f"{phase['seconds']:.3f}", " " * min(offset, width) + "█" * min(length, width))
    rows.add_row("whole", f"{total_seconds:.3f}", "")
    out.print(rows)


def asked(name: str | None, since: float | None, until: float | None) -> dict[str, Any]:
    """The part of a query that was given: an endpoint, and times in Unix seconds."""
    given = {"endpoint": name, "since": None if since is None else repr(since), "until": None if until is None else repr(until)}
    return {key: value for key, value in given.items() if value is not None}
