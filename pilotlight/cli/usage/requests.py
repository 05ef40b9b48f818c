"""`pilotlight request`: one request by its id, with what it waited for; and `pilotlight usage sum`: what many came
to.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from pilotlight.cli.api import Api, filters
from pilotlight.cli.options import USAGE, print_json, say, stop
from pilotlight.cli.tables import Table, show
from pilotlight.cli.usage.show import NO_USAGE
from pilotlight.cli.waterfall import print_waterfall
from pilotlight.settings import Settings

HEADS = {"month": "month", "day": "day", "endpoint": "endpoint", "key": "key"}
FIELDS = (
    "event_id", "endpoint", "path", "status", "finish", "start", "admitted_at", "hold_ms", "first_byte_ms", "total_ms", "input_tokens",
    "cached_tokens", "output_tokens", "count_source", "cost", "key_id", "revision_id", "replica_id", "settled_at",
)  # fmt: skip


def show_request(settings: Settings, given: str, *, as_json: bool) -> None:
    if not (given.isascii() and given.isalnum()) or len(given) < 6:
        stop(
            "a request's id has 32 of 0-9 and a-f; give at least 6: `pilotlight usage` lists them",
            USAGE,
        )
    found = Api(settings.paths).call("GET", f"/requests/{quote(given.lower(), safe='')}")
    if as_json:
        print_json(found)
        return
    rows = Table("request", prose="")
    for field, value in known_fields(found):
        rows.add_row(field, value)
    show(rows)
    if found.get("phases"):
        print_waterfall(found["phases"], (found.get("first_byte_ms") or 0.0) / 1000)


def known_fields(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known of it, field by field; with its corrections, what it comes to. Pure."""
    rows = [(field, str(found[field])) for field in FIELDS if found.get(field) not in (None, "")]
    for row in found.get("corrections", ()):
        change = f"{row['input_tokens']:+} in, {row['cached_tokens']:+} cached, {row['output_tokens']:+} out, $ {row['cost']}"
        rows.append(("correction", f"{row['event_id']}: {change}"))
    if found.get("corrections"):
        total = found["total"]
        rows.append(
            (
                "in all",
                f"{total['input_tokens']} in, {total['cached_tokens']} cached, {total['output_tokens']} out, $ {total['cost']}",
            )
        )
    return rows


def show_sums(
    settings: Settings, name: str | None, by: list[str], since: float | None, until: float | None, *, as_json: bool
) -> None:
    wanted = [each for each in HEADS if each in by]
    answer = Api(settings.paths).call(
        "GET", "/usage/sums", params={"by": ",".join(wanted)} | filters(name, since, until)
    )
    if as_json:
        print_json(answer["data"])
        return
    rows = Table(*wanted, "requests", "input", "cached", "output", "cost, $")
    for row in answer["data"]:
        named = (row["key_id" if each == "key" else each] or "–" for each in wanted)
        rows.add_row(
            *named, *(str(row[each]) for each in ("requests", "input_tokens", "cached_tokens", "output_tokens", "cost"))
        )
    show(rows, nothing=NO_USAGE)
    if answer["has_more"]:
        say("there is more: ask for less with --since, --until or a name, or export it with `pilotlight usage export`")
