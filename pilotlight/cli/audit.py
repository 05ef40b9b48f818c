"""`pilotlight audit`: who changed what, when, from where, and what became of it."""

from __future__ import annotations

import json
from typing import Any

from pilotlight.cli.api import Api
from pilotlight.cli.options import print_json, say
from pilotlight.cli.tables import RED, Table, show
from pilotlight.settings import Settings


def show_audit(settings: Settings, since: float | None, until: float | None, limit: int, *, as_json: bool) -> None:
    asked = {"limit": limit} | {
        name: moment for name, moment in (("since", since), ("until", until)) if moment is not None
    }
    found = Api(settings.paths).call("GET", "/audit", params=asked)
    if as_json:
        print_json(found["data"])
        return
    rows = Table(
        "when",
        "act",
        "object",
        "outcome",
        "who",
        "from",
        prose="what",
        paint={"refused": RED, "failed": RED, "unknown": RED},
    )
    for row in found["data"]:
        who = f"{row['said_by']} with {row['who']}" if row["said_by"] else row["who"]
        rows.add_row(
            row["at"][:19].replace("T", " "),
            row["act"],
            row["object"],
            row["outcome"],
            who,
            row["origin"],
            what_changed(row),
        )
    show(rows)
    if found["has_more"]:
        say("there is more: ask for less with --since and --until, or for more with --limit")


def what_changed(row: dict[str, Any]) -> str:
    """What changed; where nobody knows, what was asked; why it was refused. Pure."""
    values = row["changed"] or row["asked"]
    parts = [f"{name}: {_value(value)}" for name, value in values.items() if value not in (None, "", {}, [])]
    return "; ".join([*([row["reason"]] if row["reason"] else []), *parts])


def _value(value: Any) -> str:
    """A pair is what it was and what it is."""
    if isinstance(value, list) and len(value) == 2:
        return f"{_value(value[0])} → {_value(value[1])}"
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
