"""`hf://org/name[@revision]` on the command line: the model is fetched into the cache, and its commit is kept."""

from __future__ import annotations

from pathlib import Path

from pilotlight.cli.options import USAGE, say, stop
from pilotlight.cli.refusals import progress_bar, refusals
from pilotlight.settings import Settings
from snapshots.errors import HubError
from snapshots.hub import PREFIX, Fetched, Reference, cache_folder, fetch, parse
from snapshots.lineage import Step, licence_of


def reference_of(text: str) -> Reference:
    """Stops where it names no model."""
    try:
        return parse(text)
    except HubError as error:
        stop(str(error), USAGE)


def fetch_from_hub(settings: Settings, text: str) -> tuple[Path, str, Step]:
    """(folder, name, where it is from) of a model, ready to be packed. Stops where the hub, the network or a disk
    refuses.
    """
    reference = reference_of(text)
    settings.paths.make()
    with refusals(f"cannot fetch {reference}"), progress_bar("fetching") as progress:
        cache = cache_folder(settings.paths.state)
        got = fetch(reference, cache=cache, progress=progress, code=settings.snapshots.model_code)
    said = f"{reference} is commit {got.commit[:12]}, in {cache}"
    say(f"{said}: the hub was not reached, so an earlier download is used" if got.offline else said)
    for line in got.left_out:
        say(line)
    return got.folder, str(reference), _step(reference, got)


def _step(reference: Reference, got: Fetched) -> Step:
    return Step(
        origin=f"{PREFIX}{reference.repo}",
        commit=got.commit,
        licence=got.licence or licence_of(got.folder),
        left_out=got.left_out,
    )
