"""The only place that assigns into vLLM, torch, transformers or CPython: the table of seams. Step 8.

None of these promises its inner names. So each seam is written down with the parameters it had when it was tested, who
relies on it, and what is lost without it. It is checked before it is replaced, and counts how often it was gone
through. A seam that does not fit any more is left out where it only saves time or memory, and the phase `init` says so.
One that bills, isolates or starts the engine at all raises `SeamBroken`, which ends the start with its reason.

What must survive is a seam that still fits and is never gone through: the test starts an engine and reads the counters.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

VALUE, NEW = "a value", "nothing"  # instead of parameters: no function; nothing was there
LARGEST = 8  # bytes of a counter


class SeamBroken(RuntimeError):
    """What Pilotlight cannot do without is not there in this version of the engine."""


@dataclass(frozen=True)
class Seam:
    """One place in another library that is replaced, as it was when it was tested."""

    module: str
    attribute: str
    parameters: str  # names in order, "=" with a default; VALUE or NEW
    must: bool  # False: it only saves time
    device: Literal["", "cpu", "cuda"]  # where it is used; "": everywhere
    relies: str  # modules of runtime/engine
    without: str

    def owner(self) -> tuple[Any, str]:
        """What has it, and under which name. Raises ImportError, AttributeError."""
        owner = importlib.import_module(self.module)
        *path, name = self.attribute.split(".")
        for part in path:
            owner = getattr(owner, part)
        return owner, name

    def differs(self) -> str:
        """How it is otherwise than written down; "" where it is not."""
        try:
            owner, name = self.owner()
        except (ImportError, AttributeError) as error:
            return str(error)
        found = shape(getattr(owner, name)) if hasattr(owner, name) else NEW
        return "" if found == self.parameters else f"takes ({found}), took ({self.parameters})"


SEAMS: dict[str, Seam] = {
    "engine core process": Seam(
        "vllm.v1.engine.core", "EngineCoreProc.run_engine_core", "*args, dp_rank=, local_dp_rank=, **kwargs",
        True, "", "engine_core", "one compute thread, no end with its parent, no word of why it failed",
    ),
    "engine step": Seam(
        "vllm.v1.engine.core", "EngineCoreProc._process_engine_step", "self",
        True, "", "engine_core", "steps are not counted, so a hung engine is not seen; mapped layers are never packed",
    ),
    "engine core's wait": Seam(
        "vllm.v1.engine.core", "EngineCoreProc._process_input_queue", "self",
        True, "cuda", "graphs", "graphs that were put off are never captured",
    ),
    "give back": Seam(
        "vllm.v1.engine.core", "EngineCoreProc.pilotlight_give_back", NEW,
        True, "", "parking", "a parked replica keeps its memory",
    ),
    "engine core's logging": Seam(
        "vllm.v1.engine.core", "configure_logging", "config",
        False, "", "patches", "0.12 s of a start",
    ),
    "freezing the heap": Seam(
        "vllm.v1.engine.core", "freeze_gc_heap", "",
        False, "", "patches", "0.5 s of a start",
    ),
    "executor": Seam(
        "vllm.v1.executor.abstract", "Executor.get_class", "vllm_config",
        False, "cpu", "engine_core", "one process more for each replica, 0.3 s of a start",
    ),
    "load": Seam(
        "vllm.v1.worker.gpu_worker", "Worker.load_model", "self, *, load_dummy_weights=",
        True, "", "engine_core", "nobody hears that weights are loaded, and room stays promised",
    ),
    "capture by name": Seam(
        "vllm.v1.worker.gpu_worker", "Worker.pilotlight_capture_graphs", NEW,
        True, "cuda", "graphs", "graphs that were put off are never captured",
    ),
    "capture": Seam(
        "vllm.v1.worker.gpu_model_runner", "GPUModelRunner.capture_model", "self",
        True, "cuda", "graphs", "graphs are captured at the start after all",
    ),
    "capture of the second runner": Seam(
        "vllm.v1.worker.gpu.model_runner", "GPUModelRunner.capture_model", "self, *, profile_only=",
        True, "cuda", "graphs", "graphs are captured at the start after all",
    ),
    "KV cache": Seam(
        "vllm.v1.worker.gpu_model_runner", "allocate_kv_cache", "kv_cache_config, device, layout, kernel_block_sizes=",
        True, "cpu", "patches", "0.5 s a GiB of a start; a parked replica keeps its cache",
    ),
    "output processor": Seam(
        "vllm.v1.engine.async_llm", "OutputProcessor", "tokenizer, *, log_stats, stream_interval=, tracing_enabled=, admission_stats=",
        True, "", "metering", "nothing is counted or billed",
    ),
    "sampling parameters": Seam(
        "vllm.entrypoints.openai.completion.protocol", "CompletionRequest.to_sampling_params", "self, max_tokens, default_sampling_params=",
        True, "", "metering", "a token nobody asked for is billed",
    ),
    "schedule": Seam(
        "vllm.v1.core.sched.scheduler", "Scheduler.schedule", "self, throttle_prefills=",
        True, "", "prefill_progress", "a prompt that was read in part is not billed",
    ),
    "renderer": Seam(
        "vllm.v1.engine.async_llm", "renderer_from_config", "config, **kwargs",
        True, "", "parallel_tokenizer", "the tokenizer is loaded before the engine core is forked",
    ),
    "client of the engine core": Seam(
        "vllm.v1.engine.core_client", "EngineCoreClient.make_async_mp_client", "vllm_config, executor_class, log_stats, client_addresses=, client_count=, client_index=, renderer=",
        True, "", "parallel_tokenizer", "two engine cores",
    ),
    "wait for the engine core": Seam(
        "vllm.v1.engine.utils", "wait_for_engine_startup", "handshake_socket, core_engines, parallel_config, coordinated_dp, cache_config, launch",
        True, "", "parallel_tokenizer", "the tokenizer is never loaded",
    ),
    "inspection of model classes": Seam(
        "vllm.model_executor.models.registry", "_LazyRegisteredModel.inspect_model_cls", "self",
        False, "", "rehearsed", "10 s of the first start of an architecture",
    ),
    "kernels of Triton": Seam(
        "vllm.platforms.cpu", "CpuPlatform.register_triton_kernel_overrides", "",
        False, "cpu", "patches", "0.4 s of a start",
    ),
    "list of CPUs": Seam(
        "vllm.utils.cpu_resource_utils", "_get_cpu_list", "",
        False, "cpu", "patches", "13 ms of a start",
    ),
    "seed of CUDA": Seam(
        "torch.cuda", "manual_seed_all", "seed",
        False, "cpu", "patches", "8 ms of a start",
    ),
    "process groups": Seam(
        "torch.distributed", "new_group", "ranks=, timeout=, backend=, pg_options=, use_local_synchronization=, group_desc=, device_id=, sort_ranks=",
        False, "cpu", "patches", "22 ms of a start",
    ),
    "plug-ins": Seam(
        "importlib.metadata", "entry_points", "**params",
        False, "", "patches", "85 ms of a start",
    ),
    "generation config": Seam(
        "vllm.config", "ModelConfig.try_get_generation_config", "self",
        False, "", "patches", "16 ms of a start",
    ),
    "routes of Anthropic": Seam(
        "vllm.entrypoints.anthropic.serving", "AnthropicServingMessages._should_merge_inline_system", "online_renderer",
        False, "", "patches", "24 ms of a start",
    ),
    "tokenizer of grammars": Seam(
        "vllm.v1.structured_output", "cached_tokenizer_from_config", "model_config, **kwargs",
        False, "", "patches", "0.35 s of a start",
    ),
    "tokenizer of grammars, when asked for": Seam(
        "vllm.v1.structured_output", "StructuredOutputManager.tokenizer", NEW,
        False, "", "patches", "0.35 s of a start",
    ),
    "template of a processor": Seam(
        "vllm.renderers.hf", "_try_get_processor_chat_template", "tokenizer, *, revision, code_revision, trust_remote_code",
        False, "", "patches", "0.4 s of a start",
    ),
    "pool of tokenizers": Seam(
        "vllm.renderers.hf", "maybe_make_thread_pool", "tokenizer, copies=",
        False, "", "patches", "0.8 s of a start",
    ),
    "cached tokenizer": Seam(
        "vllm.tokenizers.hf", "get_cached_tokenizer", "tokenizer",
        False, "", "patches, vocabulary", "0.2 s of a start",
    ),
    "tokenizer's constructor": Seam(
        "transformers.tokenization_utils_tokenizers", "TokenizersBackend.__init__", "self, *args, **kwargs",
        False, "", "patches", "0.12 s of a start",
    ),
    "how processes are made": Seam(
        "multiprocessing", "get_context", "method=",
        True, "", "engine_core", "the engine core imports everything again, 10 s and more",
    ),
    "folder of temporary files": Seam(
        "tempfile", "tempdir", VALUE,
        True, "", "fork_state", "what a dead replica left is not found",
    ),
    "prefix of shared memory": Seam(
        "multiprocessing.shared_memory", "_SHM_NAME_PREFIX", VALUE,
        True, "", "fork_state", "what a dead replica left is not found",
    ),
    "monitor of tqdm": Seam(
        "tqdm", "tqdm.monitor_interval", VALUE,
        True, "", "rehearsed", "a thread in the standby, which then cannot fork",
    ),
}  # fmt: skip


def shape(thing: Any) -> str:
    """The parameters of a function or class; VALUE where it has none to tell."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return VALUE
    words: list[str] = []
    for parameter in parameters:
        star = (
            "*"
            if parameter.kind is parameter.VAR_POSITIONAL
            else "**"
            if parameter.kind is parameter.VAR_KEYWORD
            else ""
        )
        if parameter.kind is parameter.KEYWORD_ONLY and not any(word.startswith("*") for word in words):
            words.append("*")
        words.append(star + parameter.name + ("=" if parameter.default is not parameter.empty else ""))
    return ", ".join(words)


class Uses:
    """How often each seam was gone through, in memory that a process shares with those it forks."""

    def __init__(self) -> None:
        self._of = {name: place for place, name in enumerate(SEAMS)}
        self._counts = memoryview(mmap.mmap(-1, len(SEAMS) * LARGEST)).cast("Q")
        self.left_out: list[str] = []  # by name, with what differs

    def used(self, name: str) -> None:
        self._counts[self._of[name]] += 1

    def counts(self) -> dict[str, int]:
        return {name: self._counts[place] for name, place in self._of.items()}

    def own(self) -> None:
        """In a fork of the standby: its counts go on from the standby's, and are no other fork's."""
        before = self._counts
        self._counts = memoryview(mmap.mmap(-1, len(SEAMS) * LARGEST)).cast("Q")
        self._counts[:] = before

    def note(self) -> str:
        return f"without: {', '.join(self.left_out)}" if self.left_out else ""

    def write(self, file: Path) -> None:
        """Raises OSError."""
        file.write_text(json.dumps({"used": self.counts(), "left_out": self.left_out}))


uses = Uses()
_replaced: set[str] = set()


def replace(name: str, make: Callable[[Any], Any]) -> bool:
    """Put what `make` makes of what is there in its place. False where it does not fit, and is left out. Raises
    SeamBroken.
    """
    seam = SEAMS[name]
    if name not in _replaced and (difference := seam.differs()):
        if seam.must:
            raise SeamBroken(
                f"{seam.module}.{seam.attribute} {difference}. Without it: {seam.without}. "
                f"Install an engine version this release was tested with"
            )
        uses.left_out.append(f"{name} ({difference})")
        return False
    owner, attribute = seam.owner()
    original = getattr(owner, attribute, None)
    setattr(owner, attribute, counting(name, make(original), original))
    _replaced.add(name)
    return True


def counting(name: str, new: Any, original: Any) -> Any:
    """`new`, which counts its uses; a value cannot."""
    if isinstance(new, staticmethod | classmethod):
        return type(new)(counting(name, new.__func__, original))
    if isinstance(new, property):
        return property(counting(name, new.fget, original), new.fset)
    if isinstance(new, type):
        new.__init__ = counting(name, new.__init__, new.__init__)  # type: ignore[misc]  # a class of ours
        return new
    if not callable(new):
        uses.used(name)
        return new

    def gone_through(*args: Any, **kwargs: Any) -> Any:
        uses.used(name)
        return new(*args, **kwargs)

    functools.update_wrapper(gone_through, original if callable(original) else new)
    return gone_through


@contextlib.contextmanager
def lent(owner: Any, attribute: str, new: Any) -> Iterator[None]:
    """For a moment. Of an owner that a seam leads to: a module whose function vLLM calls meanwhile, a class of its
    making.
    """
    own = vars(owner).get(attribute)
    setattr(owner, attribute, new)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, attribute)
        else:
            setattr(owner, attribute, own)


def give(owner: Any, attribute: str, new: Any) -> None:
    """For good, to a class or an object that vLLM has made behind a seam."""
    setattr(owner, attribute, new)
