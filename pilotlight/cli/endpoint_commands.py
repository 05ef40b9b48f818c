"""The commands about endpoints: deploy, apply, ls, ps, starts, events, rm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pilotlight.cli.options import USAGE, Json, Name, State, endpoint_names, settings_of, stop


def register(app: typer.Typer) -> None:
    for command in (deploy, apply, ls, ps, starts, events, rm):
        app.command()(command)


def deploy(
    name: Name,
    model: Annotated[Path | None, typer.Option(help="Folder of a Hugging Face model (safetensors, config, tokenizer).")] = None,
    digest: Annotated[
        str | None, typer.Option(help="Instead of --model: a snapshot in the store, or at the origin; the whole digest.")
    ] = None,
    task: Annotated[str, typer.Option(help="What the model does: generate, embed or score.")] = "generate",
    min_replicas: Annotated[int, typer.Option(help="Replicas kept running without a call; 0: the endpoint goes to zero.")] = 0,
    max_replicas: Annotated[int, typer.Option(help="Most replicas at once.")] = 1,
    idle_timeout: Annotated[float, typer.Option(help="Seconds without a call until the endpoint goes to zero.")] = 60.0,
    slots: Annotated[int, typer.Option(help="Requests a replica works on at once.")] = 64,
    target_concurrency: Annotated[int, typer.Option(help="Requests a replica is meant to have; with more another starts. 0: slots.")] = 0,
    zero: Annotated[str, typer.Option(help="Where it rests without a call: parked, standby or staged.")] = "standby",
    engine_arg: Annotated[list[str] | None, typer.Option(help="An argument of vLLM's serve command, KEY=VALUE; may be repeated.")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Pack a model folder and put an endpoint on it.

    Example: pilotlight deploy demo --model snapshots/demo/model
    """
    from pilotlight.cli.endpoints import deploy_endpoint

    wanted = {
        "task": task,
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "idle_timeout_seconds": idle_timeout,
        "slots": slots,
        "target_concurrency": target_concurrency,
        "zero": zero,
        "engine_args": _engine_args(engine_arg or []),
    }
    if (given := model or digest) is None or (model and digest):
        stop("give one of --model (a folder) and --digest (of a packed snapshot)", USAGE)
    deploy_endpoint(settings_of(state), name, given, wanted, as_json=as_json)


def apply(
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The manifest, a TOML file; - reads it from stdin.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change; nothing is packed or sent.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a manifest, and do nothing else.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make an endpoint what its manifest says. Applied again, it changes nothing.

    Example: pilotlight apply -f endpoint.toml --dry-run
    """
    from pilotlight.cli.apply import apply_manifest, print_schema

    if schema:
        print_schema()
        return
    if file is None:
        stop("give the manifest with -f endpoint.toml; --schema prints what may stand in it", USAGE)
    apply_manifest(settings_of(state), file, dry_run=dry_run, as_json=as_json)


def ls(state: State = None, as_json: Json = False) -> None:
    """The endpoints and what they are configured to be.

    Example: pilotlight ls --json
    """
    from pilotlight.cli.show import show_endpoints

    show_endpoints(settings_of(state), as_json=as_json)


def ps(state: State = None, as_json: Json = False) -> None:
    """What runs now: replicas with their depth and phases, nodes with their memory and standbys.

    Example: pilotlight ps
    """
    from pilotlight.cli.show import show_status

    show_status(settings_of(state), as_json=as_json)


def starts(
    name: Annotated[str | None, typer.Argument(help="Only this endpoint.", autocompletion=endpoint_names)] = None,
    limit: Annotated[int, typer.Option(help="Most rows, 1 to 1000; of a single one the phases are drawn.")] = 20,
    since: Annotated[str | None, typer.Option(help="Only those begun since: 10m, 2h, 7d ago, or an ISO 8601 time.")] = None,
    until: Annotated[str | None, typer.Option(help="Only those begun before: 10m, 2h, 7d ago, or an ISO 8601 time.")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Past cold starts, newest first: from which rung, how long, phase by phase, and why one failed.

    Example: pilotlight starts demo --limit 5
    """
    from pilotlight.cli.moments import span
    from pilotlight.cli.show import show_cold_starts

    show_cold_starts(settings_of(state), name, limit, *span(since, until), as_json=as_json)


def events(
    name: Name,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.")] = 20,
    state: State = None,
    as_json: Json = False,
) -> None:
    """What happened to an endpoint that you should hear of: wrong answers that were caught, and what was done.

    Example: pilotlight events demo
    """
    from pilotlight.cli.show import show_events

    show_events(settings_of(state), name, limit, as_json=as_json)


def rm(name: Name, state: State = None) -> None:
    """Remove an endpoint: its replicas drain, its name becomes free. Usage rows stay.

    Example: pilotlight rm demo
    """
    from pilotlight.cli.endpoints import remove_endpoint

    remove_endpoint(settings_of(state), name)


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
