"""The commands about API keys: keys create, ls, revoke, rotate."""

from __future__ import annotations

from typing import Annotated

import typer

from pilotlight.cli.options import USAGE, Json, Name, State, settings_of, stop

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API keys of an endpoint.\n\nExample: pilotlight keys create demo")


def _key_id(key_id: str) -> str:
    """It goes into a URL, so what cannot be one ends here; a key itself, given by mistake, is not repeated."""
    if not key_id.startswith("key_") or not key_id.removeprefix("key_").isalnum():
        stop("a key's id begins with key_: `pilotlight keys ls NAME` shows it", USAGE)
    return key_id


KeyId = Annotated[str, typer.Argument(help="Id of the key (key_…), as `pilotlight keys ls NAME` shows it.", callback=_key_id)]


@app.command()
def create(
    name: Name,
    label: Annotated[str, typer.Option(help="What the key is for; shown in lists.")] = "",
    expires_in: Annotated[float | None, typer.Option(help="Seconds until it expires; never, unless given.")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make an API key for an endpoint. It is shown once, on stdout.

    Example: pilotlight keys create demo --label website --expires-in 86400
    """
    from pilotlight.cli.keys import create_key

    create_key(settings_of(state), name, label, expires_in, as_json=as_json)


@app.command()
def ls(name: Name, state: State = None, as_json: Json = False) -> None:
    """All keys an endpoint ever had: their ends, labels and whether they still work; never the keys themselves.

    Example: pilotlight keys ls demo
    """
    from pilotlight.cli.keys import list_keys

    list_keys(settings_of(state), name, as_json=as_json)


@app.command()
def revoke(key_id: KeyId, state: State = None, as_json: Json = False) -> None:
    """Make a key worthless, at once and for ever. Answers that run go on.

    Example: pilotlight keys revoke key_0123456789abcdef0123
    """
    from pilotlight.cli.keys import revoke_key

    revoke_key(settings_of(state), key_id, as_json=as_json)


@app.command()
def rotate(
    name: Name,
    key_id: KeyId,
    now: Annotated[
        bool, typer.Option("--now", help="Revoke the old key at once; else both work, and the command to do it is shown.")
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make a new key with an old one's label. The old one works on until you revoke it, so that no call fails.

    Example: pilotlight keys rotate demo key_0123456789abcdef0123
    """
    from pilotlight.cli.keys import rotate_key

    rotate_key(settings_of(state), name, key_id, now=now, as_json=as_json)
