"""The commands about snapshots: snapshot pack, show, verify, ls, pin, unpin, rm, prune, push, pull, synth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pilotlight.cli.options import USAGE, Json, State, settings_of, stop

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Snapshots: verified, content-addressed copies of models.\n\nExample: pilotlight snapshot pack pilotlight://demo",
)

Digest = Annotated[str, typer.Argument(help="Digest of the snapshot, or its beginning: sha256:7db3…")]

Digests = Annotated[
    list[str],
    typer.Argument(help="Digests of snapshots, or their beginnings.", metavar="DIGEST..."),
]


def _url(url: str) -> str:
    if "://" in url and not url.startswith("s3://"):
        stop(f"{url} is not a store we know: write s3://BUCKET/PREFIX, or the path of a folder", USAGE)
    return url


Url = Annotated[
    str,
    typer.Argument(help="s3://BUCKET/PREFIX (AWS_ENDPOINT_URL names another S3 server), or a folder.", callback=_url),
]


@app.command()
def pack(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of a Hugging Face model, hf://ORG/NAME[@REVISION], which is fetched, or pilotlight://demo."
        ),
    ],
    state: State = None,
    as_json: Json = False,
) -> None:
    """Copy a model into the store, checked and named by its content. Prints the digest.

    Example: pilotlight snapshot pack hf://Qwen/Qwen3-0.6B
    """
    from pilotlight.cli.acts import noting
    from pilotlight.cli.snapshot.store import pack_to_store

    settings = settings_of(state)
    with noting(settings.paths, "snapshot.pack", model):
        pack_to_store(settings, model, as_json=as_json)


@app.command()
def show(digest: Digest, state: State = None, as_json: Json = False) -> None:
    """Show what a snapshot is, and where it came from. Origin, commit, licence, who packed it and when, every file with
    its SHA-256.

    Example: pilotlight snapshot show sha256:7db3
    """
    from pilotlight.cli.snapshot.show import show_snapshot

    show_snapshot(settings_of(state), digest, as_json=as_json)


@app.command()
def verify(digest: Digest, state: State = None, as_json: Json = False) -> None:
    """Read every byte of a snapshot and compare it with its digest.

    Example: pilotlight snapshot verify sha256:7db3
    """
    from pilotlight.cli.snapshot.store import verify_snapshot

    verify_snapshot(settings_of(state), digest, as_json=as_json)


@app.command()
def ls(state: State = None, as_json: Json = False) -> None:
    """List the snapshots in this installation's store. Those that are pinned are marked.

    Example: pilotlight snapshot ls
    """
    from pilotlight.cli.snapshot.store import list_snapshots

    list_snapshots(settings_of(state), as_json=as_json)


@app.command()
def pin(digests: Digests, state: State = None, as_json: Json = False) -> None:
    """Keep snapshots on this node. Neither they nor their baked copies go when room is made for others, until unpin.

    Example: pilotlight snapshot pin sha256:7db3
    """
    from pilotlight.cli.acts import noting
    from pilotlight.cli.snapshot.store import pin_snapshots

    settings = settings_of(state)
    with noting(settings.paths, "snapshot.pin", ", ".join(digests)):
        pin_snapshots(settings, digests, as_json=as_json)


@app.command()
def unpin(digests: Digests, state: State = None, as_json: Json = False) -> None:
    """Let pinned snapshots go again when room is needed. Removes nothing now.

    Example: pilotlight snapshot unpin sha256:7db3
    """
    from pilotlight.cli.acts import noting
    from pilotlight.cli.snapshot.store import unpin_snapshots

    settings = settings_of(state)
    with noting(settings.paths, "snapshot.unpin", ", ".join(digests)):
        unpin_snapshots(settings, digests, as_json=as_json)


@app.command()
def rm(
    digests: Digests,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also what an earlier revision had, and while the installation cannot be asked; never what serves.",
        ),
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Remove snapshots from this node, with their baked copies. What an endpoint leads to, and what is pinned, stays.

    Example: pilotlight snapshot rm sha256:7db3
    """
    from pilotlight.cli.acts import noting
    from pilotlight.cli.snapshot.prune import remove

    settings = settings_of(state)
    with noting(settings.paths, "snapshot.rm", ", ".join(digests), force=force):
        remove(settings, digests, force=force, as_json=as_json)


@app.command()
def prune(
    history: Annotated[
        bool,
        typer.Option("--history", help="Also what only earlier revisions had: a rollback to those is then impossible."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Remove all snapshots that nobody needs. No endpoint leads to them, no earlier revision had them, and nobody has
    pinned them.

    Example: pilotlight snapshot prune --dry-run
    """
    from contextlib import nullcontext

    from pilotlight.cli.acts import noting
    from pilotlight.cli.snapshot.prune import prune

    settings = settings_of(state)
    with nullcontext() if dry_run else noting(settings.paths, "snapshot.prune", "unused", history=history):
        prune(settings, history=history, dry_run=dry_run, as_json=as_json)


@app.command()
def push(digest: Digest, url: Url, state: State = None, as_json: Json = False) -> None:
    """Copy a snapshot from the store to S3 or another folder. Repeated after an interruption, it goes on.

    Example: pilotlight snapshot push sha256:7db3 s3://models/pilotlight
    """
    from pilotlight.cli.acts import noting
    from pilotlight.cli.snapshot.store import push_snapshot

    settings = settings_of(state)
    with noting(settings.paths, "snapshot.push", digest, to=url):
        push_snapshot(settings, digest, url, as_json=as_json)


@app.command()
def pull(
    url: Url,
    digest: Annotated[str, typer.Argument(help="Complete digest of the snapshot: sha256: and 64 hex digits.")],
    state: State = None,
    as_json: Json = False,
) -> None:
    """Copy a snapshot from S3 or another folder into the store. It is verified before it appears there.

    Example: pilotlight snapshot pull s3://models/pilotlight
    sha256:7db315718f606073bf5fec9e6a94b0d11a1e6e8855e11a0e191ab00001ade571
    """
    from pilotlight.cli.acts import noting
    from pilotlight.cli.snapshot.store import pull_snapshot

    settings = settings_of(state)
    with noting(settings.paths, "snapshot.pull", digest, origin=url):
        pull_snapshot(settings, url, digest, as_json=as_json)


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Folder to write the model to; it must not exist yet.")],
    like: Annotated[str, typer.Option(help="Whose shapes: tiny, qwen3-0.6b or llama3-8b.")] = "tiny",
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    as_json: Json = False,
) -> None:
    """Write a model of real shapes with random weights, for measuring.

    Example: pilotlight snapshot synth /tmp/qwen --like qwen3-0.6b
    """
    from pilotlight.cli.snapshot.store import synth_model

    synth_model(folder, like, seed, as_json=as_json)
