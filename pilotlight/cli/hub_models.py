"""`hf://org/name[@revision]` on the command line: fetched into the hub's cache, packed, and its commit kept in the
lineage.
"""

from __future__ import annotations

from pilotlight.cli.options import USAGE, say, stop
from pilotlight.cli.packing import pack_folder, progress_bar, refusals
from pilotlight.settings import Settings
from snapshots.errors import HubError
from snapshots.hub import PREFIX, Fetched, Reference, cache_folder, fetch, parse
from snapshots.lineage import Step, licence_of
from snapshots.manifest import Manifest


def reference_of(text: str) -> Reference:
    """Stops where it names no model."""
    try:
        return parse(text)
    except HubError as error:
        stop(str(error), USAGE)


def pack_from_hub(settings: Settings, text: str) -> Manifest:
    """Stops where the hub, the network, a disk or what the model is made of refuses."""
    reference = reference_of(text)
    settings.paths.make()
    with refusals(f"cannot fetch {reference}"), progress_bar("fetching") as progress:
        cache = cache_folder(settings.paths.state)
        got = fetch(reference, cache=cache, progress=progress, code=settings.snapshots.model_code)
    said = f"{reference} is commit {got.commit[:12]}, in {cache}"
    say(f"{said}: the hub was not reached, so this is what an earlier download has left" if got.offline else said)
    for line in got.left_out:
        say(line)
    return pack_folder(settings, got.folder, str(reference), _step(reference, got))


def _step(reference: Reference, got: Fetched) -> Step:
    return Step(
        origin=f"{PREFIX}{reference.repo}",
        commit=got.commit,
        licence=got.licence or licence_of(got.folder),
        left_out=got.left_out,
    )
