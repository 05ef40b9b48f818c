"""The commands about usage: `usage [NAME]`, short for `usage show [NAME]`, and `usage export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pilotlight.cli.options import USAGE, Json, State, endpoint_names, settings_of, stop


class ShowUnlessNamed(TyperGroup):
    """What is no command of the group is an argument of its `show`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ShowUnlessNamed,
    rich_markup_mode=None,
    help="Usage records: tokens and cost of every request. `pilotlight usage NAME` is short for `pilotlight usage show NAME`.\n\n"
    "Example: pilotlight usage demo --since 1h",
)

Since = Annotated[str | None, typer.Option(help="Only requests admitted since: 10m, 2h, 7d ago, or an ISO 8601 time.")]


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="Only this endpoint.", autocompletion=endpoint_names)] = None,
    limit: Annotated[int, typer.Option(help="Most rows, 1 to 1000.")] = 20,
    since: Since = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """The newest records as a table.

    Example: pilotlight usage show demo --limit 5
    """
    from pilotlight.cli.show import show_usage

    show_usage(settings_of(state), name, limit, _moment(since), as_json=as_json)


@app.command()
def export(
    format: Annotated[str, typer.Option(help="csv or jsonl.")] = "csv",
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint.", autocompletion=endpoint_names)] = None,
    since: Since = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write, whole or not at all; stdout unless given.")] = None,
    state: State = None,
) -> None:
    """All records, one a line, streamed from Postgres.

    Example: pilotlight usage export --format csv --endpoint demo --since 30d -o usage.csv
    """
    from pilotlight.cli.export import export_usage

    if format not in ("csv", "jsonl"):
        stop(f"--format {format}: it is csv or jsonl", USAGE)
    export_usage(settings_of(state), format=format, endpoint=endpoint, since=_moment(since), output=output)


def _moment(since: str | None) -> float | None:
    from pilotlight.cli.moments import MomentError, unix_seconds

    try:
        return None if since is None else unix_seconds(since)
    except MomentError as error:
        stop(f"--since {error}", USAGE)
