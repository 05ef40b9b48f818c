"""vLLM's load format `pilotlight`: weights mapped from a baked copy, packed later. Step 8, phase `load`.

On CPU a copied weight costs a page fault a page, and vLLM then packs it for oneDNN: together about 1.6 s a GB. Here the
parameters are views of a mapped file, whose pages all replicas of the node share. The first tokens come through plain
linear layers, and `pack_one` packs a layer at a time between two steps once there is traffic.

Where there is no usable copy, vLLM's own loading writes one. Its parameters lie in the new file, and take what the
snapshot holds as it arrives. Only what nothing changes between loading and packing is baked: unquantized linear and
embedding layers, one tensor-parallel rank. Everything else takes vLLM's own way, and `report` says why. What is baked,
or could be, was loaded completely (`completeness.py`).
"""

from __future__ import annotations

import logging
import mmap
import threading
from collections.abc import Generator, Iterable
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
from vllm.model_executor.model_loader.utils import process_weights_after_loading

from runtime.control import LoadOutcome
from runtime.loader import bake
from runtime.loader.arriving import ArrivingLoader
from runtime.loader.completeness import Watch
from runtime.loader.first_token import linear, populate
from runtime.loader.formats import MAPPED, Loaded, report
from snapshots.singleflight import alone

# parameters up to this size keep what their constructor put there, until the snapshot says otherwise
SMALL_BYTES = 1 << 20
SEAL_SECONDS = 5.0  # after loading: the first answer is out, and the disk is free for a copy's bytes
NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}

log = logging.getLogger("vllm.pilotlight")


class Unpacked:
    """The layers of this process that still work on mapped weights, in order of use."""

    def __init__(self) -> None:
        self.layers: list[tuple[nn.Module, bool]] = []
        self._packed: list[
            tuple[nn.Module, bool, nn.Parameter, torch.Tensor | None]
        ] = []  # with its mapped weight, and its bias as it was

    def pack_one(self) -> bool:
        """Pack the next layer as vLLM would have at the start; False when none is left."""
        if not self.layers:
            return False
        layer, remove_weight = self.layers.pop(0)
        bias = getattr(layer, "bias", None)
        self._packed.append((layer, remove_weight, layer.weight, None if bias is None else bias.data))  # type: ignore[arg-type]
        layer_utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=remove_weight)
        return True

    def unpack(self) -> None:
        """Let go of every packed copy: back to the mapped weights, in the same order."""
        layer: Any
        for layer, _, weight, bias in self._packed:
            layer.weight, layer.cpu_linear = weight, linear
            if bias is not None:
                layer.bias.data = bias
        self.layers = [(layer, remove_weight) for layer, remove_weight, _, _ in self._packed] + self.layers
        self._packed = []

    def pack_for_good(self) -> None:
        """Pack what is left, and forget the mapped weights."""
        while self.pack_one():
            continue
        self._packed = []


unpacked = Unpacked()


@register_model_loader(MAPPED)
class MappedLoader(BaseModelLoader):  # type: ignore[misc]
    """`--model-loader-extra-config '{"baked": FOLDER, "arriving": FOLDER}'` says where the copies of this snapshot lie,
    "" where there is no room for any, and where its bytes may still be on their way.
    """

    def __init__(self, load_config: Any) -> None:
        super().__init__(load_config)
        extra = load_config.model_loader_extra_config
        self._folder = Path(extra["baked"]) if extra["baked"] else None
        self._plain = ArrivingLoader(
            type(load_config)(load_format="auto"), Path(extra["arriving"]) if extra.get("arriving") else None
        )

    def download_model(self, model_config: ModelConfig) -> None:
        self._plain.download_model(model_config)

    def get_all_weights(
        self, model_config: ModelConfig, model: nn.Module
    ) -> Generator[tuple[str, torch.Tensor], None, None]:
        """What vLLM's reload asks for, before it touches the model: the snapshot's own weights.

        It packs the fresh weights of each layer and puts them in the place of packed ones; a layer that still works on
        mapped ones has another shape. So those are packed first, and a park does not bring the old weights back.
        """
        unpacked.pack_for_good()
        weights: Generator[tuple[str, torch.Tensor], None, None] = self._plain.get_all_weights(model_config, model)
        return weights

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        self._plain.load_weights(model, model_config)

    def load_model(self, vllm_config: VllmConfig, model_config: ModelConfig, prefix: str = "") -> nn.Module:
        """
        1. What cannot be mapped is loaded as vLLM does.
        2. There is a copy: map it.
        3. There is none: bake it, or wait for who is baking it; then map it.
        4. There is no room for one: as vLLM does.
        """
        if vllm_config.quant_config is not None:  # 1; how such a model is even built is vLLM's own
            report.set(LoadOutcome.PLAIN_SNAPSHOT, "quantized")
            quantized: nn.Module = self._plain.load_model(
                vllm_config=vllm_config, model_config=model_config, prefix=prefix
            )
            return quantized
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(model_config.dtype)
        try:
            # Without a device context: it costs a call into Python at every call into torch, 20 ms for 28 layers.
            model: nn.Module = self.create_model(vllm_config=vllm_config, model_config=model_config, prefix=prefix)
            report.set(*self._load(model, vllm_config, model_config))
        finally:
            torch.set_default_dtype(dtype)
        log.info("weights: %s", report.note)
        return model.eval()

    def _load(self, model: nn.Module, vllm_config: VllmConfig, model_config: ModelConfig) -> Loaded:
        if reason := unmappable(model, vllm_config):  # 1
            self.load_weights(model, model_config)
            return _finish_plain(model, model_config, LoadOutcome.PLAIN_SNAPSHOT, reason)
        if self._folder is None:  # 4
            return self._load_plain(model, model_config, "no room for a baked copy")
        layout = layout_of(model)
        file = self._folder / f"{compatibility_key(model_config, layout)}.safetensors"
        outcome = LoadOutcome.MAPPED
        if not bake.usable(file):  # 3
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with alone(bake.lock_of(file)):
                if not bake.usable(file):
                    try:
                        baking = bake.Baking(file, layout)
                    except OSError as error:  # 4
                        log.warning("no baked copy can be written (%s)", error)
                        return self._load_plain(model, model_config, f"no baked copy can be written ({error.strerror})")
                    if reason := self._bake(model, model_config, baking, layout):  # 1
                        return _finish_plain(model, model_config, LoadOutcome.PLAIN_SNAPSHOT, reason)
                    outcome = LoadOutcome.BAKED
        try:
            map_model(model, file)  # 2
        except (bake.BakeError, OSError) as error:  # 1; not this model's, or it went meanwhile
            log.warning("the baked copy cannot be mapped (%s)", error)
            return self._load_plain(model, model_config, f"the baked copy cannot be mapped ({error})")
        postpone_packing(model, model_config.dtype)
        if not bake.sealed(file):
            sealing = threading.Timer(SEAL_SECONDS, _seal, (file,))
            sealing.daemon = True
            sealing.start()
        return Loaded(outcome)

    def _bake(self, model: nn.Module, model_config: ModelConfig, baking: bake.Baking, layout: bake.Layout) -> str:
        """Load the model into the new copy. Why that is none, though the model is loaded; "" where it is. Raises
        BakeError.
        """
        try:
            lie_in(model, baking.map, layout)
            self._load_complete(model, model_config)
            reason = _left(model, baking, layout)
        except BaseException:
            baking.drop()
            raise
        if reason:
            baking.drop()
        else:
            baking.finish()
        return reason

    def _load_plain(self, model: nn.Module, model_config: ModelConfig, reason: str) -> Loaded:
        """As vLLM's own loader does with a model that is built, for a reason of this one start."""
        self._load_complete(model, model_config)
        return _finish_plain(model, model_config, LoadOutcome.PLAIN_START, reason)

    def _load_complete(self, model: nn.Module, model_config: ModelConfig) -> None:
        """vLLM's own loading, of which nothing may be missing or left over. Raises BakeError."""
        loading: Any = model
        load_weights, loaded = loading.load_weights, set[str]()

        def remember(weights: Iterable[tuple[str, torch.Tensor]]) -> Any:
            names = load_weights(watch.noting(weights))
            loaded.update(names or ())  # not every model says what it has loaded
            return names

        with Watch(model) as watch:
            loading.load_weights = remember
            self.load_weights(model, model_config)
            del loading.load_weights
        watch.check(loaded, SMALL_BYTES)


def _finish_plain(model: nn.Module, model_config: ModelConfig, outcome: LoadOutcome, reason: str) -> Loaded:
    process_weights_after_loading(model, model_config, torch.device("cpu"))
    return Loaded(outcome, reason)


def _left(model: nn.Module, baking: bake.Baking, layout: bake.Layout) -> str:
    """Some models put a parameter of their own where they load one: then not all of the model is in the file."""
    begin = torch.frombuffer(baking.map, dtype=torch.uint8).data_ptr()
    placed = {piece.name: begin + piece.begin for piece in layout.pieces}
    moved = sorted(name for name, parameter in model.named_parameters() if parameter.data_ptr() != placed.get(name))
    return f"{moved[0]} is replaced while it is loaded" if moved else ""


def unmappable(model: nn.Module, vllm_config: VllmConfig) -> str:
    """Why not all weights are plain parameters that nothing but packing would change after loading; "" where they
    are.
    """
    if vllm_config.lora_config is not None:
        return "LoRA"
    if vllm_config.parallel_config.world_size != 1:
        return "more than one rank"
    if vllm_config.model_config.use_mla or hasattr(model, "process_weights_after_loading"):
        return f"{type(model).__name__} changes its weights after loading"
    methods = [
        method
        for module in model.modules()
        if isinstance(method := getattr(module, "quant_method", None), QuantizeMethodBase)
    ]
    if others := sorted(
        {type(method).__name__ for method in methods} - {"UnquantizedLinearMethod", "UnquantizedEmbeddingMethod"}
    ):
        return ", ".join(others)
    if any(name.startswith("pooler.") for name, _ in model.named_parameters()):
        return "its pooler has weights of its own"  # which its constructor has read from a file of its own
    if odd := [
        name
        for name, parameter in model.named_parameters()
        if parameter.dtype not in NAMES or not parameter.is_contiguous()
    ]:
        return f"{odd[0]} is not a plain tensor"
    return ""


def compatibility_key(model_config: ModelConfig, layout: bake.Layout) -> str:
    """One architecture makes different models of one snapshot: as an embedding model without its head, or with other
    shapes.
    """
    return bake.key(
        {
            "engine": vllm.__version__,
            "architecture": model_config.architecture,
            "dtype": str(model_config.dtype),
            "tensor_parallel": "0/1",
            "device": "cpu",
            "instructions": torch.backends.cpu.get_cpu_capability(),
        },
        layout,
    )


def _seal(file: Path) -> None:
    try:
        bake.seal(file)
    except OSError as error:
        log.warning("the baked copy is not durable, the next boot of the machine makes another (%s)", error)


def layout_of(model: nn.Module) -> bake.Layout:
    return bake.plan(
        (name, NAMES[p.dtype], tuple(p.shape), p.numel() * p.element_size()) for name, p in model.named_parameters()
    )


def lie_in(model: nn.Module, mapped: mmap.mmap, layout: bake.Layout) -> None:
    """Make every parameter a view of a file that is being written."""
    pieces = {piece.name: piece for piece in layout.pieces}
    for name, parameter in model.named_parameters():
        initial, parameter.data = parameter.data, _view(mapped, parameter, pieces[name])
        if pieces[name].size <= SMALL_BYTES:
            parameter.data.copy_(initial)


def _view(mapped: mmap.mmap, parameter: nn.Parameter, piece: bake.Piece) -> torch.Tensor:
    return torch.frombuffer(mapped, dtype=parameter.dtype, count=parameter.numel(), offset=piece.begin).view(
        parameter.shape
    )


def map_model(model: nn.Module, file: Path) -> None:
    """Make every parameter a view of the mapped file. Raises bake.BakeError where the file is not this model's."""
    parameters = dict(model.named_parameters())
    pieces = bake.match(
        bake.read_layout(file), {name: (NAMES[p.dtype], tuple(p.shape)) for name, p in parameters.items()}
    )
    with file.open("rb") as opened:
        # Private and writable: torch wants a writable buffer, and nobody writes, so every page stays the page cache's.
        mapped = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    populate(mapped)
    for name, parameter in parameters.items():
        parameter.data = _view(mapped, parameter, pieces[name])


def postpone_packing(model: nn.Module, dtype: torch.dtype) -> None:
    """Plain linear layers for now, in the order in which they will be packed; attention's own post-processing runs as
    ever.
    """
    module: Any
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if isinstance(method, UnquantizedLinearMethod | UnquantizedEmbeddingMethod):
            module.cpu_linear = linear
            unpacked.layers.append((module, isinstance(method, UnquantizedLinearMethod)))
        if is_deferred_attention_layer(module):
            module.process_weights_after_loading(dtype)
