"""The commands that change an endpoint, and go back: set, revisions, rollback."""

from __future__ import annotations

from typing import Annotated

import typer

from pilotlight.cli.endpoints.options import AtOnce, EngineArgs, NoWait, UnsetEngineArgs, Wait, engine_args, waits
from pilotlight.cli.options import USAGE, Json, Name, State, settings_of, stop


def register(app: typer.Typer) -> None:
    app.command("set")(set_fields)
    for command in (revisions, rollback):
        app.command()(command)


def set_fields(
    name: Name,
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD=VALUE", help="A field of a manifest, such as idle_timeout_seconds=7; several may be given."
        ),
    ] = None,
    engine_arg: EngineArgs = None,
    unset_engine_arg: UnsetEngineArgs = None,
    wait: Wait = False,
    no_wait: NoWait = False,
    at_once: AtOnce = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Change single fields of an endpoint. All others stay as they are, its model too.

    Example: pilotlight set demo idle_timeout_seconds=7 max_replicas=2
    """
    from pilotlight.cli.endpoints.deploy import deploy_endpoint, fields_given

    waiting = waits(wait, no_wait)
    wanted = fields_given(fields or [])
    if engine_arg:
        wanted["engine_args"] = engine_args(engine_arg)
    if not wanted and not unset_engine_arg:
        stop("give at least one FIELD=VALUE, --engine-arg KEY=VALUE or --unset-engine-arg KEY", USAGE)
    deploy_endpoint(
        settings_of(state),
        name,
        None,
        wanted,
        unset=unset_engine_arg or [],
        at_once=at_once,
        wait=waiting,
        as_json=as_json,
    )


def revisions(
    name: Name,
    limit: Annotated[int, typer.Option(help="Most rows; the newest are shown.")] = 20,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List every revision an endpoint had. When, by whom, what differs from the one before, and what became of it.

    None is ever deleted; `pilotlight rollback` goes back to any whose snapshot is still there.

    Example: pilotlight revisions demo
    """
    from pilotlight.cli.endpoints.rollouts import show_revisions

    show_revisions(settings_of(state), name, limit, as_json=as_json)


def rollback(
    name: Name,
    to: Annotated[
        int | None, typer.Option(help="Number of a revision; without it the newest earlier one that has served.")
    ] = None,
    wait: Wait = False,
    no_wait: NoWait = False,
    at_once: AtOnce = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Deploy what an earlier revision was. Nothing is packed again. While a deploy is on its way, this drops it.

    After a deploy that failed there is nothing to go back from: the old revision still serves, and a rollback changes
    nothing. --to goes further. Repeated while the rollback is on its way, it changes nothing. Repeated once that
    serves, it goes one further back, but never to a revision that was rolled back from. With --to a repeat never
    changes anything.

    Example: pilotlight rollback demo --to 3
    """
    from pilotlight.cli.endpoints.rollouts import rollback

    rollback(settings_of(state), name, to, wait=waits(wait, no_wait), at_once=at_once, as_json=as_json)
