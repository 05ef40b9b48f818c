"""The commands that talk to an endpoint, or read what it says in its log: run, chat, logs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pilotlight.cli.options import USAGE, Json, Name, State, endpoint_names, settings_of, stop

MaxTokens = Annotated[int, typer.Option(help="Longest answer, in tokens.")]
Key = Annotated[
    str, typer.Option(envvar="PILOTLIGHT_API_KEY", help="API key; else one is made for this machine and kept a day.")
]


def register(app: typer.Typer) -> None:
    for command in (run, chat, logs):
        app.command()(command)


def run(
    name: Name,
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    max_tokens: MaxTokens = 256,
    key: Key = "",
    state: State = None,
    as_json: Json = False,
) -> None:
    """Ask an endpoint and stream its answer. A call wakes it when it is at zero.

    --json prints the whole answer at its end, with finish_reason, request_id, start (warm or cold), first_token_seconds
    and usage (tokens).

    Example: pilotlight run demo "What is Pilotlight?"
    """
    from pilotlight.cli.talk.talk import ask

    ask(settings_of(state), name, sys.stdin.read() if prompt == "-" else prompt, max_tokens, key, as_json=as_json)


def chat(
    name: Name,
    system: Annotated[str, typer.Option(help="What the model is told before everything else.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens; 0: as long as the model may.")] = 0,
    key: Key = "",
    state: State = None,
) -> None:
    """Talk with an endpoint. It remembers what was said. Ctrl-C stops an answer, Ctrl-D leaves.

    Example: pilotlight chat demo
    """
    from pilotlight.cli.talk.chat import converse

    converse(settings_of(state), name, system, max_tokens, key)


def logs(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of the endpoint, or of a process: router, activator, agent, standby, postgres …",
            autocompletion=endpoint_names,
        ),
    ],
    process: Annotated[
        bool, typer.Option("--process", help="The process, also where an endpoint has the same name.")
    ] = False,
    replica: Annotated[
        str,
        typer.Option(
            help="Only of the replica with this id, or of those whose ids begin so; `ps` and `starts` show them."
        ),
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow what is written, until Ctrl-C.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Only what was written since: 30s, 10m, 2h ago, or an ISO 8601 time.")
    ] = None,
    state: State = None,
) -> None:
    """Show what an endpoint, or a process, wrote to its log. Of an endpoint: its replicas on this machine.

    --since goes by the times in the lines; a line without one belongs to the line before it.

    Example: pilotlight logs demo -f --since 10m
    """
    from pilotlight.cli.talk.logs import show_log
    from pilotlight.cli.times import MomentError, unix_seconds

    try:
        begin = None if since is None else unix_seconds(since)
    except MomentError as error:
        stop(f"--since {error}", USAGE)
    show_log(settings_of(state), name, process=process, follow=follow, since=begin, replica=replica)
