"""The commands about usage: `usage show`, which `usage [NAME]` is short for, `usage sum`, `usage export`, `request`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pilotlight.cli.options import USAGE, Json, State, endpoint_names, settings_of, span, stop


class ShowUnlessNamed(TyperGroup):
    """What is not a command of the group is an argument of its `show`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ShowUnlessNamed,
    rich_markup_mode=None,
    help="Usage records: tokens and cost of every request. `pilotlight usage NAME` is short for `pilotlight usage show NAME`.\n\n"
    "Example: pilotlight usage demo --since 1h",
)

Since = Annotated[str | None, typer.Option(help="Only requests admitted since: 10m, 2h, 7d ago, or an ISO 8601 time.")]
Until = Annotated[str | None, typer.Option(help="Only requests admitted before: 10m, 2h, 7d ago, or an ISO 8601 time.")]


def register(top: typer.Typer) -> None:
    """`request` is a command of its own, beside the group."""
    top.command()(request)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="Only this endpoint.", autocompletion=endpoint_names)] = None,
    limit: Annotated[int, typer.Option(help="Most rows, 1 to 1000.")] = 20,
    since: Since = None,
    until: Until = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Show the newest records, and the totals.

    Example: pilotlight usage show demo --since 2026-01-01 --until 2026-02-01
    """
    from pilotlight.cli.usage.show import show_usage

    show_usage(settings_of(state), name, limit, *span(since, until), as_json=as_json)


@app.command("sum")
def sums(
    name: Annotated[str | None, typer.Argument(help="Only this endpoint.", autocompletion=endpoint_names)] = None,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="endpoint, key, day or month; may be repeated. Unless given: endpoint."),
    ] = None,
    since: Since = None,
    until: Until = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Sum requests, tokens and cost, by endpoint, key, day or month. Corrections are included. Days are of UTC.

    Example: pilotlight usage sum --by day --by endpoint --since 30d
    """
    from pilotlight.cli.usage.requests import show_sums

    wanted = by or ["endpoint"]
    if unknown := [each for each in wanted if each not in ("endpoint", "key", "day", "month")]:
        stop(f"--by {unknown[0]}: it is endpoint, key, day or month", USAGE)
    show_sums(settings_of(state), name, wanted, *span(since, until), as_json=as_json)


@app.command()
def export(
    format: Annotated[str, typer.Option(help="csv or jsonl.")] = "csv",
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint.", autocompletion=endpoint_names)] = None,
    since: Since = None,
    until: Until = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write, complete or absent; stdout unless given.")
    ] = None,
    state: State = None,
) -> None:
    """Write all records, one a line, as CSV or JSON lines. They are streamed from Postgres.

    Example: pilotlight usage export --format csv --endpoint demo --since 30d -o usage.csv
    """
    from pilotlight.cli.usage.export import export_usage

    if format not in ("csv", "jsonl"):
        stop(f"--format {format}: it is csv or jsonl", USAGE)
    begin, end = span(since, until)
    export_usage(settings_of(state), format=format, endpoint=endpoint, since=begin, until=end, output=output)


def request(
    request_id: Annotated[
        str,
        typer.Argument(
            help="Id of the request, as `x-request-id`, `run` and `usage` show it; its beginning is enough where only one request has it."
        ),
    ],
    state: State = None,
    as_json: Json = False,
) -> None:
    """Show one request: what it waited for, and what it costs. A cold start phase by phase.

    Example: pilotlight request 01a1fc1d72bd76379792f5d24e066cc7
    """
    from pilotlight.cli.usage.requests import show_request

    show_request(settings_of(state), request_id, as_json=as_json)
