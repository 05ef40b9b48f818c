"""vLLM's load format `pilotlight`: weights mapped from a baked copy, packed later. Step 8, phase `load`.

On CPU a copied weight costs a page fault a page and vLLM then packs it for oneDNN, together about 1.6 s a GB. Here the
parameters are views of a mapped file, whose pages all replicas of the node share; the first tokens come through plain
linear layers, and `pack_one` packs a layer at a time between two steps once there is traffic. Where there is no usable copy
the plain loader reads the snapshot and makes one. Only what is known to be untouched between loading and packing is
baked: unquantized linear and embedding layers, one tensor-parallel rank; everything else takes vLLM's own way.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
import vllm
from torch import nn
from vllm.config import ModelConfig, VllmConfig
from vllm.model_executor.layers import utils as layer_utils
from vllm.model_executor.layers.attention import is_deferred_attention_layer
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from runtime import bake

LOAD_FORMAT = "pilotlight"
NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}

log = logging.getLogger("vllm.pilotlight")


class Unpacked:
    """The layers of this process that still work on mapped weights, in order of use."""

    def __init__(self) -> None:
        self.layers: list[tuple[nn.Module, bool]] = []

    def pack_one(self) -> bool:
        """Pack the next layer as vLLM would have at the start; False when none is left."""
        if not self.layers:
            return False
        layer, remove_weight = self.layers.pop(0)
        layer_utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=remove_weight)
        return True


unpacked = Unpacked()


@register_model_loader(LOAD_FORMAT)
class MappedLoader(BaseModelLoader):  # type: ignore[misc]
    """`--model-loader-extra-config '{"baked": FOLDER}'` says where the copies of this snapshot lie."""

    def __init__(self, load_config: Any) -> None:
        super().__init__(load_config)
        self._folder = Path(load_config.model_loader_extra_config["baked"])
        plain = type(load_config)(load_format="auto")
        self._plain = DefaultModelLoader(plain)

    def download_model(self, model_config: ModelConfig) -> None:
        self._plain.download_model(model_config)

    def get_all_weights(self, model_config: ModelConfig, model: nn.Module) -> Generator[tuple[str, torch.Tensor], None, None]:
        """What vLLM's reload asks for: the snapshot's own weights."""
        yield from self._plain.get_all_weights(model_config, model)

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        self._plain.load_weights(model, model_config)

    def load_model(self, vllm_config: VllmConfig, model_config: ModelConfig, prefix: str = "") -> nn.Module:
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(model_config.dtype)
        try:
            with torch.device("cpu"):
                model: nn.Module = self.create_model(vllm_config=vllm_config, model_config=model_config, prefix=prefix)
        finally:
            torch.set_default_dtype(dtype)
        if not bakeable(model, vllm_config):
            log.info("not a model that can be mapped; loading as vLLM does")
            return self._load_plainly(vllm_config, model_config, prefix)
        file = self._folder / f"{compatibility_key(model_config)}.safetensors"
        if not bake.usable(file):
            self.load_weights(model, model_config)
            try:
                bake_model(model, file)
            except OSError as error:
                log.warning("no baked copy could be written (%s); loading as vLLM does", error)
                return self._load_plainly(vllm_config, model_config, prefix)
        map_model(model, file)
        postpone_packing(model, model_config.dtype)
        return model.eval()

    def _load_plainly(self, vllm_config: VllmConfig, model_config: ModelConfig, prefix: str) -> nn.Module:
        model: nn.Module = self._plain.load_model(vllm_config=vllm_config, model_config=model_config, prefix=prefix)
        return model


def bakeable(model: nn.Module, vllm_config: VllmConfig) -> bool:
    """Are all weights plain parameters that nothing but packing would change after loading?"""
    parallel = vllm_config.parallel_config
    if vllm_config.quant_config is not None or vllm_config.lora_config is not None or parallel.world_size != 1:
        return False
    if vllm_config.model_config.use_mla or hasattr(model, "process_weights_after_loading"):
        return False
    methods = [method for module in model.modules() if isinstance(method := getattr(module, "quant_method", None), QuantizeMethodBase)]
    known = all(type(method) in (UnquantizedLinearMethod, UnquantizedEmbeddingMethod) for method in methods)
    return known and all(parameter.dtype in NAMES and parameter.is_contiguous() for parameter in model.parameters())


def compatibility_key(model_config: ModelConfig) -> str:
    return bake.key(
        {
            "engine": vllm.__version__,
            "architecture": model_config.architecture,
            "dtype": str(model_config.dtype),
            "tensor_parallel": "0/1",
            "device": "cpu",
            "instructions": torch.backends.cpu.get_cpu_capability(),
        }
    )


def bake_model(model: nn.Module, file: Path) -> None:
    """Write the model's parameters as they are now. Raises OSError."""
    parameters = dict(model.named_parameters())
    layout = bake.plan((name, NAMES[p.dtype], tuple(p.shape), p.numel() * p.element_size()) for name, p in parameters.items())
    bake.write(file, layout, (bytes_of(parameters[piece.name]) for piece in layout.pieces))


def bytes_of(parameter: nn.Parameter) -> memoryview:
    array: Any = parameter.data.view(torch.uint8).numpy()
    return memoryview(array).cast("B")


def map_model(model: nn.Module, file: Path) -> None:
    """Make every parameter a view of the mapped file. Raises bake.BakeError where the file is not this model's."""
    parameters = dict(model.named_parameters())
    pieces = bake.match(bake.read_layout(file), {name: (NAMES[p.dtype], tuple(p.shape)) for name, p in parameters.items()})
    with file.open("rb") as opened:
        # Private and writable: torch wants a writable buffer, and nobody writes, so every page stays the page cache's.
        mapped = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    mapped.madvise(mmap.MADV_WILLNEED)
    for name, parameter in parameters.items():
        piece = pieces[name]
        parameter.data = torch.frombuffer(mapped, dtype=parameter.dtype, count=parameter.numel(), offset=piece.begin).view(parameter.shape)


def postpone_packing(model: nn.Module, dtype: torch.dtype) -> None:
    """Plain linear layers for now, in the order in which they will be packed; attention's own post-processing runs as ever."""
    module: Any
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if isinstance(method, UnquantizedLinearMethod | UnquantizedEmbeddingMethod):
            module.cpu_linear = torch.nn.functional.linear
            unpacked.layers.append((module, isinstance(method, UnquantizedLinearMethod)))
        if is_deferred_attention_layer(module):
            module.process_weights_after_loading(dtype)
