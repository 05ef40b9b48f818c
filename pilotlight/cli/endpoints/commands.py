"""The commands about endpoints: deploy, apply, ls, ps, starts, events, rm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pilotlight.cli.endpoints.options import AtOnce, EngineArgs, NoWait, UnsetEngineArgs, Wait, engine_args, waits
from pilotlight.cli.options import (
    USAGE,
    Json,
    Model,
    Name,
    State,
    duration_option,
    endpoint_names,
    settings_of,
    span,
    stop,
)
from runtime.tasks import DEFAULT, described


def register(app: typer.Typer) -> None:
    for command in (deploy, apply, ls, ps, wake, pause, resume, starts, events, rm):
        app.command()(command)


def deploy(
    name: Name,
    model: Model = None,
    digest: Annotated[
        str | None,
        typer.Option(
            help="Instead of --model: digest of a snapshot in the store, or its beginning; or complete, of one at the origin."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help=f"What the model does: {described()}. For a new endpoint {DEFAULT}, or what its files say."),
    ] = None,
    min_replicas: Annotated[
        int | None, typer.Option(help="Replicas that run without a call. For a new endpoint 0: it goes to zero.")
    ] = None,
    max_replicas: Annotated[int | None, typer.Option(help="Most replicas at once. For a new endpoint 1.")] = None,
    idle_timeout: Annotated[
        float | None,
        duration_option(
            "Time without a call after which it goes to zero: 90s, 10m, or seconds. For a new endpoint 60.",
        ),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(help="Requests a replica works on at once. For a new endpoint 64.")
    ] = None,
    target_concurrency: Annotated[
        int | None,
        typer.Option(help="Requests a replica should have; above it another starts. For a new endpoint 0: slots."),
    ] = None,
    zero: Annotated[
        str | None,
        typer.Option(
            help="How it rests without a call. parked: one replica stays built, with its memory given back; it wakes soonest. standby: "
            "nothing of it runs. staged: nor is a standby kept for it. For a new endpoint standby."
        ),
    ] = None,
    hold_seconds: Annotated[
        float | None,
        duration_option("Longest wait of a request for a slot: 90s, 10m, or seconds. For a new endpoint 300."),
    ] = None,
    max_held: Annotated[
        int | None,
        typer.Option(help="Most requests waiting at once; one more is answered 503. For a new endpoint 1000."),
    ] = None,
    finish_seconds: Annotated[
        float | None,
        duration_option(
            "Longest time running answers may take to end at a replica that is not wanted any more: 90s, 10m, or seconds. "
            "For a new endpoint 3600.",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin of a web page that may call it from a browser, or *; may be repeated. Those given are all it has."
        ),
    ] = None,
    allow: Annotated[
        str | None,
        typer.Option(
            help="What callers may ask for beyond what every endpoint serves, commas between: prompt_logprobs, echo_logprobs, media, "
            "chat_template, shared_prefix_cache. For a new endpoint nothing."
        ),
    ] = None,
    media_hosts: Annotated[
        str | None,
        typer.Option(
            help="Hosts from which media may be fetched, commas between. For a new endpoint none: data: URLs only."
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
    """Put an endpoint on a model, from a folder or a hub. The model is packed first. What is not given stays as it is.

    What serves goes on until the new revision is ready, and for good where that fails: then the exit code is 1. Where
    nothing serves, as with a new name, one start proves it.

    Example: pilotlight deploy demo --model pilotlight://demo
    """
    from pilotlight.cli.endpoints.deploy import deploy_endpoint

    wanted = {
        "task": task,
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "idle_timeout_seconds": idle_timeout,
        "slots": slots,
        "target_concurrency": target_concurrency,
        "zero": zero,
        "hold_seconds": hold_seconds,
        "max_held": max_held,
        "finish_seconds": finish_seconds,
        "cors_origins": cors_origin,
        "allow": allow,
        "media_hosts": media_hosts,
        "engine_args": None if engine_arg is None else engine_args(engine_arg),
    }
    wanted = {field: value for field, value in wanted.items() if value is not None}
    waiting = waits(wait, no_wait)
    if model and digest:
        stop("give one of --model (a folder, or hf://ORG/NAME) and --digest (of a packed snapshot), not both", USAGE)
    if not (model or digest or wanted or unset_engine_arg):
        stop(
            "give --model (a folder, or hf://ORG/NAME) or --digest (of a packed snapshot), or what is to change of an existing endpoint",
            USAGE,
        )
    deploy_endpoint(
        settings_of(state),
        name,
        model,
        wanted,
        digest=digest,
        unset=unset_engine_arg or [],
        at_once=at_once,
        wait=waiting,
        as_json=as_json,
    )


def apply(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The manifest, a TOML file; - reads it from stdin.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change; nothing is packed or sent.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a manifest, and do nothing else.")
    ] = False,
    wait: Wait = False,
    no_wait: NoWait = False,
    at_once: AtOnce = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make an endpoint what its manifest says. Applied again, it changes nothing.

    Example: pilotlight apply -f endpoint.toml --dry-run
    """
    from pilotlight.cli.endpoints.apply import apply_manifest, print_schema

    waiting = waits(wait, no_wait)
    if schema:
        print_schema()
        return
    if file is None:
        stop("give the manifest with -f endpoint.toml; --schema prints what may stand in it", USAGE)
    apply_manifest(settings_of(state), file, dry_run=dry_run, as_json=as_json, wait=waiting, at_once=at_once)


def ls(state: State = None, as_json: Json = False) -> None:
    """List the endpoints, and how each is configured.

    Example: pilotlight ls --json
    """
    from pilotlight.cli.endpoints.show import show_endpoints

    show_endpoints(settings_of(state), as_json=as_json)


def ps(state: State = None, as_json: Json = False) -> None:
    """Show what runs now: replicas, nodes, memory, disk. Of a replica: requests in work, memory, the phases of its
    start.

    Example: pilotlight ps
    """
    from pilotlight.cli.endpoints.show import show_status

    show_status(settings_of(state), as_json=as_json)


def wake(
    name: Name,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until the replica is ready or has failed. This is the default."),
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once; the start goes on.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Start a replica now, though nobody calls. It goes back to rest after the endpoint's idle timeout.

    Example: pilotlight wake demo
    """
    from pilotlight.cli.endpoints.deploy import wake_endpoint

    wake_endpoint(settings_of(state), name, wait=waits(wait, no_wait), as_json=as_json)


def pause(name: Name, state: State = None, as_json: Json = False) -> None:
    """Stop serving an endpoint without removing it. Running answers may finish, then nothing of it runs; callers get
    503 at once.

    Its keys, prices and revisions stay. It can be changed and deployed meanwhile.

    Example: pilotlight pause demo
    """
    from pilotlight.cli.endpoints.deploy import set_paused

    set_paused(settings_of(state), name, paused=True, as_json=as_json)


def resume(name: Name, state: State = None, as_json: Json = False) -> None:
    """Serve a paused endpoint again: its next call wakes it.

    Example: pilotlight resume demo
    """
    from pilotlight.cli.endpoints.deploy import set_paused

    set_paused(settings_of(state), name, paused=False, as_json=as_json)


def starts(
    name: Annotated[str | None, typer.Argument(help="Only this endpoint.", autocompletion=endpoint_names)] = None,
    limit: Annotated[int, typer.Option(help="Most rows, 1 to 1000; 1 draws its phases.")] = 20,
    since: Annotated[
        str | None, typer.Option(help="Only those begun since: 10m, 2h, 7d ago, or an ISO 8601 time.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only those begun before: 10m, 2h, 7d ago, or an ISO 8601 time.")
    ] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List past cold starts, newest first. Each with where it began (parked, standby, staged), how long it took, phase
    by phase, or why it failed.

    Example: pilotlight starts demo --limit 5
    """
    from pilotlight.cli.endpoints.show import show_cold_starts

    show_cold_starts(settings_of(state), name, limit, *span(since, until), as_json=as_json)


def events(
    name: Name,
    limit: Annotated[int, typer.Option(help="Most rows; the newest are shown.")] = 20,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List what happened to an endpoint, newest first. Deploys that served or failed, replicas that died, wrong answers
    that were caught.

    Example: pilotlight events demo
    """
    from pilotlight.cli.endpoints.show import show_events

    show_events(settings_of(state), name, limit, as_json=as_json)


def rm(name: Name, state: State = None, as_json: Json = False) -> None:
    """Remove an endpoint. Its replicas drain, its keys are revoked for good, its own prices end; usage and history
    stay.

    Deployed again, the name begins anew: default settings, no keys, the default prices.

    Example: pilotlight rm demo
    """
    from pilotlight.cli.endpoints.deploy import remove_endpoint

    remove_endpoint(settings_of(state), name, as_json=as_json)
