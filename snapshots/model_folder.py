"""Which files of a Hugging Face model folder make up a snapshot, and which are a reason to refuse the folder.

Data is taken (weights as safetensors, JSON, tokenizers, chat templates), text for people and formats of other engines are
left out, and whatever could run is refused rather than left out, so that nobody believes it was served. It must survive
a folder made to deceive, or changed under our eyes: names are judged here, contents once they are copied (`facts.py`), and
a file that was opened must still be a plain one inside the folder.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from snapshots.errors import CodeRefused, Incomplete, PackError

TOKENIZERS = {"tokenizer.model", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model"}
TAKEN = {".safetensors", ".json", ".jinja"}
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz"}
CODE = {".py", ".pyc", ".pyo", ".pyw", ".pyd", ".ipynb", ".so", ".dll", ".dylib", ".sh"}
DOWNLOAD = "`hf download MODEL --local-dir FOLDER --exclude '*.bin' '*.pt' '*.pth' '*.py' 'original/*'` makes a folder that fits"
_LINK_OUT = "{path} is a symlink out of the folder, to {real}: copy the files themselves (`cp -rL {root} ELSEWHERE`)"


@dataclass(frozen=True)
class Source:
    root: Path  # the model's folder, resolved
    path: str  # below it, with /
    size: int

    def open(self) -> BinaryIO:
        """Open the file for reading. Raises PackError, OSError."""
        stream = io.FileIO(os.open(self.root / self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), closefd=True)
        real = Path(f"/proc/self/fd/{stream.fileno()}").readlink()
        if real.is_relative_to(self.root) and stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return cast(BinaryIO, stream)
        stream.close()
        if not real.is_relative_to(self.root):
            raise CodeRefused(_LINK_OUT.format(path=self.path, real=real, root=self.root))
        raise PackError(f"{self.path} is no plain file: remove it")


def sources(folder: Path) -> list[Source]:
    """The files to take, sorted by path. Raises PackError, OSError."""
    if not folder.is_dir():
        raise PackError(f"{folder} is no folder: give the folder of a model in Hugging Face's format")
    root, taken = folder.resolve(), []
    for path in _paths(root):
        _refuse_code(path)
        _refuse_link_out(root, path)
        if (path.suffix not in TAKEN and path.name not in TOKENIZERS) or path.name.endswith(".bin.index.json"):
            continue
        if not str(path).isprintable() or "\\" in str(path) or str(path) == "manifest.json":
            raise PackError(f"{str(path)!r} is no name a snapshot can hold: rename or remove it")
        source = Source(root, str(path), (root / path).stat().st_size)
        source.open().close()
        taken.append(source)
    paths = {source.path for source in taken}
    if not any(path.endswith(".safetensors") for path in paths):
        raise Incomplete(f"{folder} holds no .safetensors file: take a model published as safetensors; {DOWNLOAD}")
    if "config.json" not in paths:
        raise Incomplete(f"{folder} holds no config.json: it belongs beside the weights, as in the model's repository")
    return sorted(taken, key=lambda source: source.path)


def _paths(root: Path) -> list[PurePosixPath]:
    """Every file below, hidden ones and folders aside. Raises CodeRefused for a symlink to a folder."""
    found = []
    for parent, folders, names in os.walk(root, followlinks=False):
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise CodeRefused(f"{Path(parent) / name} is a symlink to a folder: copy the files themselves (`cp -rL {root} ELSEWHERE`)")
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [PurePosixPath(os.path.relpath(parent, root), name) for name in names if not name.startswith(".")]
    return found


def _refuse_code(path: PurePosixPath) -> None:
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise CodeRefused(
            f"{path} is (or may be) a pickle, which runs code when it is loaded: remove it, only safetensors are served; {DOWNLOAD}"
        )
    if suffix in CODE:
        raise CodeRefused(f"{path} is code: remove it, if the model works without; a snapshot is data only. {DOWNLOAD}")


def _refuse_link_out(root: Path, path: PurePosixPath) -> None:
    """Also where the file would be left out: who links out of the folder did not mean it as a model's."""
    if not (root / path).is_symlink():
        return
    try:
        real = (root / path).resolve(strict=True)
    except (OSError, RuntimeError):
        raise PackError(f"{path} is a symlink to nothing: remove it, or get the file anew from where it came from") from None
    if not real.is_relative_to(root):
        raise CodeRefused(_LINK_OUT.format(path=path, real=real, root=root))
