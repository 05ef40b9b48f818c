"""What vLLM would do again in every replica though the outcome is known, and how that is avoided. Step 8.

Set once in the standby, before any fork, so that replicas inherit it. vLLM's modules are changed in place through
`seams.py`, with what each saves a fork on two cores. Version 0.32 has no hook for any of these. Nothing here may change
what an engine answers; where a thing is left out, it is something our gate lets nobody reach.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from vllm.config import ModelConfig
from vllm.utils import cpu_resource_utils

from runtime.engine import seams
from runtime.engine.pages import kv_pages

PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)


def apply(device: str) -> None:
    """All of them. Call it after the rehearsal: some keep what the rehearsal found."""
    if device == "cpu":
        # Registering walks every loaded name (0.4 s); the rehearsal did it for this process and its forks.
        seams.replace("kernels of Triton", lambda register: classmethod(lambda cls: None))
        # The list of CPUs comes from a subprocess, asked twice (13 ms).
        if seams.replace("list of CPUs", functools.cache):
            cpu_resource_utils._get_cpu_list()
        seams.replace("KV cache", zeroed_by_the_kernel)
        # Seeding the CPU's generator also notes, with a stack trace, that CUDA's must be seeded later (8 ms).
        seams.replace("seed of CUDA", lambda seed_all: lambda seed: None)
        seams.replace("process groups", one_group_for_one_process)
    # The engine core configures logging anew; each of 400 loggers clears the caches of all others (120 ms).
    seams.replace("engine core's logging", lambda configure: lambda config: None)
    # vLLM freezes the heap when an engine is built: over a heap this size 0.5 s, and done by the standby.
    seams.replace("freezing the heap", lambda freeze: lambda: None)
    # Plug-ins are looked for in the metadata of every installed package, five times in a replica's two processes (17 ms
    # each).
    seams.replace("plug-ins", lambda look: look().select)
    # The generation config is read eight times (16 ms).
    seams.replace("generation config", read_once)
    # Its routes are closed by our gate; the set-up compiles the chat template four times (24 ms).
    seams.replace("routes of Anthropic", lambda merge: classmethod(lambda cls, online_renderer: False))
    load_when_asked_for()
    seams.replace("template of a processor", only_where_there_is_one)
    seams.replace("pool of tokenizers", pool_of_itself)
    seams.replace("cached tokenizer", listed_once)
    seams.replace("tokenizer's constructor", without_a_copy)


def load_when_asked_for() -> None:
    """The engine core loads a tokenizer of its own for grammars (0.35 s with 151,000 tokens): with the first request
    that has one.
    """

    def tokenizer(manager: Any) -> Any:
        if isinstance(manager._tokenizer, functools.partial):
            manager._tokenizer = manager._tokenizer()
        return manager._tokenizer

    def keep(manager: Any, later: Any) -> None:
        manager._tokenizer = later

    if seams.replace("tokenizer of grammars, when asked for", lambda nothing: property(tokenizer, keep)):
        seams.replace("tokenizer of grammars", lambda load: functools.partial(functools.partial, load))


def zeroed_by_the_kernel(allocate: Callable[..., Any]) -> Callable[..., Any]:
    """vLLM fills its KV cache with zeros, 0.5 s and more a GiB on CPU; fresh anonymous pages are zero when first
    touched.
    """

    def zeros(size: int, *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.frombuffer(kv_pages.allocate(size), dtype=dtype)

    def allocate_kv_cache(*args: Any, **kwargs: Any) -> Any:
        with seams.lent(torch, "zeros", zeros):
            return allocate(*args, **kwargs)

    return allocate_kv_cache


def one_group_for_one_process(new_group: Callable[..., Any]) -> Callable[..., Any]:
    """vLLM makes twelve process groups (22 ms); in a world of one process they are all the same group."""
    made: dict[str, Any] = {}

    def group(ranks: Any = None, timeout: Any = None, backend: Any = None, **others: Any) -> Any:
        if torch.distributed.get_world_size() > 1 or others:
            return new_group(ranks, timeout=timeout, backend=backend, **others)
        if str(backend) not in made:
            made[str(backend)] = new_group(ranks, timeout=timeout, backend=backend)
        return made[str(backend)]

    return group


def read_once(read: Callable[[ModelConfig], dict[str, Any]]) -> Callable[[ModelConfig], dict[str, Any]]:
    """By the two fields it is read from; a replica has one model. Callers change what they get: each gets a copy."""
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def generation_config(config: ModelConfig) -> dict[str, Any]:
        key = (config.model, config.generation_config)
        if key not in found:
            found[key] = read(config)
        return copy.deepcopy(found[key])

    return generation_config


def only_where_there_is_one(look: Callable[..., str | None]) -> Callable[..., str | None]:
    """Looking for a multimodal processor's template loads the tokenizer a second time (0.4 s with 151,000 tokens)."""

    def processor_chat_template(tokenizer: Any, **how: Any) -> str | None:
        folder = Path(tokenizer.name_or_path)
        if folder.is_dir() and not any((folder / name).exists() for name in PROCESSOR_FILES):
            return None
        return look(tokenizer, **how)

    return processor_chat_template


@contextlib.contextmanager
def shared(kind: type) -> Iterator[None]:
    """Who asks meanwhile for a deep copy of an object of this class gets the object."""
    deepcopy = copy.deepcopy

    def copied(it: Any, memo: dict[int, Any] | None = None) -> Any:
        return it if isinstance(it, kind) else deepcopy(it, memo)

    with seams.lent(copy, "deepcopy", copied):
        yield


def pool_of_itself(make_pool: Callable[..., Any]) -> Callable[..., Any]:
    """vLLM deals copies of a tokenizer out to threads, two made at the start (0.4 s each with 151,000 tokens).

    The first is the tokenizer itself, which nothing else uses from then on; more are made when two threads want one at
    once.
    """

    def pool(tokenizer: Any, copies: int = 1) -> Any:
        with shared(type(tokenizer)):
            return make_pool(tokenizer, 1)

    return pool


def without_a_copy(make: Callable[..., None]) -> Callable[..., None]:
    """transformers copies the tokenizer it has just read from its file for nobody else (0.12 s with 151,000 tokens)."""

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        with shared(Tokenizer):
            make(self, *args, **kwargs)

    return init


def listed_once(cache: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A tokenizer's cached form lists its whole vocabulary, again at every shallow copy (0.2 s each with 151,000
    tokens).
    """
    made: list[tuple[Any, Any]] = []  # tokenizers and their cached forms; a replica has one, or two

    def cached(tokenizer: Any) -> Any:
        for known, form in made:
            if known is tokenizer:
                again = object.__new__(type(form))
                again.__dict__.update(form.__dict__)
                return again
        form = cache(tokenizer)
        kept = object.__new__(type(form))  # what is handed out may be changed
        kept.__dict__.update(form.__dict__)
        made.append((tokenizer, kept))
        return form

    return cached
