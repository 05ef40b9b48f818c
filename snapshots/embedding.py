"""Whether an engine makes the vectors that an embedding model's authors meant, by `modules.json`. While packing. Pure.

An engine that does not know a kind of pooling, or a module after it, passes over it without a word. Every vector is
then another one: that is refused here. What a client must do for the same vectors (a prompt before each text) is
reported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from snapshots.errors import PackError
from snapshots.manifest import is_path
from snapshots.selection import MODULES
from snapshots.texts import ANEW, read_json

_ST = "sentence_transformers."
POOLING = {f"{_ST}models.Pooling", f"{_ST}sentence_transformer.modules.pooling.Pooling"}  # as vLLM knows them
NORMALIZE = {
    f"{_ST}models.Normalize", f"{_ST}base.modules.normalize.Normalize", f"{_ST}sentence_transformer.modules.normalize.Normalize",
}  # fmt: skip
DENSE = {f"{_ST}models.Dense", f"{_ST}base.modules.dense.Dense"}
NO_MATTER = ("Transformer", "Dropout")  # ends of the names of modules that change nothing after the transformer
MODES = {"cls", "mean", "lasttoken", "last"}
ORDER = ("pooling", "dense", "normalize")
REMEDY = "take another model, or remove modules.json from the folder to have the engine's own pooling"
SETTINGS = "config_sentence_transformers.json"


def is_embedding(paths: Collection[str]) -> bool:
    """Did its authors make it for vectors?"""
    return MODULES in paths


def check_modules(paths: Collection[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """`read` gives the content of one of `paths`. Returns what whoever packs should hear. Raises PackError."""
    if not is_embedding(paths):
        return ()
    modules = read_json(read(MODULES), MODULES)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise PackError(f"{MODULES} is not a list of modules: {ANEW}")
    for path in (module.get("path", "") for module in modules):
        if path != "" and not (isinstance(path, str) and is_path(path.rstrip("/"))):
            raise PackError(f"{MODULES} names {str(path)[:100]!r}, which is not a folder of the model: {ANEW}")
    kinds = [kind for module in modules if (kind := _kind(module))]
    if kinds.count("pooling") != 1:
        raise PackError(
            f"{MODULES} names {kinds.count('pooling')} poolings, and the engine knows models with one: {REMEDY}"
        )
    if sorted(kinds, key=ORDER.index) != kinds:
        raise PackError(
            f"{MODULES} has {' before '.join(kinds)}, and the engine knows them in the order {', '.join(ORDER)} only: {REMEDY}"
        )
    pooling = next(module for module in modules if _kind(module) == "pooling")
    _check_pooling(_path(pooling), paths, read)
    return _prompts(paths, read)


def _kind(module: dict[str, Any]) -> str:
    """ "": one that changes nothing. Raises PackError for one that no engine knows."""
    name = str(module.get("type", ""))
    for kind, names in (("pooling", POOLING), ("normalize", NORMALIZE), ("dense", DENSE)):
        if name in names:
            return kind
    if name.startswith(_ST) and name.rpartition(".")[2] in NO_MATTER:
        return ""
    raise PackError(
        f"{MODULES} names the module {name[:100]!r}, which the engine does not know, so that its vectors would be others: {REMEDY}"
    )


def _path(module: dict[str, Any]) -> str:
    return f"{module.get('path', '')}/config.json"


def _check_pooling(path: str, paths: Collection[str], read: Callable[[str], bytes]) -> None:
    if path not in paths:
        raise PackError(
            f"{path[:100]} is not there, and {MODULES} names it: the download is not complete, run it again"
        )
    config = read_json(read(path), path)
    config = config if isinstance(config, dict) else {}
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else [
        name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for name, on in config.items() if name.startswith("pooling_mode_") and on is True
    ]  # fmt: skip
    if len(modes) != 1 or modes[0] not in MODES:
        raise PackError(
            f"{path} asks for the pooling {' and '.join(modes)[:100] or 'of no kind'}, and the engine knows {', '.join(sorted(MODES - {'last'}))}, "
            f"one at a time; its vectors would be others: {REMEDY}"
        )


def _prompts(paths: Collection[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    found = read_json(read(SETTINGS), SETTINGS) if SETTINGS in paths else {}
    prompts = found.get("prompts") if isinstance(found, dict) else None
    if not isinstance(prompts, dict):
        return ()
    given = {str(name)[:40]: text[:100] for name, text in prompts.items() if isinstance(text, str) and text}
    usual = found.get("default_prompt_name")
    quoted = "; ".join(
        f"{name}: {text!r}" + (" (by default)" if name == usual else "") for name, text in list(given.items())[:4]
    )
    return (
        (f"its authors put a prompt before each text, which a client of the API must do itself: {quoted}",)
        if quoted
        else ()
    )
