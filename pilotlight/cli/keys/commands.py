"""The commands about API keys: keys create, ls, revoke, rotate."""

from __future__ import annotations

from typing import Annotated

import typer

from pilotlight.cli.options import USAGE, Json, MaybeName, Name, State, duration_option, settings_of, stop

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="API keys of endpoints.\n\nExample: pilotlight keys create demo"
)

DAY = 86_400.0  # seconds: the grace of an old key unless another is given


def _key_id(key_id: str) -> str:
    """It goes into a URL, so what cannot be one ends here; a key itself, given by mistake, is not repeated."""
    if not key_id.startswith("key_") or not key_id.removeprefix("key_").isalnum():
        stop("a key's id begins with key_: `pilotlight keys ls` shows it", USAGE)
    return key_id


def _optional_key_id(key_id: str | None) -> str | None:
    return None if key_id is None else _key_id(key_id)


KeyId = Annotated[
    str,
    typer.Argument(
        help="Id of the key (key_…), as `pilotlight keys ls` shows it; its beginning is enough where only one key has it.",
        callback=_key_id,
    ),
]
RotatedId = Annotated[
    str | None,
    typer.Argument(
        help="Id of the key to rotate, or its beginning. Needed where the endpoint has several keys.",
        callback=_optional_key_id,
    ),
]


@app.command()
def create(
    name: Name,
    label: Annotated[str, typer.Option(help="What the key is for; shown in lists.")] = "",
    expires_in: Annotated[
        float | None,
        duration_option("How long until it expires: 12h, 30d, or seconds; never, unless given."),
    ] = None,
    env: Annotated[
        bool,
        typer.Option(
            "--env",
            help="Print what a shell needs for OpenAI's clients: OPENAI_BASE_URL, OPENAI_API_KEY, SSL_CERT_FILE, NODE_EXTRA_CA_CERTS.",
        ),
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make an API key for an endpoint. It is shown once, on stdout.

    `eval "$(pilotlight keys create demo --env)"`, and programs that use OpenAI's client, of any version, ask this
    endpoint.

    Example: pilotlight keys create demo --label website --expires-in 30d
    """
    from pilotlight.cli.keys.keys import create_key

    if env and as_json:
        stop("give one of --env and --json, not both", USAGE)
    create_key(settings_of(state), name, label, expires_in, as_json=as_json, as_lines=env)


@app.command()
def ls(
    name: MaybeName = None,
    live: Annotated[bool, typer.Option("--live", help="Only those that work now.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List all keys that an endpoint, or all of them, ever had. Of each key only the first and last characters are
    known.

    Example: pilotlight keys ls demo --live
    """
    from pilotlight.cli.keys.keys import list_keys

    list_keys(settings_of(state), name, live=live, as_json=as_json)


@app.command()
def revoke(key_id: KeyId, state: State = None, as_json: Json = False) -> None:
    """Make a key worthless, at once and for ever. Running answers go on.

    Example: pilotlight keys revoke key_0123456789abcdef0123
    """
    from pilotlight.cli.keys.keys import revoke_key

    revoke_key(settings_of(state), key_id, as_json=as_json)


@app.command()
def rotate(
    name: Name,
    key_id: RotatedId = None,
    grace: Annotated[
        float | None,
        duration_option(
            "How long the old key works on, beside the new one: 10m, 1h, 7d, or seconds. A day unless given.",
        ),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Revoke the old key at once: no grace.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make a new key in an old one's place. It works at once, the old one until its grace is over, so that no call
    fails.

    Example: pilotlight keys rotate demo --grace 1h
    """
    from pilotlight.cli.keys.keys import rotate_key

    rotate_key(settings_of(state), name, key_id, 0.0 if now else DAY if grace is None else grace, as_json=as_json)
