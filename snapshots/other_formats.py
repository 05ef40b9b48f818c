"""Folders that hold a model of another kind than the engine loads: an adapter, or another program's. While packing.

People have both beside ordinary models, and neither is wrong. Each is refused with what makes an ordinary model of it,
before anything large is read or fetched. The words are the same for a folder and for a repository on a hub.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from snapshots.errors import Incomplete

ADAPTER = "adapter_config.json"
LARGEST_ADAPTER_CONFIG = 1 << 20  # bytes

GGUF = (
    "GGUF is llama.cpp's format, which the engine (vLLM) does not load: take the model that it was made from (its page names it as the base "
    'model), or convert it, with transformers and gguf installed: `python -c "from transformers import AutoModelForCausalLM, AutoTokenizer; '
    "[c.from_pretrained('FOLDER', gguf_file='FILE.gguf').save_pretrained('OUT') for c in (AutoModelForCausalLM, AutoTokenizer)]\"`"
)
MERGE = (
    'merge it into its base model and deploy that, with peft installed: `python -c "from peft import AutoPeftModelForCausalLM as A; '
    "A.from_pretrained('FOLDER').merge_and_unload().save_pretrained('OUT')\"`, then copy the tokenizer's files of the base model to OUT"
)
PICKLED = (
    "its weights are pickles, which run code when they are loaded: take a revision with safetensors (many have one as @refs/pr/N, see its "
    "discussions), or convert it where you trust it: "
    "`python -c \"from transformers import AutoModel; AutoModel.from_pretrained('MODEL').save_pretrained('FOLDER')\"`"
)


def refuse_other_formats(paths: Collection[str], folder: Path) -> None:
    """`paths`: all there are, with /. Raises Incomplete, with what to do."""
    weights = [PurePosixPath(path) for path in paths if path.endswith(".safetensors")]
    adapter = ADAPTER in paths and all(path.name.startswith("adapter_") for path in weights)
    if (adapter or not weights) and (kind := other_kind(paths, folder)):
        raise Incomplete(kind)


def other_kind(paths: Collection[str], folder: Path) -> str:
    """What it is, where that is no model for the engine, and what to do; "" where names tell nothing of the kind."""
    if ADAPTER in paths:
        return f"it is a LoRA adapter{_of(folder / ADAPTER)}, which no engine serves alone: {MERGE}"
    if any(path.lower().endswith(".gguf") for path in paths) and not any(
        path.endswith(".safetensors") for path in paths
    ):
        return f"it holds GGUF files and no safetensors: {GGUF}"
    return ""


def _of(config: Path) -> str:
    """The model that an adapter was trained on, in words; "" where that is not to be known."""
    try:
        with config.open("rb") as stream:
            said = json.loads(stream.read(LARGEST_ADAPTER_CONFIG))
        name = said.get("base_model_name_or_path")
    except (OSError, ValueError, RecursionError, AttributeError):
        return ""
    return f" of {name[:100]!r}" if isinstance(name, str) and name else ""
