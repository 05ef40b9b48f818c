"""vLLM, imported and rehearsed once in the standby, so that no replica does it again. Step 8.

What is done here, before any fork, is the same for every model. It is imports, argument parser, the FastAPI application
with its routes and schemas, and one tiny engine. That one is built, asked for two tokens and torn down. On a GPU it is
its configuration and tokenizer alone, since CUDA must not be initialised before the fork. Afterwards `patches.py` keeps
vLLM from doing the same work again in a fork and the heap is frozen. `Unforkable` is raised where the process must not
be forked.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing.popen_fork  # noqa: F401
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# Imported here for the forks, which would each do it on their way to the first token (25 ms).
import anyio._backends._asyncio  # noqa: F401
import setproctitle  # noqa: F401
import torch
import uvicorn.lifespan.off
import uvicorn.protocols.http.httptools_impl  # noqa: F401
import vllm
import vllm.entrypoints.serve.utils.fingerprint
import vllm.v1.engine.async_llm
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server import app_state as _app_state  # noqa: F401  (imported for the fork)
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.platforms import current_platform
from vllm.tokenizers.registry import cached_get_tokenizer, cached_tokenizer_from_config
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser

from runtime.engine import patches, seams
from runtime.engine.threads import MAY_LIVE, Unforkable, check_threads
from runtime.tasks import GENERATE
from runtime.wire import DeviceKind

set_num_threads = torch.set_num_threads  # vLLM replaces it while it sets up a CPU worker; replicas need the real one

REFUSED = "vLLM refuses its arguments: "


@dataclass
class Rehearsal:
    """What a fork starts from."""

    version: str
    device: DeviceKind
    parser: FlexibleArgumentParser
    defaults: argparse.Namespace  # arguments of a serve command with nothing but a model
    app: Any  # FastAPI application for task `generate`; other tasks' routes depend on the model


class Parser(FlexibleArgumentParser):  # type: ignore[misc]
    """Says which argument it does not take, instead of ending the process with a number."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{REFUSED}{message}")


def rehearse(model: Path) -> Rehearsal:
    """Go through an engine's start once. `model` is a small snapshot folder of an architecture everybody uses."""
    device: DeviceKind = "cpu" if current_platform.is_cpu() else "cuda"
    parser = make_arg_parser(Parser())
    defaults = parser.parse_args(["--model", str(model), "--disable-fastapi-docs"])
    validate_parsed_serve_args(defaults)
    app = build_app(defaults, (GENERATE,), None)
    _import_architectures()
    if device == "cpu":
        _build_and_drop_an_engine(model)
    else:
        _configure_and_read_the_tokenizer(defaults)
    hold_still(device)
    return Rehearsal(vllm.__version__, device, parser, defaults, app)


def _import_architectures() -> None:
    """Import the model classes most snapshots have, and let every class be inspected where it is needed.

    vLLM asks a fresh subprocess about a class it has not met, which imports everything again (over 10 s each);
    importing a model class here initialises no device, and `check_forkable` would notice.
    """
    from vllm.model_executor.models import registry

    def inspect_model_cls(self: registry._LazyRegisteredModel) -> registry._ModelInfo:
        return registry._ModelInfo.from_model_cls(self.load_model_cls())

    seams.replace("inspection of model classes", lambda inspect: inspect_model_cls)
    for architecture in ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"):
        if registered := registry.ModelRegistry.models.get(architecture):
            registry._try_inspect_model_cls(architecture, registered)
            registry._try_load_model_cls(architecture, registered)


def _build_and_drop_an_engine(model: Path) -> None:
    from vllm import LLM, SamplingParams
    from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

    seams.replace("monitor of tqdm", lambda interval: 0)  # its monitor is a thread
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    llm = LLM(str(model), enforce_eager=True, max_model_len=128, kv_cache_memory_bytes=8 << 20, disable_log_stats=True)
    # Log-probabilities as the canary asks for them, then sampling: each has first times of its own (30 ms).
    for parameters in (
        SamplingParams(max_tokens=2, temperature=0, logprobs=0),
        SamplingParams(max_tokens=2, top_p=0.9, top_k=9, seed=0),
    ):
        llm.chat([{"role": "user", "content": "hello"}], parameters, use_tqdm=False)
    del llm
    gc.collect()
    del os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"]
    # left by its CPU worker; each fork's sets its own, and vLLM warns of one it finds
    os.environ.pop("VLLM_DIST_IDENT", None)
    destroy_model_parallel()
    destroy_distributed_environment()
    seams.give(torch, "set_num_threads", set_num_threads)


def _configure_and_read_the_tokenizer(defaults: argparse.Namespace) -> None:
    """Where no engine may be built: what a replica does before it forks its engine core. Raises Unforkable where that
    touches CUDA.
    """
    config = AsyncEngineArgs.from_cli_args(defaults).create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    tokenizer = cached_tokenizer_from_config(config.model_config)
    assert tokenizer is not None
    tokenizer.decode(tokenizer.encode("hello"))
    tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True)
    cached_get_tokenizer.cache_clear()
    check_no_cuda()


def hold_still(device: str) -> None:
    """Keep a fork from repeating what was rehearsed, and freeze what it inherits."""
    patches.apply(device)
    gc.collect()
    gc.freeze()


def check_forkable(device: str) -> int:
    """How many threads are alive. Raises Unforkable, with the names of those that are not on the list."""
    if device == "cuda":
        check_no_cuda()
    return check_threads(MAY_LIVE[device])


def check_no_cuda() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise Unforkable("CUDA is initialised in the standby: a fork of it cannot use the device")
