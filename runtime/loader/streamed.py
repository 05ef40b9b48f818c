"""vLLM's load format `pilotlight_ring`: weights through the pinned ring to the device. Steps 8 and 9, phase `load`.

For engines on a GPU (`--load-format pilotlight_ring`): which files a model needs, and what becomes of its tensors, stays vLLM's
own; only how their bytes come to the device is ours. While a tensor is put where the model wants it, the next are read and
copied. No tensor is ever written again, so a reload that collects a layer's before it uses them may keep them. Where vLLM
would read only a part of the files, or files that are no safetensors, its own way is taken.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.platforms import current_platform

from runtime.loader.device import device_of
from runtime.loader.ring import plan_files, stream

LOAD_FORMAT = "pilotlight_ring"


@register_model_loader(LOAD_FORMAT)
class RingLoader(DefaultModelLoader):  # type: ignore[misc]
    """`load_model`, `load_weights` and `get_all_weights` are vLLM's; they take their tensors from here."""

    counter_before_loading_weights: float = 0.0  # seconds of perf_counter, for vLLM's own message

    def __init__(self, load_config: Any) -> None:
        super().__init__(dataclasses.replace(load_config, load_format="auto", model_loader_extra_config={}))

    def _get_weights_iterator(self, source: Any) -> Iterator[tuple[str, torch.Tensor]]:
        folder, files, safetensors, index = self._prepare_weights(
            source.model_or_path, source.subfolder, source.revision, source.fall_back_to_pt, source.allow_patterns_overrides
        )
        if not safetensors or self._reads_a_part(source):
            own: Iterator[tuple[str, torch.Tensor]] = super()._get_weights_iterator(source)
            return own
        self.counter_before_loading_weights = self.counter_before_loading_weights or time.perf_counter()
        target = torch.device(self.load_config.device or current_platform.device_type)
        return _prefixed(source.prefix, sorted(map(Path, files)), names_in(Path(folder) / index), target)

    def _reads_a_part(self, source: Any) -> bool:
        strategy = self.load_config.safetensors_load_strategy  # vLLM sets "torchao" itself, which reads in another way
        narrowed = (source.is_unused_weight, self._encoder_only_lm_prefixes, self.local_expert_ids)
        return strategy == "torchao" or any(part is not None for part in narrowed)


def names_in(index: Path) -> set[str] | None:
    """Every tensor a model of several files says it has; None where it is one file. Raises OSError, ValueError."""
    return set(json.loads(index.read_text())["weight_map"]) if index.exists() else None


def _prefixed(
    prefix: str, files: list[Path], wanted: set[str] | None, target: torch.device
) -> Generator[tuple[str, torch.Tensor], None, None]:
    for name, tensor in stream(plan_files(files, wanted), device_of(target)):
        yield prefix + name, tensor
