"""A model folder on this disk: its files, those to take, and a way to open each that leads nowhere else.

It must survive a folder made to deceive, or changed under our eyes. Names are judged in `selection.py`, contents once
they are copied (`facts.py`). A file that was opened must still be a plain one inside the folder. Of a snapshot in a
Hugging Face hub cache, it must be one of that model's own blobs, with the content its name says.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from snapshots.errors import CodeRefused, Incomplete, PackError
from snapshots.other_formats import other_kind
from snapshots.selection import INDEX, MODULES, PICKLES, WEIGHTS, select
from snapshots.texts import LARGEST_TEXT, check_size

DOWNLOAD = "`hf download MODEL --local-dir FOLDER --exclude '*.bin' '*.pt' '*.pth' '*.py' 'original/*'` makes a folder that fits"
POINTER = b"version https://git-lfs"
LONGEST_POINTER = 1024  # bytes
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Source:
    """One file of a model folder, and how it is opened."""

    root: Path  # the model's folder, resolved
    path: str  # below it, with /
    size: int

    def open(self) -> BinaryIO:
        """Open the file for reading. Raises PackError, OSError."""
        stream = io.FileIO(os.open(self.root / self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), closefd=True)
        real = Path(f"/proc/self/fd/{stream.fileno()}").readlink()
        if _belongs(self.root, real) and stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return cast(BinaryIO, stream)
        stream.close()
        if not _belongs(self.root, real):
            raise CodeRefused(_link_out(self.root, self.path, real))
        raise PackError(f"{self.path} is not a plain file: remove it")

    def sha256(self) -> str | None:
        """What its content hashes to, as a hub cache says: a large file's blob is named so. None where nobody says."""
        real = (self.root / self.path).resolve()
        return real.name if real.parent == _blobs(self.root) and _SHA256.fullmatch(real.name) else None


@dataclass(frozen=True)
class ModelFolder:
    """What packing takes of a folder, and what it leaves."""

    root: Path  # resolved
    sources: tuple[Source, ...]  # the files to take, sorted by path
    left_out: tuple[str, ...]  # what is left out, in words


def look(folder: Path, *, code: bool = False) -> ModelFolder:
    """What of a folder is a model. `code`: its own Python files are taken, too. Raises PackError, OSError."""
    if not folder.is_dir():
        raise PackError(f"{folder} is not a folder: give the folder of a model in Hugging Face's format")
    root = revision_in_cache(folder.resolve())
    paths = _paths(root)
    selection = select(paths, _reader(root), code=code)
    for path in sorted(set(paths) - set(selection.taken)):
        if "/" not in path:
            _refuse_link_out(root, path)
    _refuse_incomplete(root, set(paths), set(selection.taken))
    return ModelFolder(root, tuple(_source(root, path) for path in selection.taken), tuple(selection.left_out_lines()))


def sources(folder: Path) -> list[Source]:
    """The files to take, sorted by path. Raises PackError, OSError."""
    return list(look(folder).sources)


def revision_in_cache(folder: Path) -> Path:
    """Of a model in a hub cache (`models--ORG--NAME`) the revision its main branch leads to, or the only one; any other
    as it is.

    Raises Incomplete.
    """
    snapshots = folder / "snapshots"
    if not folder.name.startswith("models--") or not snapshots.is_dir():
        return folder
    there = sorted(entry.name for entry in snapshots.iterdir() if entry.is_dir())
    main = folder / "refs" / "main"
    wanted = main.read_text(errors="replace").strip()[:64] if main.is_file() else ""
    if wanted in there or len(there) == 1:
        return snapshots / (wanted if wanted in there else there[0])
    if not there:
        raise Incomplete(f"{folder} holds no revision: the download is not complete, run it again")
    raise Incomplete(
        f"{folder} holds several revisions and no main one: give one of them, such as {snapshots / there[0]}"
    )


def _source(root: Path, path: str) -> Source:
    if not path.isprintable() or "\\" in path or path == "manifest.json":
        raise PackError(f"{path!r} is not a name a snapshot can hold: rename or remove it")
    _refuse_link_out(root, path)
    source = Source(root, path, (root / path).stat().st_size)
    with source.open() as stream:
        if source.size < LONGEST_POINTER and stream.read(len(POINTER)) == POINTER:
            raise Incomplete(
                f"{path} is a pointer of Git LFS and not the file: run `git lfs pull` in the folder, or download the model anew"
            )
    if not path.endswith(WEIGHTS):
        check_size(path, source.size)
    return source


def _reader(root: Path) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        source = _source(root, path)
        with source.open() as stream:
            return stream.read(LARGEST_TEXT)

    return read


def _refuse_incomplete(root: Path, paths: set[str], taken: set[str]) -> None:
    """What has no weights, or no config, is no model; what it is instead is told as far as names tell."""
    has_weights = INDEX in taken or any(path.endswith(WEIGHTS) and "/" not in path for path in taken)
    if has_weights and "config.json" in taken:
        return
    if kind := other_kind(paths, root):
        raise Incomplete(f"{root}: {kind}")
    raise Incomplete(
        f"{root} holds no {'config.json' if has_weights else '.safetensors file'}: {_instead(root, paths)}"
    )


def _instead(root: Path, paths: set[str]) -> str:
    inner = sorted({path.rpartition("/")[0] for path in paths if path.endswith("/config.json")})
    inner = [
        folder for folder in inner if any(path.startswith(f"{folder}/") and path.endswith(WEIGHTS) for path in paths)
    ]
    if "params.json" in paths:
        return (
            "it is in Mistral's own format (params.json): take a revision that has config.json and model-*.safetensors"
        )
    if inner and MODULES not in paths:
        return f"the model seems to lie in {shlex.quote(str(root / inner[-1]))}: give that folder"
    if any(PurePosixPath(path).suffix in PICKLES for path in paths) and not any(
        path.endswith(WEIGHTS) for path in paths
    ):
        return f"its weights are pickles, which run code when they are loaded; take a model published as safetensors; {DOWNLOAD}"
    if any(path.endswith(WEIGHTS) and "/" not in path for path in paths):
        return "it belongs beside the weights, as in the model's repository"
    return f"take a model published as safetensors; {DOWNLOAD}"


def _paths(root: Path) -> list[str]:
    """Every file below, hidden ones and folders aside; a folder that is a link within is left aside. Raises CodeRefused
    for one that leads out.
    """
    found = []
    for parent, folders, names in os.walk(root, followlinks=False):
        for name in folders:
            link = Path(parent) / name
            if link.is_symlink() and not link.resolve().is_relative_to(root):
                raise CodeRefused(
                    f"{link} is a symlink to a folder elsewhere: copy the files themselves ({_copy(root)})"
                )
        folders[:] = [name for name in folders if not name.startswith(".") and not (Path(parent) / name).is_symlink()]
        found += [str(PurePosixPath(os.path.relpath(parent, root), name)) for name in names if not name.startswith(".")]
    return found


def _refuse_link_out(root: Path, path: str) -> None:
    """Also where the file would be left out: who links out of the folder did not mean it as a model's."""
    if not (root / path).is_symlink():
        return
    try:
        real = (root / path).resolve(strict=True)
    except (OSError, RuntimeError):
        if _belongs(root, Path(os.path.normpath((root / path).parent / (root / path).readlink()))) and _blobs(root):
            raise Incomplete(
                f"{path} leads to a blob that is not in the cache: the download is not complete, run it again"
            ) from None
        raise PackError(
            f"{path} is a symlink to nothing: remove it, or get the file anew from where it came from"
        ) from None
    if not _belongs(root, real):
        raise CodeRefused(_link_out(root, path, real))


def _belongs(root: Path, real: Path) -> bool:
    """Is it in the folder, or a blob of the very model whose revision in a hub cache the folder is?"""
    return real.is_relative_to(root) or (real.parent == _blobs(root) and _BLOB.fullmatch(real.name) is not None)


def _blobs(root: Path) -> Path | None:
    """Where the files of a revision in a hub cache really lie: `models--ORG--NAME/blobs`; None for any other folder."""
    model = root.parent.parent
    return model / "blobs" if root.parent.name == "snapshots" and model.name.startswith("models--") else None


def _copy(root: Path) -> str:
    return f"`cp -rL {shlex.quote(str(root))} ELSEWHERE`"


def _link_out(root: Path, path: str, real: Path) -> str:
    return f"{path} is a symlink out of the folder, to {real}: copy the files themselves ({_copy(root)})"
