"""How much KV cache a replica gets on CPU, for the context it serves, and what that cuts. Step 8. Pure, but for `size`.

KV bytes a token = layers × 2 × KV heads × head dimension × bytes an element (vLLM's full-attention layout). The type is
the model's, or the one that the revision's arguments name. The cache holds at least one sequence of the context that is
served (`context.py`). Where `TOKENS_A_SLOT` a slot is more, it holds that, but never more than a quarter of the
machine's memory. What a model has and a replica does not serve is no failure, but a caller must not be the one to find
it out. `cuts` says it to whoever deploys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotlight.settings import RuntimeSettings
from runtime.context import VECTORS, Context, Described, EngineArgs, amount, arguments, context, describe, overrides
from runtime.node.sizing import node_memory
from runtime.tasks import DEFAULT, KINDS, Task

TOKENS_A_SLOT = 256
BLOCK = 128  # tokens, vLLM's CPU block
ELEMENT_BYTES = 2
BYTES_OF = {
    "float32": 4,
    "float": 4,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}  # of an element, by type; all others have two
LAYERS, HEADS, KV_HEADS = (
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    ("num_attention_heads", "n_head", "n_heads"),
    ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
)  # names that configurations have for them
WIDTHS, HEAD_DIMS = ("hidden_size", "n_embd", "d_model"), ("head_dim", "kv_channels", "d_kv")


NO_CONTEXT = Context(0, 0, asked=False)


@dataclass(frozen=True)
class Sizing:
    """What a replica's cache takes, and the context it serves."""

    kv_cache_bytes: int
    max_model_len: int  # tokens; 0: as the model's config says
    context: Context = NO_CONTEXT
    token_bytes: int = 0  # of the cache; 0: not known
    wanted_bytes: int = 0  # of the cache, had the machine no end


def size(
    snapshot: Path,
    *,
    slots: int,
    settings: RuntimeSettings,
    task: Task = DEFAULT,
    engine_args: EngineArgs | None = None,
) -> Sizing:
    """Read the snapshot's config and size its cache. Raises OSError or ValueError for a config that cannot be read."""
    return decide(
        describe(snapshot),
        slots=slots,
        least_bytes=settings.kv_cache_bytes,
        max_model_len=settings.max_model_len,
        memory_bytes=node_memory(),
        task=task,
        engine_args=engine_args or {},
    )


def cache_bytes(engine_args: Mapping[str, str | int | float | bool], sizing: Sizing) -> int:
    """The KV cache a replica on CPU really gets: ours, unless its engine arguments say otherwise."""
    return amount(arguments(engine_args).get("kv-cache-memory-bytes")) or sizing.kv_cache_bytes


def decide(
    described: Described,
    *,
    slots: int,
    least_bytes: int,
    max_model_len: int,
    memory_bytes: int,
    task: Task = DEFAULT,
    engine_args: EngineArgs | None = None,
) -> Sizing:
    given = engine_args or {}
    served = context(described, task=task, engine_args=given, setting=max_model_len)
    token = token_bytes(described.config, given, task=task)
    if not token:
        return Sizing(least_bytes, served.tokens, served)
    longest = -(-served.tokens // BLOCK) + 2
    wanted = max(longest, -(-slots * TOKENS_A_SLOT // BLOCK)) * BLOCK * token
    most = max(memory_bytes // 4, longest * BLOCK * token)
    return Sizing(min(max(wanted, least_bytes), most), served.tokens, served, token, wanted)


def token_bytes(config: Mapping[str, Any], engine_args: EngineArgs, *, task: Task = DEFAULT) -> int:
    """What the cache takes of memory for each token; 0 where the configuration does not say."""
    config = {**config, **overrides(engine_args)}
    inner = config.get("text_config")
    text: Mapping[str, Any] = inner if isinstance(inner, dict) else config
    layers, heads, width = _number(text, LAYERS), _number(text, HEADS), _number(text, WIDTHS)
    head = _number(text, HEAD_DIMS) or (width // heads if heads else 0)
    return layers * 2 * (_number(text, KV_HEADS) or heads) * head * element_bytes(engine_args, task=task)


def element_bytes(engine_args: EngineArgs, *, task: Task = DEFAULT) -> int:
    """Of an element of the cache: by its own type where one is given, else by the model's."""
    given = ({"dtype": VECTORS} if KINDS[task].pools else {}) | arguments(engine_args)
    for name in ("kv-cache-dtype", "dtype"):
        kind = str(given.get(name, "auto")).lower()
        if kind != "auto":
            return BYTES_OF.get(kind, ELEMENT_BYTES)
    return ELEMENT_BYTES  # vLLM makes two bytes of a model of four


def _number(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    found = (config.get(name) for name in names)
    return next(
        (value for value in found if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 24), 0
    )


def cuts(sizing: Sizing, *, slots: int) -> list[str]:
    """What of the model a replica on CPU does not serve, and how to have it: for who deploys it."""
    notes, served = [], sizing.context
    if served.longest > served.tokens and not served.asked:
        cache = (
            f", for which a replica's cache takes {served.longest * sizing.token_bytes / 1e9:.1f} GB"
            if sizing.token_bytes
            else ""
        )
        notes.append(
            f"its context is cut to {served.tokens} of the {served.longest} tokens that the model has: engine argument "
            f"max-model-len={served.longest} gives all of it{cache}; runtime.max_model_len is for every endpoint of a node"
        )
    if sizing.wanted_bytes > sizing.kv_cache_bytes:
        notes.append(
            f"its cache holds {sizing.kv_cache_bytes // sizing.token_bytes} tokens, a quarter of the node's memory, where {slots} slots would "
            f"use {sizing.wanted_bytes // sizing.token_bytes}: long requests may wait for each other; give it fewer slots, or a larger node"
        )
    return notes


def never_fits(sizing: Sizing, *, memory_bytes: int) -> str:
    """Why no replica with this cache can ever start here; "" where one may."""
    if sizing.kv_cache_bytes <= memory_bytes:
        return ""
    return (
        f"engine argument max-model-len={sizing.context.tokens} needs a cache of {sizing.kv_cache_bytes / 1e9:.1f} GB for one request, and the "
        f"node has {memory_bytes / 1e9:.1f} GB of memory: ask for at most {max(1, memory_bytes // 2 // max(1, sizing.token_bytes))} tokens"
    )
