"""A model on its way into the store: found by its name, packed, and remembered with where it is from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pilotlight.cli.acts import who
from pilotlight.cli.model_names import OWN, folder_named, is_on_hub
from pilotlight.cli.options import explain_os_error, say
from pilotlight.cli.refusals import progress_bar, refusals
from pilotlight.settings import Settings
from snapshots.errors import NotStored
from snapshots.manifest import Manifest

if TYPE_CHECKING:
    from snapshots.lineage import Step


def pack_model(settings: Settings, model: str, *, beside: Path = Path()) -> Manifest:
    """The model's snapshot, in the store of this installation, with where it is from; stops where the model is refused.

    `model`: as `model_names.py` has them; what is on a hub is fetched. `beside`: where a relative path begins.
    """
    from snapshots.lineage import of_folder

    if is_on_hub(model):
        from pilotlight.cli.hub_models import fetch_from_hub

        return pack_folder(settings, *fetch_from_hub(settings, model))
    folder = folder_named(model, beside=beside)
    settings.paths.make()
    step = of_folder(folder.resolve())
    return pack_folder(settings, folder, str(folder), step.model_copy(update={"origin": OWN}) if model == OWN else step)


def pack_folder(settings: Settings, folder: Path, name: str, step: Step) -> Manifest:
    """Pack what is here, and keep where it is from. Stops where the folder, called `name`, is refused."""
    from snapshots.pack import pack

    notes: list[str] = []
    with refusals(f"cannot pack {name}"), progress_bar("packing") as progress:
        manifest = pack(
            folder, settings.paths.snapshots, progress, tell=notes.append, code=settings.snapshots.model_code
        )
    for line in notes:
        say(line)
    tell_origin(settings, manifest, step.model_copy(update={"left_out": (*step.left_out, *notes)}))
    return manifest


def known_of_hub(settings: Settings, text: str) -> str:
    """The digest of the last snapshot that was made of this name of a hub; else a few words. Nothing is fetched, nobody
    is asked.
    """
    from snapshots.lineage import newest_of

    origin = text.partition("@")[0]
    with refusals(f"cannot read {settings.paths.snapshots}"):
        return newest_of(settings.paths.snapshots, origin) or f"of {text}, which is not here yet"


def tell_origin(settings: Settings, manifest: Manifest, step: Step) -> None:
    """Keep where a snapshot is from, who packed it and when. A disk that does not take it costs nothing else."""
    from datetime import UTC, datetime

    from snapshots.lineage import remember

    known = step.model_copy(update={"by": who(), "at": datetime.now(UTC).isoformat(timespec="seconds")})
    try:
        remember(settings.paths.snapshots, manifest.digest, known)
    except OSError as error:
        say(f"the origin of {manifest.digest[:19]}… is not kept: {explain_os_error(error)}")


def find_snapshot(settings: Settings, digest: str) -> Manifest:
    """The manifest of a snapshot that a node can have: in the store of this installation, or at its origin. Stops where
    it is in neither.
    """
    import asyncio

    from snapshots.judging import judge_contents, judge_names
    from snapshots.manifest import MANIFEST, parse_manifest, read_manifest
    from snapshots.store.disk import path_of
    from snapshots.store.origin import connect

    async def at_origin(url: str) -> Manifest:
        async with connect(url) as origin:
            return parse_manifest(await origin.manifest(digest), digest, f"{origin.name}/{MANIFEST}")

    url, code = settings.snapshots.origin, settings.snapshots.model_code
    digest = _complete(settings, digest)
    with refusals(f"cannot use {digest[:19]}…"):
        try:
            folder = path_of(settings.paths.snapshots, digest)
        except NotStored:
            if not url:
                raise
            manifest = asyncio.run(at_origin(url))
            judge_names(manifest, code=code)  # its contents, the node that fetches it
            return manifest
        manifest = read_manifest(folder, digest)
        judge_names(manifest, code=code)
        judge_contents(folder, manifest, code=code)
        return manifest


def _complete(settings: Settings, digest: str) -> str:
    """As much of a digest as names one in the store of this installation is as good as all of it."""
    from pilotlight.cli.digests import find_digest
    from snapshots.manifest import is_digest

    return digest if is_digest(digest) else find_digest(settings.paths.snapshots, digest)
