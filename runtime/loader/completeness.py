"""Whether a load was complete: every parameter written, every tensor of the snapshot read. Step 9, phase `load`.

vLLM's own check passes over every layer that post-processes its weights, which are all linear ones. A snapshot without
one shard of a fused projection, or without a bias, loads there without a word. So a model is watched while it loads:
which memory is written, and which of the snapshot's tensors are read, whichever functions do it.

What must survive: a model may leave a small parameter as its constructor made it, or replace one. It may pass over what
vLLM passes over too. Those are no errors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from runtime.loader.bake import BakeError
from runtime.loader.coverage import in_the_snapshot, some, unwritten

WRITES = {torch.ops.aten.copy_.default, torch.ops.aten.fill_.Scalar, torch.ops.aten.fill_.Tensor}
PASSED_OVER = (
    "rotary_emb.", "rotary_pos_emb.", "position_ids", "num_batches_tracked", ".masked_bias", ".attn.bias", ".attention.bias", "mtp",
)  # fmt: skip  # computed tables, masks, counters of training, and heads that draft: parts of names
# What a checkpoint has for other tasks, and an embedding model goes without: a name's first or second part.
HEADS = {
    "pooler", "cls", "lm_head", "mlm", "head", "decoder", "classifier", "score", "qa_outputs", "predictions", "lm_predictions",
    "vocab_transform", "vocab_layer_norm", "vocab_projector", "discriminator_predictions", "generator_predictions", "generator_lm_head",
}  # fmt: skip


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """`with Watch(model) as watch: …load it…`, then `watch.check(loaded)`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        self._places = _places(model)
        self._written: set[tuple[int, int]] = set()  # address, bytes
        self._read: set[int] = set()  # addresses of storages
        self._given: list[tuple[str, torch.Tensor]] = []  # kept, so that no address is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WRITES:
            self._written.add((args[0].data_ptr(), args[0].nbytes))
        if not func.is_view:
            self._read.update(tensor.untyped_storage().data_ptr() for tensor in _tensors(args))
        return func(*args, **(kwargs or {}))

    def noting(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The snapshot's tensors, on their way to the model."""
        for name, tensor in weights:
            self._given.append((name, tensor))
            yield name, tensor

    def check(self, loaded: Collection[str], large: int) -> None:
        """`loaded`: what the model itself says; `large`: bytes from which a parameter must not be empty. Raises
        BakeError, with names.
        """
        given = {name for name, _ in self._given}
        here = _places(self._model)
        complete = {
            name: place for name, place in self._places.items() if here.get(name) == place
        }  # a replaced one is the model's affair
        lost = []
        for name, missing in unwritten(complete, self._written).items():
            if missing < complete[name][1] or self._must(name, loaded, large):
                lost += in_the_snapshot(name, given, getattr(self._model, "packed_modules_mapping", {}))
        if lost:
            raise BakeError(f"the snapshot lacks {some(lost)}: pack the model again from all of its files")
        unread = [
            name
            for name, tensor in self._given
            if tensor.numel() and tensor.untyped_storage().data_ptr() not in self._read
        ]
        if left := [name for name in unread if not self._passes_over(name)]:
            raise BakeError(
                f"the model has no place for {some(left)} of the snapshot: is its config.json the right one? "
                "Set load-format=auto to have them passed over"
            )

    def _must(self, name: str, loaded: Collection[str], large: int) -> bool:
        """Has the snapshot to have it, though nothing was written? Layers are made without values; other modules may
        have theirs.
        """
        module, _, _ = name.rpartition(".")
        if getattr(self._model.get_submodule(module), "quant_method", None) is not None:
            return True
        parameter = self._model.get_parameter(name)
        return name not in loaded and parameter.nbytes > large and not parameter.data.any()

    def _passes_over(self, name: str) -> bool:
        """A second name of a tied parameter; a head that an embedding model goes without; what is only computed."""
        if any(part in name for part in PASSED_OVER):
            return True
        first, _, rest = name.partition(".")
        if getattr(self._model, "is_pooling_model", False) and HEADS & {first, rest.partition(".")[0]}:
            return True
        if type(getattr(self._model, first, None)).__name__ == "StageMissingLayer":
            return True
        return name in {again for again, _ in self._model.named_parameters(remove_duplicate=False)}


def _places(model: nn.Module) -> dict[str, tuple[int, int]]:
    return {name: (parameter.data_ptr(), parameter.nbytes) for name, parameter in model.named_parameters()}


def _tensors(args: Iterable[Any]) -> Iterator[torch.Tensor]:
    for given in args:
        if isinstance(given, torch.Tensor):
            yield given
        elif isinstance(given, list | tuple):
            yield from _tensors(given)
