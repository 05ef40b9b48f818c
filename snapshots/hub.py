"""A model of a hub, by name: `hf://org/name[@revision]` becomes a folder that `pack` takes. On the operator's machine.

The work is huggingface_hub's: tokens, mirrors (HF_ENDPOINT), its cache and offline mode, going on where a broken
download stopped. Ours is what comes first and what is believed. Small files are fetched before weights, so that a model
which cannot be served is refused before its gigabytes are on their way. Only files that a snapshot holds are fetched at
all, and what the hub has listed is compared with what came.

It must survive a hub that is away, refuses or lies, names made to leave the folder, and a full disk. Where the hub is
away, what its cache has is used. Each of the others is one line that says what to do.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapshots.errors import HubAway, HubError, HubRefused, StoreFull
from snapshots.hub_files import (
    Listed,
    check_before_weights,
    check_small,
    chosen,
    escaped,
    first_files,
    small_files,
    weight_files,
)
from snapshots.store.disk import FULL, free

Progress = Callable[[int, int], None]  # bytes done, bytes in all

PREFIX = "hf://"
MOST_FILES = 20_000  # of a repository, and folders; a listing without an end is none
COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
AT_ONCE = 8  # files fetched side by side


@dataclass(frozen=True)
class Reference:
    """A model of a hub, at a revision."""

    repo: str  # "org/name"
    revision: str  # a branch, a tag or a commit

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + ("" if self.revision == "main" else f"@{self.revision}")


@dataclass(frozen=True)
class Fetched:
    """A model that is in the hub's cache."""

    folder: Path  # in the hub's cache
    commit: str
    licence: str = ""
    left_out: tuple[str, ...] = ()  # what was not fetched, in words
    offline: bool = False  # the hub was not asked


def parse(text: str) -> Reference:
    """Raises HubError where it names no model, or a part of one."""
    from huggingface_hub import parse_hf_uri
    from huggingface_hub.errors import HfUriError

    wanted = "write hf://ORG/NAME or hf://ORG/NAME@REVISION"
    try:
        uri = parse_hf_uri(text)
    except (HfUriError, ValueError) as error:
        raise HubError(f"{text[:200]!r} does not name a model of a hub ({_line(error)}): {wanted}") from None
    if uri.type != "model":
        raise HubError(f"{text[:200]!r} names a {uri.type}, not a model: {wanted}")
    if uri.path_in_repo:
        raise HubError(f"{text[:200]!r} names one file of a model: {wanted}, the whole of it is needed")
    return Reference(uri.id, uri.revision or "main")


def fetch(
    reference: Reference,
    *,
    cache: Path,
    endpoint: str | None = None,
    progress: Progress | None = None,
    code: bool = False,
) -> Fetched:
    """Have the files of a model that a snapshot holds, in the hub's cache. Blocks.

    `endpoint`: a mirror; without it HF_ENDPOINT, or the hub itself. `code`: its own Python files, too. Raises HubError,
    PackError, StoreFull.

    1. Ask which commit it is, and for its files. Where the hub is away, what the cache has is used.
    2. Small files first; what they say may end it here.
    3. The weights that the index names, if there is room for them.
    """
    with _as_ours(reference, endpoint, cache):
        try:
            listed = _listed(reference, endpoint, cache)  # 1
        except _away() as error:
            return _from_cache(reference, cache, error, endpoint)
        folder = _download(reference, listed.commit, first_files(listed), cache, endpoint, None)  # 2
        selection = chosen(folder, listed, code=code)
        small, weights = small_files(selection), weight_files(selection)
        _download(reference, listed.commit, small, cache, endpoint, None)
        check_small(folder, listed, small)
        check_before_weights(folder, selection, code=code)
        _need_room(cache, folder, listed.sizes, weights)
        _download(reference, listed.commit, weights, cache, endpoint, progress)  # 3
    return Fetched(folder, listed.commit, listed.licence, tuple(selection.left_out_lines()))


def cache_folder(state: Path, shared: str = "") -> Path:
    """The cache that all programs of this user share (HF_HOME, HF_HUB_CACHE, or `shared`); one below `state` where it
    cannot be written to.
    """
    from huggingface_hub import constants

    folder = Path(shared or constants.HF_HUB_CACHE)
    return folder if folder.is_absolute() and _takes_files(folder) else state / "hub"


def _takes_files(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:  # read-only, or somebody else's
        return False


def _listed(reference: Reference, endpoint: str | None, cache: Path) -> Listed:
    """Raises what huggingface_hub raises, HubError."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, library_name="pilotlight")
    # and kept, for when the hub is away
    commit = api.resolve_revision(reference.repo, revision=reference.revision, cache_dir=cache).resolved
    if not COMMIT.fullmatch(commit):
        raise HubError(
            f"{api.endpoint} says that {reference} is commit {commit[:100]!r}, which is not one: check HF_ENDPOINT"
        )
    info = api.model_info(reference.repo, revision=commit)
    sizes, sha256, blobs = dict[str, int](), dict[str, str](), dict[str, str]()
    for number, entry in enumerate(api.list_repo_tree(reference.repo, recursive=True, revision=commit)):
        if number >= MOST_FILES:
            raise HubError(f"{reference} lists more than {MOST_FILES} files and folders: that is not a model")
        size = getattr(entry, "size", None)
        if not isinstance(size, int):
            continue  # a folder
        lfs = getattr(entry, "lfs", None)
        sizes[entry.path] = lfs.size if lfs else size
        if lfs:
            sha256[entry.path] = lfs.sha256
        else:
            blobs[entry.path] = str(getattr(entry, "blob_id", ""))
    return Listed(commit, _licence(info), sizes, sha256, blobs)


def _licence(info: Any) -> str:
    card = getattr(info, "card_data", None)
    named = card.get("license") if card is not None else None
    if named is None:
        named = next((tag.removeprefix("license:") for tag in info.tags or [] if str(tag).startswith("license:")), "")
    return ", ".join(map(str, named)) if isinstance(named, list) else str(named)[:100]


def _download(
    reference: Reference, commit: str, names: list[str], cache: Path, endpoint: str | None, progress: Progress | None
) -> Path:
    from huggingface_hub import snapshot_download

    from snapshots.hub_progress import bar_class

    return Path(
        snapshot_download(
            reference.repo,
            revision=commit,
            cache_dir=cache,
            endpoint=endpoint,
            allow_patterns=[escaped(name) for name in names],
            max_workers=AT_ONCE,
            library_name="pilotlight",
            tqdm_class=bar_class(progress),
        )
    )


def _from_cache(reference: Reference, cache: Path, why: Exception, endpoint: str | None) -> Fetched:
    """What an earlier download has left; whether it is whole, packing finds out. Raises HubAway."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            reference.repo,
            revision=reference.revision,
            cache_dir=cache,
            local_files_only=True,
            allow_patterns=["config.json"],
        )
    except LocalEntryNotFoundError:
        asked = "HF_HUB_OFFLINE says not to ask the hub: unset it"
        if not constants.HF_HUB_OFFLINE:
            asked = f"{endpoint or constants.ENDPOINT} does not answer ({_line(_first(why))}): check the network and HF_ENDPOINT"
        raise HubAway(f"{reference} is not in {cache}, and {asked}, or give the folder of the model") from None
    return Fetched(Path(folder), Path(folder).name, offline=True)


def _need_room(cache: Path, folder: Path, sizes: Mapping[str, int], weights: list[str]) -> None:
    """For what is not there yet. Raises StoreFull."""
    lacks = sum(sizes[name] for name in weights if not (folder / name).exists())
    if lacks > (left := free(cache)):
        raise StoreFull(
            f"{cache} has {left / 1e9:.2f} GB free, the weights need {lacks / 1e9:.2f} GB: make room, or set HF_HOME to another disk"
        )


def _away() -> tuple[type[Exception], ...]:
    """What says that nobody answers, as opposed to an answer that is no."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled, RevisionResolutionError

    return httpx2.TransportError, OfflineModeIsEnabled, RevisionResolutionError


@contextmanager
def _as_ours(reference: Reference, endpoint: str | None, cache: Path) -> Iterator[None]:
    """What the library, the network and the kernel refuse, as our errors; and no words of its own beside them."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = endpoint or constants.ENDPOINT
    talker = logging.getLogger("huggingface_hub")
    before = talker.level
    talker.setLevel(logging.CRITICAL)
    try:
        yield
    except GatedRepoError:
        raise HubRefused(
            f"{reference} is gated: accept its terms at {hub}/{reference.repo}, then set HF_TOKEN to a token of yours"
        ) from None
    except RevisionNotFoundError:
        raise HubRefused(
            f"{reference.repo} at {hub} has no revision {reference.revision!r}: {hub}/{reference.repo} lists them"
        ) from None
    except RepositoryNotFoundError:
        raise HubRefused(
            f"{hub} has no model {reference.repo}, or does not show it to everybody: is the name right? Set HF_TOKEN for a private one"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise HubRefused(
                f"{hub} refuses {reference} (HTTP {status}): set HF_TOKEN to a token that may read it"
            ) from None
        raise HubAway(
            f"{hub} fails on {reference} (HTTP {status}): try again; the download goes on where it stopped"
        ) from None
    except FileMetadataError as error:
        raise HubError(f"{hub} does not answer as a hub does ({_line(error)}): check HF_ENDPOINT") from None
    except _away() as error:
        raise HubAway(
            f"{hub} stopped answering ({_line(error)}): try again; the download goes on where it stopped"
        ) from None
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull(
                f"{cache} is full: make room, or set HF_HOME to another disk; the download goes on where it stopped"
            ) from None
        if error.errno is None:  # not the kernel's: the library's own
            raise HubError(f"{reference}: {_line(error)}; try again") from None
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # an answer of another shape
        raise HubError(
            f"{hub} does not answer as a hub does ({type(error).__name__}: {_line(error)}): check HF_ENDPOINT"
        ) from None
    finally:
        talker.setLevel(before)


def _first(error: BaseException) -> BaseException:
    """What an error began with: a library's own words about it may have a paragraph."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
