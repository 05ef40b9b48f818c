"""What the snapshot commands do, on the store of this installation; no process of it needs to run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pilotlight.cli.options import USAGE, print_json, say, stop
from pilotlight.cli.packing import pack_model, progress_bar, refusals
from pilotlight.cli.show import console, size, table
from pilotlight.settings import Settings
from snapshots.errors import SnapshotError
from snapshots.manifest import Manifest, folder_name, is_digest, read_manifest
from snapshots.store.disk import digests, path_of


def pack_folder(settings: Settings, folder: Path, *, as_json: bool) -> None:
    _print(pack_model(settings, folder), as_json=as_json)


def verify_snapshot(settings: Settings, text: str, *, as_json: bool) -> None:
    from snapshots.verify import verify

    with refusals(f"cannot verify {text}"):
        manifest = verify(path_of(settings.paths.snapshots, find_digest(settings.paths.snapshots, text)))
    say(f"every byte is what the digest says: {len(manifest.files)} files, {size(manifest.size)}")
    _print(manifest, as_json=as_json)


def list_snapshots(settings: Settings, *, as_json: bool) -> None:
    store = settings.paths.snapshots
    found: list[dict[str, Any]] = []
    with refusals(f"cannot read {store}"):
        for digest in digests(store):
            try:
                baked = settings.paths.baked / folder_name(digest)
                on_disk = sum(file.stat().st_size for file in baked.glob("*.safetensors"))
                found.append({**described(read_manifest(path_of(store, digest), digest)), "baked_bytes": on_disk})
            except (SnapshotError, OSError) as error:
                found.append({"digest": digest, "error": str(error)})
    if as_json:
        print_json(found)
        return
    rows = table("digest", "architecture", "dtype", "tensors", "size", "baked")
    for row in found:
        if "error" in row:
            rows.add_row(row["digest"], f"damaged: {row['error']}")
        else:
            rows.add_row(
                row["digest"], row["architecture"], row["dtype"], str(row["tensors"]), size(row["bytes"]), size(row["baked_bytes"])
            )
    console().print(rows)


def push_snapshot(settings: Settings, text: str, url: str, *, as_json: bool) -> None:
    from snapshots.transfer import push

    store = settings.paths.snapshots
    with refusals(f"cannot push {text} to {url}"):
        digest = find_digest(store, text)
        with progress_bar("pushing") as progress:
            asyncio.run(push(store, digest, url, progress))
        say(f"{digest[:19]}… is at {url}")
        _print(read_manifest(path_of(store, digest), digest), as_json=as_json)


def pull_snapshot(settings: Settings, url: str, digest: str, *, as_json: bool) -> None:
    from snapshots.transfer import pull

    if not is_digest(digest):
        stop(f"{digest!r} is no whole digest: write sha256: and 64 hex digits", USAGE)
    settings.paths.make()
    store = settings.paths.snapshots
    with refusals(f"cannot pull {digest[:19]}… from {url}"):
        with progress_bar("pulling") as progress:
            asyncio.run(pull(url, digest, store, progress))
        _print(read_manifest(path_of(store, digest), digest), as_json=as_json)


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
    say(f"{size(written)} of random weights, shaped like {like}; next: pilotlight deploy NAME --model {folder}")


def find_digest(store: Path, text: str) -> str:
    """A digest given whole or as a beginning that names one; stops where it names none or several."""
    wanted = text.lower().replace("sha256-", "sha256:")
    wanted = wanted if wanted.startswith("sha256:") else f"sha256:{wanted}"
    found = [digest for digest in digests(store) if digest.startswith(wanted)]
    if not found:
        stop(f"no snapshot {text} in {store}: `pilotlight snapshot ls` shows what is there")
    if len(found) > 1:
        stop(f"{text} names {len(found)} snapshots: give more of the digest")
    return found[0]


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
