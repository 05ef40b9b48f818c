"""Whether vLLM's weights through the ring are those of its own loader, and what each loader of the benchmark makes of
one file. For a fork.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import snapshots.synth

LOADERS = (
    "safetensors, mapped",
    "safetensors, copied",
    "vLLM's default loader",
    "baked copy, mapped",
    "ring, to memory",
)


def compared(folder: str) -> dict[str, Any]:
    import torch
    from vllm.config import LoadConfig
    from vllm.model_executor.model_loader import get_model_loader

    from runtime.loader import streamed  # noqa: F401  (registers its load format)
    from runtime.loader.formats import RING
    from runtime.loader.plan import PlanError

    snapshots.synth.SHARD = 20_000_000  # bytes: several files
    model = snapshots.synth.synth("tiny", Path(folder) / "tiny")
    config, nothing = SimpleNamespace(model=str(model), revision=None), SimpleNamespace()
    stock, ours = (
        dict(get_model_loader(LoadConfig(load_format=form)).get_all_weights(config, nothing)) for form in ("auto", RING)
    )
    index = model / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    index.write_text(
        json.dumps({**table, "weight_map": table["weight_map"] | {"extra": next(iter(table["weight_map"].values()))}})
    )
    one, *others = table["weight_map"]
    full = index.read_text()
    index.write_text(json.dumps({**table, "weight_map": {name: table["weight_map"][name] for name in others}}))
    unnamed = one in dict(get_model_loader(LoadConfig(load_format=RING)).get_all_weights(config, nothing))
    index.write_text(full)
    try:
        refused = ""
        dict(get_model_loader(LoadConfig(load_format=RING)).get_all_weights(config, nothing))
    except PlanError as error:
        refused = str(error)
    loaded = {name: _loaded(name, max(model.glob("*.safetensors")), folder) for name in LOADERS}
    same = stock.keys() == ours.keys() and all(torch.equal(stock[name], ours[name]) for name in stock)
    return {
        "same": same,
        "tensors": len(ours),
        "files": len(list(model.glob("*.safetensors"))),
        "refused": refused,
        "unnamed": unnamed,
        "loaded": loaded,
    }


def _loaded(name: str, file: Path, folder: str) -> tuple[int, int]:
    """(bytes, a sum over a byte of each page) of what one loader gives."""
    from runtime.loader import probe

    make, prepare = probe.LOADERS[name]
    own_file = f"{folder}/own.safetensors"
    if prepare:
        prepare(str(file), own_file)
    return probe.touch(make(own_file if prepare else str(file))())
