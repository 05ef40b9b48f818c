"""vLLM's load format `pilotlight_ring`: weights through the pinned ring to the device. Steps 8 and 9, phase `load`.

It is for engines on a GPU (`--load-format pilotlight_ring`). Which files a model needs, and what becomes of its
tensors, stays vLLM's own; only how their bytes come to the device is ours. While a tensor is put where the model wants
it, the next are read and copied. No tensor is ever written again, so a reload that collects a layer's before it uses
them may keep them. Where vLLM would read only a part of the files, or files that are not safetensors, its own way is
taken, and `report` says so. Importing this initialises no device: a standby does it, for its forks.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.platforms import current_platform

from runtime.control import LoadOutcome
from runtime.loader.device import device_of, unpin
from runtime.loader.formats import RING, report
from runtime.loader.plan import Plan
from runtime.loader.ring import plan_files, stream


@register_model_loader(RING)
class RingLoader(DefaultModelLoader):  # type: ignore[misc]
    """`load_model`, `load_weights` and `get_all_weights` are vLLM's; they take their tensors from here."""

    counter_before_loading_weights: float = 0.0  # seconds of perf_counter, for vLLM's own message

    def __init__(self, load_config: Any) -> None:
        super().__init__(dataclasses.replace(load_config, load_format="auto", model_loader_extra_config={}))

    def _get_weights_iterator(self, source: Any) -> Iterator[tuple[str, torch.Tensor]]:
        folder, files, safetensors, index = self._prepare_weights(
            source.model_or_path,
            source.subfolder,
            source.revision,
            source.fall_back_to_pt,
            source.allow_patterns_overrides,
        )
        if reason := "files that are not safetensors" if not safetensors else self._reads_a_part(source):
            report.set(LoadOutcome.PLAIN_SNAPSHOT, reason)
            own: Iterator[tuple[str, torch.Tensor]] = super()._get_weights_iterator(source)
            return own
        self.counter_before_loading_weights = self.counter_before_loading_weights or time.perf_counter()
        target = torch.device(self.load_config.device or current_platform.device_type)
        planned = plan_files(sorted(map(Path, files)), names_in(Path(folder) / index))
        if report.outcome is None:  # a model may have a second source, read in vLLM's way
            report.set(LoadOutcome.RING)
        return _prefixed(source.prefix, planned, target)

    def _reads_a_part(self, source: Any) -> str:
        """Why vLLM would not read every tensor of the files its index names; "" where it would."""
        if self.load_config.safetensors_load_strategy == "torchao":  # vLLM sets it itself
            return "torchao"
        narrowed = {
            "patterns of the model's own": source.allow_patterns_overrides,  # which the index knows nothing of
            "weights it does not use": source.is_unused_weight,
            "an encoder only": self._encoder_only_lm_prefixes,
            "experts of one rank": self.local_expert_ids,
        }
        return next((what for what, part in narrowed.items() if part is not None), "")


def names_in(index: Path) -> set[str] | None:
    """Every tensor a model of several files says it has; None where it is one file. Raises OSError, ValueError."""
    return set(json.loads(index.read_text())["weight_map"]) if index.exists() else None


def _prefixed(prefix: str, planned: Plan, target: torch.device) -> Generator[tuple[str, torch.Tensor], None, None]:
    try:
        with closing(stream(planned, device_of(target))) as tensors:
            for name, tensor in tensors:
                yield prefix + name, tensor
    finally:
        unpin()
