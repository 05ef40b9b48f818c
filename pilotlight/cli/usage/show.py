"""`pilotlight usage`: the newest usage records as a table, and their totals."""

from __future__ import annotations

from typing import Any

from pilotlight.cli.api import Api, filters
from pilotlight.cli.options import print_json, say
from pilotlight.cli.tables import Table, show
from pilotlight.settings import Settings

NO_USAGE = "no request that fits: a row is there about a second after its answer"


def show_usage(
    settings: Settings, name: str | None, limit: int, since: float | None, until: float | None, *, as_json: bool
) -> None:
    usage = Api(settings.paths).call("GET", "/usage", params={"limit": limit} | filters(name, since, until))
    if as_json:
        print_json(usage)
        return
    print_usage(usage)
    print_totals(usage)


def print_totals(usage: dict[str, Any]) -> None:
    totals = usage["totals"]
    shown = f"; shown are the newest {len(usage['rows'])}" if usage.get("has_more") else ""
    say(
        f"in all {totals['requests']} requests, {totals['input_tokens']} tokens in ({totals['cached_tokens']} cached), "
        f"{totals['output_tokens']} out, $ {totals['cost']}{shown}"
    )


def print_usage(usage: dict[str, Any]) -> None:
    rows = Table("request", "when", "start", "finish", "input", "cached", "output", "counted by", "cost, $")
    for row in usage["rows"]:
        rows.add_row(
            row["event_id"],
            row["admitted_at"][:19].replace("T", " "),
            row["start"],
            row["finish"],
            str(row["input_tokens"]),
            str(row["cached_tokens"]),
            str(row["output_tokens"]),
            row["count_source"] + (", correction" if row.get("corrects") else ""),
            str(row["cost"]),
        )
    show(rows, nothing=NO_USAGE)
