"""What came from elsewhere, held to what packing would have taken: names before a fetch, contents before use. Step 9.

A digest says that bytes are the ones somebody meant, not that they are fit to serve. A manifest made by other hands may
name code, pickles, or weights that are not weights. It must survive all of these, on a node and on the command line,
and refuse them by name.
"""

from __future__ import annotations

from pathlib import Path

from snapshots.errors import CodeRefused, Incomplete, PackError
from snapshots.facts import find_facts
from snapshots.manifest import Manifest
from snapshots.safetensors_header import LENGTH_BYTES, header_length
from snapshots.selection import INDEX, WEIGHTS, may_be_in_a_snapshot
from snapshots.texts import check_size

PACK_ANEW = "pack the model anew from its folder"


def judge_names(manifest: Manifest, *, code: bool = False) -> None:
    """`code`: a model's own may run here. Raises CodeRefused, Incomplete, PackError."""
    paths = [file.path for file in manifest.files]
    if wrong := next((path for path in paths if not may_be_in_a_snapshot(path, code=code)), None):
        allow = (
            ", or let code of models run on this machine (snapshots.model_code)"
            if may_be_in_a_snapshot(wrong, code=True)
            else ""
        )
        raise CodeRefused(
            f"it holds {wrong[:200]!r}, which packing never takes: nothing of it is fetched or served; {PACK_ANEW}{allow}"
        )
    for file in manifest.files:
        if not file.path.endswith(WEIGHTS):
            check_size(file.path, file.size)
    if "config.json" not in paths or not any(path.endswith(WEIGHTS) for path in paths):
        raise Incomplete(f"it holds no config.json or no {WEIGHTS} file: it is not a snapshot of a model; {PACK_ANEW}")
    doubled = [path for path in paths if path.startswith("consolidated") and path.endswith(WEIGHTS)]
    if doubled and (INDEX in paths or "model.safetensors" in paths):
        raise PackError(
            f"it holds {doubled[0]} beside the model's other weights, which an engine would read instead: {PACK_ANEW}"
        )


def judge_contents(
    folder: Path, manifest: Manifest, *, code: bool = False, begun: bool = False, twice: bool = True
) -> None:
    """`begun`: who waits is not kept waiting by what can be looked at later. `twice`: the weights are there, not their
    tables alone.

    Raises HeaderError, PackError, OSError.
    """
    facts = find_facts(folder, [file.path for file in manifest.files], code=code, begun=begun, twice=twice)
    claimed = manifest.architecture, manifest.tensors, manifest.tensor_bytes
    if (facts.architecture, facts.tensors, facts.tensor_bytes) != claimed:
        raise PackError(
            f"its manifest says {claimed[0][:100]!r}, {claimed[1]} tensors of {claimed[2]} bytes, its files say {facts.architecture!r}, "
            f"{facts.tensors} of {facts.tensor_bytes}: {PACK_ANEW}"
        )


def tables_within(folder: Path, manifest: Manifest, length: int) -> bool:
    """Whether the table of every file of weights lies within its first `length` bytes. Raises HeaderError, OSError."""
    for file in manifest.files:
        if file.path.endswith(WEIGHTS):
            with (folder / file.path).open("rb") as stream:
                if LENGTH_BYTES + header_length(stream.read(LENGTH_BYTES), file.size) > length:
                    return False
    return True
