"""The commands that show something: ps, usage, and the waterfall of a cold start."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from pilotlight.cli.api import Api
from pilotlight.settings import Settings


def console() -> Console:
    """As wide as the terminal; 120 columns where there is none, so that nothing is cut in a file or a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def show_status(settings: Settings, *, as_json: bool) -> None:
    status = Api(settings.paths).call("GET", "/status")
    if as_json:
        print(json.dumps(status))
        return
    out = console()
    table = _table("endpoint", "revision", "replica", "state", "in flight", "started in")
    for endpoint in status["endpoints"]:
        for revision in endpoint["revisions"]:
            replicas = revision["replicas"] or [{}]
            for replica in replicas:
                took = sum(phase["seconds"] for phase in replica.get("phases", ()))
                table.add_row(
                    endpoint["name"],
                    revision["revision_id"],
                    replica.get("replica_id", "–"),
                    replica.get("state", "at zero"),
                    str(replica.get("in_flight", "")),
                    f"{took:.2f} s" if took else "",
                )
    out.print(table)
    for node in status["nodes"]:
        environment = node["environment"]
        out.print(
            f"node {node['node_id']}: {environment['engine']} {environment['version']} on {environment['device']}, "
            f"{node['standbys_ready']} standby ready"
        )


def show_usage(settings: Settings, name: str | None, limit: int, *, as_json: bool) -> None:
    parameters: dict[str, Any] = {"limit": limit} | ({"endpoint": name} if name else {})
    usage = Api(settings.paths).call("GET", "/usage", params=parameters)
    if as_json:
        print(json.dumps(usage))
        return
    print_usage(console(), usage)


def print_usage(out: Console, usage: dict[str, Any]) -> None:
    table = _table("request", "when", "start", "finish", "input", "cached", "output", "counted by", "cost, $")
    for row in usage["rows"]:
        table.add_row(
            row["event_id"][:13],
            row["admitted_at"][:19].replace("T", " "),
            row["start"],
            row["finish"],
            str(row["input_tokens"]),
            str(row["cached_tokens"]),
            str(row["output_tokens"]),
            row["count_source"],
            str(row["cost"]),
        )
    out.print(table)


def print_waterfall(out: Console, phases: list[dict[str, Any]], total_seconds: float, width: int = 40) -> None:
    """One bar a phase on a common axis. `phases`: name, at (monotonic seconds), seconds; the rest of the total is shown too."""
    begin = min((phase["at"] for phase in phases), default=0.0)
    table = _table("phase", "seconds", "")
    for phase in sorted(phases, key=lambda phase: phase["at"]):
        offset = round((phase["at"] - begin) / total_seconds * width) if total_seconds else 0
        length = max(1, round(phase["seconds"] / total_seconds * width)) if total_seconds else 1
        table.add_row(phase["name"], f"{phase['seconds']:.3f}", " " * min(offset, width) + "█" * min(length, width))
    table.add_row("whole", f"{total_seconds:.3f}", "")
    out.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ignore")
    return table
