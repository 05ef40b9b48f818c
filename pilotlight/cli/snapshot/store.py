"""What the snapshot commands do, on the store of this installation; no process of it needs to run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pilotlight.cli.digests import find_digest, the_one
from pilotlight.cli.options import USAGE, print_json, say, stop
from pilotlight.cli.packing import pack_model, tell_origin
from pilotlight.cli.refusals import progress_bar, refusals
from pilotlight.cli.tables import Table, show
from pilotlight.settings import Settings
from pilotlight.sizes import human
from snapshots.errors import SnapshotError
from snapshots.lineage import Step, carry
from snapshots.manifest import Manifest, folder_name, is_digest, read_manifest
from snapshots.pins import pin, pinned, unpin
from snapshots.store.disk import digests, path_of
from snapshots.store.origin import folder_of


def pack_to_store(settings: Settings, model: str, *, as_json: bool) -> None:
    _print(pack_model(settings, model), as_json=as_json)


def verify_snapshot(settings: Settings, text: str, *, as_json: bool) -> None:
    from snapshots.verify import verify

    with refusals(f"cannot verify {text}"):
        manifest = verify(path_of(settings.paths.snapshots, find_digest(settings.paths.snapshots, text)))
    say(f"every byte is what the digest says: {len(manifest.files)} files, {human(manifest.size)}")
    _print(manifest, as_json=as_json)


def list_snapshots(settings: Settings, *, as_json: bool) -> None:
    store = settings.paths.snapshots
    with refusals(f"cannot read {store}"):
        stay = pinned(settings.paths.staged)
        found = [{**_row(settings, digest), "pinned": digest in stay} for digest in digests(store)]
        here = {row["digest"] for row in found}
        found += [{"digest": digest, "error": "not here yet", "pinned": True} for digest in sorted(stay - here)]
    if as_json:
        print_json(found)
        return
    rows = Table("digest", "architecture", "dtype", "tensors", "size", "baked", "pinned")
    for row in found:
        keeps = "pinned" if row["pinned"] else ""
        if "error" in row:
            rows.add_row(row["digest"], row["error"], "", "", "", "", keeps)
        else:
            sizes = human(row["bytes"]), human(row["baked_bytes"])
            rows.add_row(row["digest"], row["architecture"], row["dtype"], str(row["tensors"]), *sizes, keeps)
    show(rows, nothing=f"no snapshot in {store} yet: pilotlight snapshot pack MODEL, or deploy one")


def _row(settings: Settings, digest: str) -> dict[str, Any]:
    try:
        baked = settings.paths.baked / folder_name(digest)
        on_disk = sum(file.stat().st_size for file in baked.glob("*.safetensors"))
        manifest = read_manifest(path_of(settings.paths.snapshots, digest), digest)
    except (SnapshotError, OSError) as error:
        return {"digest": digest, "error": f"damaged: {error}"}
    return {**described(manifest), "baked_bytes": on_disk}


def pin_snapshots(settings: Settings, texts: list[str], *, as_json: bool) -> None:
    """A whole digest may be of a snapshot that is not here yet: it is kept from when it is fetched."""
    store = settings.paths.snapshots
    with refusals("cannot pin"):
        found = [text if is_digest(text) else find_digest(store, text) for text in texts]
        settings.paths.make()
        for digest in found:
            pin(settings.paths.staged, digest)
    _say_pinned(found, stays=True, as_json=as_json)


def unpin_snapshots(settings: Settings, texts: list[str], *, as_json: bool) -> None:
    node_dir = settings.paths.staged
    with refusals("cannot unpin"):
        stay = pinned(node_dir)
        found = [the_one(text, stay, "pinned snapshot", node_dir) for text in texts]
        for digest in found:
            unpin(node_dir, digest)
    _say_pinned(found, stays=False, as_json=as_json)


def _say_pinned(found: list[str], *, stays: bool, as_json: bool) -> None:
    if as_json:
        print_json([{"digest": digest, "pinned": stays} for digest in found])
        return
    for digest in found:
        print(digest)
    say(
        "pinned: it stays on this node"
        if stays
        else "not pinned any more: it is removed when room is needed and nothing uses it"
    )


def push_snapshot(settings: Settings, text: str, url: str, *, as_json: bool) -> None:
    from snapshots.transfer import push

    store = settings.paths.snapshots
    with refusals(f"cannot push {text} to {url}"):
        digest = find_digest(store, text)
        with progress_bar("pushing") as progress:
            asyncio.run(push(store, digest, url, progress))
        if not url.startswith("s3://"):
            carry(store, folder_of(url), digest)
        say(f"{digest[:19]}… is at {url}")
        _print(read_manifest(path_of(store, digest), digest), as_json=as_json)


def pull_snapshot(settings: Settings, url: str, digest: str, *, as_json: bool) -> None:
    from snapshots.transfer import pull

    if not is_digest(digest):
        stop(f"{digest!r} is not a complete digest: write sha256: and 64 hex digits", USAGE)
    settings.paths.make()
    store = settings.paths.snapshots
    with refusals(f"cannot pull {digest[:19]}… from {url}"):
        with progress_bar("pulling") as progress:
            asyncio.run(pull(url, digest, store, progress, code=settings.snapshots.model_code))
        if not url.startswith("s3://"):
            carry(folder_of(url), store, digest)
        manifest = read_manifest(path_of(store, digest), digest)
    tell_origin(settings, manifest, Step(how="pulled", origin=url))
    _print(manifest, as_json=as_json)


def synth_model(folder: Path, like: str, seed: int, *, as_json: bool) -> None:
    from snapshots.synth import LIKE, synth

    if like not in LIKE:
        stop(f"--like {like}: it is one of {', '.join(LIKE)}", USAGE)
    if folder.exists():
        stop(f"{folder} is there already: choose another folder, so that nothing is overwritten")
    with refusals(f"cannot write {folder}"), progress_bar("writing") as progress:
        synth(like, folder, seed=seed, progress=progress)
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if as_json:
        print_json({"folder": str(folder), "like": like, "seed": seed, "bytes": written})
        return
    print(folder)
    say(f"{human(written)} of random weights, shaped like {like}; next: pilotlight deploy NAME --model {folder}")


def described(manifest: Manifest) -> dict[str, Any]:
    return {
        "digest": manifest.digest,
        "architecture": manifest.architecture,
        "dtype": manifest.dtype,
        "tensors": manifest.tensors,
        "bytes": manifest.size,
        "files": len(manifest.files),
    }


def _print(manifest: Manifest, *, as_json: bool) -> None:
    if as_json:
        print_json(described(manifest))
    else:
        print(manifest.digest)
