"""`pilotlight`: the command line. Data goes to stdout, talk to stderr; exit codes are in the help of this command.

Every command imports what it needs when it runs: `pilotlight --help` must be quick, and no command but `up` may need
Postgres drivers or an engine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

OK, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Serve LLM endpoints that cost nothing while nobody calls them.\n\n"
    "Exit codes: 0 done; 1 it failed, and the message says what to do; 2 wrong usage; 3 Pilotlight is not running or not reachable.",
)
keys = typer.Typer(no_args_is_help=True, help="API keys of an endpoint.")
app.add_typer(keys, name="keys")

State = Annotated[Path | None, typer.Option("--state", envvar="PILOTLIGHT_STATE_DIR", help="State folder of the installation.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="Name of the endpoint.")]


@app.command()
def up(
    state: State = None,
    host: Annotated[str | None, typer.Option(help="Address of the public HTTPS port.")] = None,
    port: Annotated[int | None, typer.Option(help="Public HTTPS port.")] = None,
) -> None:
    """Start everything on this machine, in the foreground. Ctrl-C stops it.

    Example: pilotlight up --port 8443
    """
    from pilotlight.cli.up import run_up

    raise typer.Exit(run_up(_settings(state, host=host, port=port)))


@app.command()
def deploy(
    name: Name,
    model: Annotated[Path, typer.Option(help="Folder of a Hugging Face model (safetensors, config, tokenizer).")],
    min_replicas: Annotated[int, typer.Option(help="Replicas kept running without a call; 0: the endpoint goes to zero.")] = 0,
    max_replicas: Annotated[int, typer.Option(help="Most replicas at once.")] = 1,
    idle_timeout: Annotated[float, typer.Option(help="Seconds without a call until the endpoint goes to zero.")] = 60.0,
    slots: Annotated[int, typer.Option(help="Requests a replica works on at once.")] = 64,
    engine_arg: Annotated[list[str] | None, typer.Option(help="An argument of vLLM's serve command, KEY=VALUE; may be repeated.")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Pack a model folder and put an endpoint on it.

    Example: pilotlight deploy demo --model snapshots/demo/model
    """
    from pilotlight.cli.commands import deploy_endpoint

    wanted = {
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "idle_timeout_seconds": idle_timeout,
        "slots": slots,
        "engine_args": _engine_args(engine_arg or []),
    }
    deploy_endpoint(_settings(state), name, model, wanted, as_json=as_json)


@app.command()
def rm(name: Name, state: State = None) -> None:
    """Remove an endpoint: its replicas drain, its name becomes free. Usage rows stay."""
    from pilotlight.cli.commands import remove_endpoint

    remove_endpoint(_settings(state), name)


@keys.command("create")
def keys_create(
    name: Name,
    label: Annotated[str, typer.Option(help="What the key is for; shown in lists.")] = "",
    expires_in: Annotated[float | None, typer.Option(help="Seconds until it expires; never, unless given.")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make an API key for an endpoint. It is shown once, on stdout."""
    from pilotlight.cli.commands import create_key

    create_key(_settings(state), name, label, expires_in, as_json=as_json)


@app.command()
def run(
    name: Name,
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    key: Annotated[str, typer.Option(envvar="PILOTLIGHT_API_KEY", help="API key; else one is made for this machine and kept a day.")] = "",
    state: State = None,
) -> None:
    """Ask an endpoint and stream its answer. A call wakes it when it is at zero.

    Example: pilotlight run demo "What is Pilotlight?"
    """
    from pilotlight.cli.talk import ask

    ask(_settings(state), name, sys.stdin.read() if prompt == "-" else prompt, max_tokens, key)


@app.command()
def ps(state: State = None, as_json: Json = False) -> None:
    """Endpoints, their replicas, and the standby."""
    from pilotlight.cli.show import show_status

    show_status(_settings(state), as_json=as_json)


@app.command()
def usage(
    name: Annotated[str | None, typer.Argument(help="Only this endpoint.")] = None,
    limit: Annotated[int, typer.Option(help="Most rows.")] = 20,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Usage records, newest first, with tokens and cost."""
    from pilotlight.cli.show import show_usage

    show_usage(_settings(state), name, limit, as_json=as_json)


@app.command(hidden=True)
def demo() -> None:
    """The whole way once, on a state folder of its own: zero, cold, warm, billed, zero, cold again."""
    from pilotlight.cli.demo import run_demo

    raise typer.Exit(run_demo())


def _settings(state: Path | None, **router: object):  # type: ignore[no-untyped-def]
    from pilotlight.settings import SettingsError, load

    given = {key: value for key, value in router.items() if value is not None}
    try:
        return load(state_dir=state, router=given or None)
    except SettingsError as error:
        stop(str(error), USAGE)


def _engine_args(pairs: list[str]) -> dict[str, str | int | float | bool]:
    """KEY=VALUE as typed values: true, false, whole numbers and decimals are told apart from text."""
    found: dict[str, str | int | float | bool] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            stop(f"--engine-arg {pair!r}: write KEY=VALUE, such as max-model-len=2048", USAGE)
        found[key] = _typed(value)
    return found


def _typed(value: str) -> str | int | float | bool:
    if value in ("true", "false"):
        return value == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def stop(message: str, code: int = FAILED) -> NoReturn:
    """One line on stderr, and the exit code."""
    print(f"pilotlight: {message}", file=sys.stderr)
    raise typer.Exit(code)


def main() -> None:
    from pilotlight.cli.api import ApiError, Unreachable

    try:
        app()
    except Unreachable as error:
        print(f"pilotlight: {error}", file=sys.stderr)
        sys.exit(UNREACHABLE)
    except ApiError as error:
        print(f"pilotlight: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(OK)


if __name__ == "__main__":
    main()
