"""How long a context a model has, by its own files, and what of it a replica serves. Step 8. Pure.

The model's say is what vLLM would make of it: the least of the lengths in its configurations, times what rotary scaling
adds. Of an embedding model it is what its authors say in sentence-transformers' files. An engine argument has the last
word, then the node's setting, then, on CPU, a bound. The cache of a long context nobody asked for must not take the
node's memory. What that cuts is reported at the deploy.

What must survive are configurations of any shape: what cannot be read counts as absent, and the engine says what is
wrong with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.argument_names import plain_name
from runtime.tasks import KINDS, Task

EngineArgs = Mapping[str, str | int | float | bool]

LONGEST_CONTEXT = 4096  # tokens, on CPU
# type on CPU of a model that pools: with two bytes its vectors are not its authors' (a cosine of 0.9998), nor sooner
# there
VECTORS = "float32"
NAMES = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
SCALED_ALREADY = {"default", "su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "dynamic"}
SENTENCE = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
LARGEST_FILE = 16 << 20  # bytes of a configuration
UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "K": 1024,
    "M": 1024**2,
    "G": 1024**3,
    "T": 1024**4,
}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)", re.ASCII)


@dataclass(frozen=True)
class Described:
    """What a snapshot's files say."""

    config: Mapping[str, Any]
    sentence: int = 0  # tokens, by sentence-transformers' files; 0: they say nothing
    tokenizer: int = 0  # tokens, by the tokenizer's; 0: it says nothing


@dataclass(frozen=True)
class Context:
    """The context that a model has, and what of it a replica serves. In tokens."""

    tokens: int  # that a replica serves
    longest: int  # that the model has; 0: it does not say
    asked: bool  # by an engine argument


def describe(snapshot: Path) -> Described:
    """Raises OSError or ValueError for a config that cannot be read."""
    config = json.loads((snapshot / "config.json").read_text())
    if not isinstance(config, dict):
        raise ValueError("config.json is not an object")
    sentence = next((found for name in SENTENCE if (found := _count(_file(snapshot / name).get("max_seq_length")))), 0)
    return Described(config, sentence, _count(_file(snapshot / "tokenizer_config.json").get("model_max_length")))


def context(described: Described, *, task: Task, engine_args: EngineArgs, setting: int) -> Context:
    """`setting`: the node's longest context on CPU; 0: none is set."""
    longest = longest_of(described, task=task, overrides=overrides(engine_args))
    asked = amount(arguments(engine_args).get("max-model-len"))
    if asked:
        return Context(asked, longest, asked=True)
    most = setting or LONGEST_CONTEXT
    return Context(min(longest or most, most), longest, asked=False)


def longest_of(described: Described, *, task: Task, overrides: Mapping[str, Any] | None = None) -> int:
    """In tokens; 0 where nobody says."""
    config = {**described.config, **(overrides or {})}
    inner = config.get("text_config")
    text: Mapping[str, Any] = {**inner, **(overrides or {})} if isinstance(inner, dict) else config
    least = min((found for name in NAMES if (found := _count(text.get(name)))), default=0)
    if KINDS[task].pools:
        if described.sentence:
            return described.sentence
        if least and described.tokenizer:
            least = min(least, described.tokenizer)
    return int(least * _rotary_factor(text)) if "gemma3" not in str(config.get("model_type")) else least


def _rotary_factor(text: Mapping[str, Any]) -> float:
    for name in ("rope_parameters", "rope_scaling"):
        scaling = text.get(name)
        if not isinstance(scaling, dict):
            continue
        kind, factor = str(scaling.get("rope_type") or scaling.get("type") or "default"), scaling.get("factor")
        if kind not in SCALED_ALREADY and isinstance(factor, int | float) and 1 <= factor <= 1000:
            return float(factor)
    return 1.0


def arguments(engine_args: EngineArgs) -> dict[str, str | int | float | bool]:
    """In one spelling."""
    return {plain_name(name): value for name, value in engine_args.items()}


def overrides(engine_args: EngineArgs) -> dict[str, Any]:
    """What `hf-overrides` changes of the configuration, as far as it does so at its top."""
    found: dict[str, Any] = {}
    for name, value in arguments(engine_args).items():
        if name == "hf-overrides":
            found |= _object(str(value))
        elif name.startswith("hf-overrides."):
            found[name.partition(".")[2]] = _json(str(value))
    return found


def amount(value: object) -> int:
    """A number of tokens as vLLM reads it: 4096, "32k" (thousands), "32K" (of 1024). 0 for what is none, and for -1 and
    auto.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0
    found = _AMOUNT.fullmatch(str(value).strip().removesuffix(".0"))
    return int(float(found[1]) * UNITS[found[2]]) if found else 0


def _count(value: object) -> int:
    """Tokenizers say 1e30 where they mean that there is no end."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1 << 31 else 0


def _file(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LARGEST_FILE:
            return {}
        return _object(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _object(text: str) -> dict[str, Any]:
    found = _json(text)
    return found if isinstance(found, dict) else {}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
