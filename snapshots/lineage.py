"""Where a snapshot came from, and by whom: a few lines beside it, for `pilotlight snapshot show`. Step 9.

    lineage/sha256-<64 hex>.json    in the store; newest step last

The digest names bytes, and the same bytes may come from several places. So what is said here is kept apart: it is what
somebody said, and nothing but people read it. What must survive is a file that is damaged, or was written by a later
release. The snapshot serves all the same, and `show` says what is wrong. It stays when the snapshot goes, for bills
outlive it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from pilotlight.files import write_atomic
from snapshots.errors import LineageError
from snapshots.manifest import folder_name
from snapshots.singleflight import alone
from snapshots.store.disk import digests

FOLDER = "lineage"
MOST_STEPS = 20  # the newest are kept
LARGEST_FILE = 1 << 20  # bytes
LARGEST_CARD = 64 << 10  # bytes of a README that are looked at
HUB_COMMIT = re.compile(r"[0-9a-f]{40}")
# what `hf download --local-dir` leaves: the commit on its first line
METADATA = Path(".cache/huggingface/download/config.json.metadata")

Text = Annotated[str, StringConstraints(max_length=4096)]


class Step(BaseModel):
    """One time that it was packed, or came from another store."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    how: Text = "packed"  # packed or pulled
    origin: Text  # hf://org/name, a folder, or the URL of a store
    commit: Text = ""  # of the hub's repository, where it is known
    licence: Text = ""  # as the model's authors call it
    by: Text = ""
    at: Text = ""  # ISO 8601, UTC
    left_out: tuple[Text, ...] = ()  # files of the folder that are no part of the snapshot


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format: Literal[1] = 1
    steps: tuple[Step, ...] = ()


def steps(store: Path, digest: str) -> tuple[Step, ...]:
    """Oldest first; none where nobody has told. Raises LineageError, OSError."""
    file = file_of(store, digest)
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return ()
    return parse(content, str(file))


def parse(content: bytes, name: str) -> tuple[Step, ...]:
    """Raises LineageError, which calls it `name`."""
    try:
        return _File.model_validate_json(content).steps if len(content) <= LARGEST_FILE else _too_large(name)
    except ValidationError as error:
        raise LineageError(
            f"{name} cannot be read ({error.error_count()} errors): remove it; the snapshot itself is not concerned"
        ) from None


def _too_large(name: str) -> tuple[Step, ...]:
    raise LineageError(f"{name} has more than {LARGEST_FILE} bytes: remove it; the snapshot itself is not concerned")


def remember(store: Path, digest: str, step: Step) -> None:
    """Add a step, unless it is the last one but for its moment. A file that cannot be read begins anew. Raises
    OSError.
    """
    file = file_of(store, digest)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    with alone(file.with_suffix(".lock")):
        try:
            known = steps(store, digest)
        except LineageError:
            known = ()
        if known and known[-1].model_copy(update={"at": step.at}) == step:
            return
        kept = (*known, step)[-MOST_STEPS:]
        write_atomic(file, _File(steps=kept).model_dump_json().encode())


def file_of(store: Path, digest: str) -> Path:
    """Raises NotStored where it is not a digest."""
    return store / FOLDER / f"{folder_name(digest)}.json"


def of_folder(folder: Path) -> Step:
    """What a folder says of itself: where the hub's own tools have put it there, its repository and commit. Never
    raises.
    """
    origin, commit = str(folder), ""
    cache = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cache.startswith("models--"):
        origin, commit = "hf://" + cache.removeprefix("models--").replace("--", "/"), folder.name
    else:
        first = next(_lines(folder / METADATA), "")
        commit = first if HUB_COMMIT.fullmatch(first) else ""
    return Step(origin=origin[:4096], commit=commit[:100], licence=licence_of(folder))


def licence_of(folder: Path) -> str:
    """As the front matter of its README has it; "" where there is none."""
    lines = _lines(folder / "README.md")
    if next(lines, "") != "---":
        return ""
    for line in lines:
        if line == "---":
            break
        key, colon, value = line.partition(":")
        if colon and key == "license":
            return value.strip().strip("'\"")[:100]
    return ""


def _lines(file: Path) -> Iterator[str]:
    try:
        if not file.is_file():
            return
        with file.open("rb") as stream:
            text = stream.read(LARGEST_CARD).decode("utf-8", errors="replace")
    except OSError:
        return
    yield from (line.rstrip() for line in text.splitlines())


def carry(store: Path, to: Path, digest: str) -> None:
    """What one store that is a folder tells of a snapshot, another tells too. A file that cannot be read is not
    carried. Raises OSError.
    """
    with suppress(LineageError):
        for step in steps(store, digest):
            remember(to, digest, step)


def newest_of(store: Path, origin: str) -> str:
    """The digest that was last packed from this origin, of those still in the store; "" where there is none. Raises
    OSError.
    """
    found = [("", "")]
    for digest in digests(store):
        with suppress(LineageError):  # it is another's
            found += [(step.at, digest) for step in steps(store, digest) if step.origin == origin]
    return max(found)[1]
