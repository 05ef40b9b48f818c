"""Which files of a repository on a hub are fetched, and what must be refused before its weights are. Beside `hub.py`.

They are those that packing takes (`selection.py`), chosen by their names before they are here. Names come from outside:
those that a snapshot could not hold are passed over, whatever they are. Small files come before weights, because they
say whether these are worth fetching. An adapter, an architecture nobody knows, or a model whose code would have to run
costs a few kilobytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from snapshots.errors import HubError, Incomplete
from snapshots.facts import check_documents, read_documents
from snapshots.manifest import is_path
from snapshots.other_formats import ADAPTER, PICKLED, refuse_other_formats
from snapshots.selection import INDEX, MODULES, PICKLES, WEIGHTS, Selection, select, weight_map

LARGEST_SMALL = 256 << 20  # bytes of a file that is no weights; a tokenizer of a large vocabulary has 40 MB
ASKED_FIRST = (INDEX, MODULES, "config.json", ADAPTER)  # they say what it is, and which of the others are wanted


@dataclass(frozen=True)
class Listed:
    """What a hub says of one commit."""

    commit: str
    licence: str
    sizes: Mapping[str, int]  # bytes, by path
    sha256: Mapping[str, str]  # of large files
    blobs: Mapping[str, str]  # git's own hash, of the rest


def first_files(listed: Listed) -> list[str]:
    """At least one. Raises Incomplete, HubError."""
    found = [path for path in ASKED_FIRST if path in listed.sizes]
    if not found:
        refuse_other_formats(listed.sizes, Path())
        raise Incomplete("it holds no config.json: it is not a model in Hugging Face's format")
    _refuse_huge(found, listed)
    return found


def _refuse_huge(paths: list[str], listed: Listed) -> None:
    if huge := next((path for path in paths if listed.sizes[path] > LARGEST_SMALL), None):
        raise HubError(
            f"{huge} has {listed.sizes[huge] / 1e9:.1f} GB, which no file of that kind has: is it the right model?"
        )


def chosen(folder: Path, listed: Listed, *, code: bool = False) -> Selection:
    """Once the first files are in `folder`, of which an adapter's is enough. Raises PackError, HubError."""
    check_small(folder, listed, first_files(listed))
    names = [path for path in listed.sizes if is_path(path)]
    refuse_other_formats(names, folder)
    selection = select(names, _reader(folder), code=code)
    index = weight_map(read_documents(folder, [INDEX], code=True)[INDEX], INDEX) if INDEX in listed.sizes else {}
    if missing := sorted(set(index.values()) - set(names)):
        raise Incomplete(f"{INDEX} needs {missing[0][:100]}, which the hub does not have: the model is not whole there")
    if not any(path.endswith(WEIGHTS) for path in selection.taken):
        pickled = any(PurePosixPath(path).suffix in PICKLES for path in names)
        raise Incomplete(
            f"it holds no .safetensors file: {PICKLED if pickled else 'take a model published as safetensors'}"
        )
    _refuse_huge([path for path in small_files(selection) if path in listed.sizes], listed)
    return selection


def _reader(folder: Path) -> Callable[[str], bytes]:
    return lambda path: (folder / path).read_bytes()


def small_files(selection: Selection) -> list[str]:
    return [path for path in selection.taken if not path.endswith(WEIGHTS)]


def weight_files(selection: Selection) -> list[str]:
    return [path for path in selection.taken if path.endswith(WEIGHTS)]


def check_small(folder: Path, listed: Listed, paths: list[str]) -> None:
    """Is what came what was listed? Weights are compared when they are packed. Raises HubError."""
    for path in paths:
        content = (folder / path).read_bytes()
        expected = listed.sha256.get(path)
        came = hashlib.sha256(content).hexdigest() if expected else git_hash(content)
        if came != (expected or listed.blobs.get(path)):
            raise HubError(
                f"{path} is not what the hub lists: remove {(folder / path).resolve()} and try again; if it stays so, trust this hub not"
            )


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def check_before_weights(folder: Path, selection: Selection, *, code: bool = False) -> None:
    """What its texts alone rule out. Raises PackError."""
    if "config.json" not in selection.taken:
        raise Incomplete("it holds no config.json: it is not a model in Hugging Face's format")
    small = small_files(selection)
    check_documents(folder, small, read_documents(folder, small, code=code), [], code=code)


def escaped(name: str) -> str:
    """A name as a pattern that means it alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)
