"""What vLLM and transformers have, by name, as the tables of ours must know it: read in a fork, told as plain lists."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any


def options() -> list[str]:
    """Of `vllm serve`, without their dashes."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return [
        name[2:] for name in make_arg_parser(FlexibleArgumentParser())._option_string_actions if name.startswith("--")
    ]


def texts_of_the_configuration() -> list[tuple[str, str]]:
    """(class, field) of all that may hold text, a path or a function."""
    import vllm.config

    found = []
    for name, kind in vars(vllm.config).items():
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind):
            of_text = [
                field
                for field in dataclasses.fields(kind)
                if any(word in str(field.type) for word in ("str", "Path", "Callable"))
            ]
            found += [(name, field.name) for field in of_text]
    return found


def known() -> dict[str, Any]:
    """As `snapshots/known_to_engine.txt` has it."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from vllm.model_executor.kernels import linear as kernels
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
    from vllm.model_executor.models import registry
    from vllm.platforms.interface import PlatformEnum
    from vllm.transformers_utils import config as vllm_configs

    from snapshots.known import known as by_us

    nowhere = (kernels._POSSIBLE_NVFP4_KERNELS, kernels._POSSIBLE_MXFP8_KERNELS, kernels._POSSIBLE_MXFP6_KERNELS)
    return {
        "model_type": {
            *CONFIG_MAPPING_NAMES,
            *vllm_configs._CONFIG_REGISTRY,
            *vllm_configs._ARCHITECTURE_TO_MODEL_TYPE.values(),
        },
        "quantization": {*QUANTIZATION_METHODS},
        "kernels of four and eight bits on CPUs": [PlatformEnum.CPU in kernel for kernel in nowhere],
        "makes text": {*registry._TEXT_GENERATION_MODELS, *registry._MULTIMODAL_MODELS},
        "architecture": {*registry.ModelRegistry.get_supported_archs()},
        "no tokenizer": {name for name in by_us("tokenizer") if not hasattr(transformers, name)},
    }
