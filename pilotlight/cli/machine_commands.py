"""The commands about this machine: up, down, status, backup, restore, audit, doctor, help, config explain and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pilotlight.cli.options import Json, State, settings_of, span

NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once.")]

config = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Settings: each value, and where it comes from.\n\nExample: pilotlight config explain",
)


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(doctor)
    app.command()(backup)
    app.command("restore")(restore_backup)
    app.command()(audit)
    app.command("help")(show_help)
    app.command()(demo)


def up(
    state: State = None,
    host: Annotated[str | None, typer.Option(help="Address of the public HTTPS port.")] = None,
    port: Annotated[int | None, typer.Option(help="Public HTTPS port.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Once it is ready, print one line of JSON: where it answers, and its files.")
    ] = False,
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="In the background: return once it is ready. `pilotlight down` stops it."),
    ] = False,
) -> None:
    """Start everything on this machine, in the foreground. Ctrl-C stops it.

    To have it start with the machine, use systemd: docs/systemd.md.

    Example: pilotlight up --port 8443
    """
    from pilotlight.cli.engine import need_engine, vllm

    need_engine(vllm())
    if detach:
        from pilotlight.cli.up.background import detach as start_apart

        raise typer.Exit(start_apart(settings_of(state, host=host, port=port), as_json=as_json))
    from pilotlight.cli.up.installation import become_up

    become_up(settings_of(state, host=host, port=port), as_json=as_json)


def down(state: State = None, no_wait: NoWait = False, as_json: Json = False) -> None:
    """Stop the installation, wherever it was started. Running answers may finish, then everything ends in order.

    Example: pilotlight down
    """
    from pilotlight.cli.acts import noting
    from pilotlight.cli.up.background import take_down

    settings = settings_of(state)
    with noting(settings.paths, "installation.down", str(settings.paths.state)):
        take_down(settings, wait=not no_wait, as_json=as_json)


def status(state: State = None, as_json: Json = False) -> None:
    """Say whether the installation runs, and where it answers. Also since when, and whether wakes are fast yet.

    Exit code 3: it does not run, or does not answer.

    Example: pilotlight status
    """
    from pilotlight.cli.up.background import show_standing

    raise typer.Exit(show_standing(settings_of(state), as_json=as_json))


def backup(
    file: Annotated[Path, typer.Argument(help="File to write. It is complete or absent.")],
    models: Annotated[
        bool,
        typer.Option(
            "--models", help="Include the models in the store; else they are packed or pulled again after a restore."
        ),
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Back up endpoints, keys, prices, usage and secrets. Works while everything runs.

    The file opens everything: keep it where nobody else reads it.

    Example: pilotlight backup /backups/pilotlight.tar
    """
    from pilotlight.cli.acts import noting
    from pilotlight.cli.backup.backup import back_up

    settings = settings_of(state)
    with noting(settings.paths, "installation.backup", str(file.absolute()), models=models):
        back_up(settings, file, models=models, as_json=as_json)


def restore_backup(
    file: Annotated[Path, typer.Argument(help="A file of `pilotlight backup`.")],
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make a new state folder from a backup. The folder must be empty, or not be there yet. Then: pilotlight up.

    Example: pilotlight restore /backups/pilotlight.tar --state /srv/pilotlight
    """
    from pilotlight.cli.acts import noting
    from pilotlight.cli.backup.restore import restore

    settings = settings_of(state)
    with noting(settings.paths, "installation.restore", str(file.absolute())):  # kept in what is there afterwards
        restore(settings, file, as_json=as_json)


def audit(
    since: Annotated[
        str | None, typer.Option(help="Only what was done since: 10m, 2h, 7d ago, or an ISO 8601 time.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only what was done before: 10m, 2h, 7d ago, or an ISO 8601 time.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Most rows, 1 to 1000, the newest.")] = 100,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Who changed what, when, and from where, newest first.

    Every change by the admin API and by commands is there, also those that were refused.

    Example: pilotlight audit --since 7d
    """
    from pilotlight.cli.audit import show_audit

    show_audit(settings_of(state), *span(since, until), limit, as_json=as_json)


def doctor(state: State = None, as_json: Json = False) -> None:
    """Look at everything Pilotlight needs of this machine. Each line is ok, or says what to do. Exit code 1: something
    is wrong.

    Example: pilotlight doctor
    """
    from pilotlight.cli.doctor.doctor import examine

    raise typer.Exit(examine(settings_of(state), as_json=as_json))


def show_help(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND...]", help="The command, such as: keys create.")
    ] = None,
) -> None:
    """Explain a command; without one, list them all.

    Example: pilotlight help keys create
    """
    from pilotlight.cli.help import print_help

    print_help(context, words or [])


@config.command()
def explain(
    state: Annotated[Path | None, typer.Option("--state", help="State folder of the installation.")] = None,
    as_json: Json = False,
) -> None:
    """List every setting: its value, where that is from, what it means. It is from a flag, the environment, a file, or
    the default.

    Example: pilotlight config explain
    """
    from pilotlight.cli.explain import explain_settings

    explain_settings(settings_of(state), {"state_dir"} if state is not None else set(), as_json=as_json)


def demo() -> None:
    """Show the whole way once: zero, cold, warm, billed, zero.

    It has a state folder of its own, and leaves nothing behind.

    Example: pilotlight demo
    """
    from pilotlight.cli.demo.demo import run_demo
    from pilotlight.cli.engine import need_engine, vllm

    need_engine(vllm())

    raise typer.Exit(run_demo())
