"""Which files of a model folder an engine reads, and why each of the others is left out. Pure.

Names, the index and `modules.json` decide. Folders that people have hold more than a model. There are a trainer's
checkpoints, the same weights a second time, other formats, the model's own code. An engine that finds weights twice
loads them twice, or never starts; so the index decides, and without one the names do. It must survive names, an index
and a `modules.json` made to deceive: only names that were given are ever chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from snapshots.errors import CodeRefused, Incomplete, PackError
from snapshots.texts import ANEW, read_json

INDEX = "model.safetensors.index.json"
MODULES = "modules.json"  # sentence-transformers' list of what follows the transformer
WEIGHTS = ".safetensors"
TAKEN = {WEIGHTS, ".json", ".jinja"}
TOKENIZERS = {"tokenizer.model", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model"}
READ_FOLDERS = {
    "additional_chat_templates",
    "whisper-large-v3",
    "speech_tokenizer",
}  # an engine looks into these, and into those of MODULES
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz"}
CODE = {".py", ".pyc", ".pyo", ".pyw", ".pyd", ".ipynb", ".so", ".dll", ".dylib", ".sh"}
TRAINING = {"trainer_state.json", "training_args.json", "optimizer.safetensors", "training_state.safetensors"}
WITH_CODE = {".py", ".tiktoken"}, {"tiktoken.model"}  # suffixes and names that only a model's own code reads

IN_FOLDERS = "in folders no engine reads"
OF_TRAINING = "what a training needs to go on"
PICKLED = "pickles, which run code when they are loaded (the safetensors are taken)"
OWN_CODE = "the model's own code, which is not run here"
TWICE = "weights that the index does not name, or a second copy"
OTHER = "text for people and other formats"

_RESULTS = re.compile(r".*(_results|_log_history)\.json")
_CHECKPOINT = re.compile(r"(checkpoint|global_step|epoch|step)[-_]?\d+", re.ASCII)
_MODULE = re.compile(r"\d{1,2}_\w+", re.ASCII)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors", re.ASCII)


@dataclass(frozen=True)
class Selection:
    """Which paths are taken, and why the others are not."""

    taken: tuple[str, ...]  # sorted
    left_out: dict[str, tuple[str, ...]]  # why → paths

    def left_out_lines(self) -> list[str]:
        """What is left out, a line for each reason, few names each."""
        return [f"left out, {why}: {_few(paths)}" for why, paths in self.left_out.items() if paths]


def select(paths: Collection[str], read: Callable[[str], bytes], *, code: bool = False) -> Selection:
    """`paths`: all below the folder, with /; `read` gives the content of the index and of `modules.json`, where there
    are such.

    `code`: a model's own code is taken, too. Raises PackError.
    """
    modules = _modules(paths, read)
    weights = _weights(paths, read)
    taken, left_out = list[str](), dict[str, list[str]]()
    for path in sorted(paths):
        why = _why_not(path, modules, weights, code)
        if why:
            left_out.setdefault(why, []).append(path)
        else:
            taken.append(path)
    _refuse_pickled_modules(paths, modules)
    return Selection(tuple(taken), {why: tuple(found) for why, found in left_out.items()})


def may_be_in_a_snapshot(path: str, *, code: bool = False) -> bool:
    """Whether packing would ever take a file of this name: asked of names that came from elsewhere."""
    name = PurePosixPath(path)
    return (
        name.suffix in TAKEN
        or name.name in TOKENIZERS
        or (code and (name.suffix in WITH_CODE[0] or name.name in WITH_CODE[1]))
    )


def _why_not(path: str, modules: set[str], weights: set[str] | None, code: bool) -> str:
    """1. Where it lies. 2. What its name says it is. 3. Of weights, the index. "": it is taken."""
    name = PurePosixPath(path)
    top = name.parts[0] if len(name.parts) > 1 else ""
    lower = name.suffix.lower()
    if top and _CHECKPOINT.fullmatch(top):  # 1
        return OF_TRAINING
    if top and top not in modules and top not in READ_FOLDERS and not (code and lower == ".py"):
        return IN_FOLDERS
    if name.name in TRAINING or _RESULTS.fullmatch(name.name):  # 2
        return OF_TRAINING
    if lower in PICKLES:
        return PICKLED
    if lower in CODE and not (code and may_be_in_a_snapshot(path, code=True)):
        return OWN_CODE
    if not may_be_in_a_snapshot(path, code=code):
        return OTHER
    if name.name.endswith(".index.json") and name.name != INDEX:
        return TWICE
    if name.name == "params.json" and not top and weights is not None:
        return OTHER
    return TWICE if weights is not None and not top and path.endswith(WEIGHTS) and path not in weights else ""  # 3


def _weights(paths: Collection[str], read: Callable[[str], bytes]) -> set[str]:
    """The weights in the folder itself: 1. those the index names, 2. model.safetensors alone, 3. one numbered set, 4.
    all but known others.
    """
    found = {path for path in paths if path.endswith(WEIGHTS) and "/" not in path}
    if INDEX in paths:  # 1
        index = read_json(read(INDEX), INDEX)
        return set(weight_map(index if isinstance(index, dict) else {}, INDEX).values())
    if "model.safetensors" in found:  # 2
        return {"model.safetensors"}
    numbered = {path for path in found if path.startswith("model-") and _SHARD.fullmatch(path)}
    if numbered:  # 3
        return numbered
    others = {path for path in found if path.startswith(("consolidated", "adapter_")) or path in TRAINING}
    return (found - others) or {path for path in found if path.startswith("consolidated")}  # 4


def weight_map(index: dict[str, Any], path: str) -> dict[str, str]:
    """Tensor → file. Raises PackError."""
    found = index.get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(shard, str) for shard in found.values()):
        raise PackError(f"{path} has no weight_map: {ANEW}")
    return found


def check_numbering(paths: Collection[str]) -> None:
    """`name-00001-of-00003.safetensors` asks for its siblings, where no index does. Raises Incomplete."""
    for path in sorted(paths):
        shard = _SHARD.fullmatch(path)
        for number in range(1, int(shard["count"]) + 1) if shard else ():
            assert shard is not None
            sibling = f"{shard['stem']}-{number:05d}-of-{shard['count']}.safetensors"
            if sibling not in paths:
                raise Incomplete(f"{sibling} is not there, but {path} is: the download is not complete, run it again")


def _modules(paths: Collection[str], read: Callable[[str], bytes]) -> set[str]:
    """Top folders of a sentence-transformers model: those `modules.json` names, and those that are named as such."""
    found = {path.split("/")[0] for path in paths if "/" in path}
    named = set[str]()
    if MODULES in paths:
        listed = read_json(read(MODULES), MODULES)
        for module in listed if isinstance(listed, list) else ():
            if isinstance(module, dict) and isinstance(module.get("path"), str):
                named.add(module["path"].split("/")[0])
    return {folder for folder in found if folder in named or _MODULE.fullmatch(folder)}


def _refuse_pickled_modules(paths: Collection[str], modules: set[str]) -> None:
    """A module whose weights are a pickle only would be passed over by an engine that must not load it, and every
    vector be another.
    """
    for module in sorted(modules):
        if f"{module}/pytorch_model.bin" in paths and f"{module}/model.safetensors" not in paths:
            raise CodeRefused(
                f"{module}/pytorch_model.bin is a pickle, which runs code when it is loaded, and {module} has no model.safetensors: "
                "load the model with sentence-transformers and save it anew (`model.save_pretrained(FOLDER)`)"
            )


def spoken(path: str) -> str:
    """A name as it may stand in a line on a terminal."""
    return (path if path.isprintable() else ascii(path))[:100]


def _few(paths: tuple[str, ...], most: int = 4) -> str:
    """Folders once each, with how many files they hold; no more than `most` names."""
    tops: dict[str, int] = {}
    for path in paths:
        head, slash, _ = path.partition("/")
        tops[head + slash] = tops.get(head + slash, 0) + 1
    names = [f"{top} ({count} files)" if top.endswith("/") and count > 1 else top for top, count in tops.items()]
    return ", ".join(spoken(name) for name in names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )
