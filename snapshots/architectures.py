"""Which architectures the engine knows, without the engine: `architectures.txt` has vLLM's own list. While packing.

A model of an architecture it does not know would be found out at the first call, by a crash; here it is one line.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files

from snapshots.errors import UnknownModel

# vLLM makes an embedding model or classifier of any generating one: a name is known if it is with another of these
# ends.
ENDS = (
    "ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel", "ForTextEncoding", "EmbeddingModel", "ForSequenceClassification",
    "ForTokenClassification", "ForAudioClassification", "ForImageClassification", "ForVideoClassification", "ClassificationModel",
    "ForRewardModeling", "RewardModel", "Model",
)  # fmt: skip


@cache
def known() -> frozenset[str]:
    lines = files("snapshots").joinpath("architectures.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def check_known(architecture: str) -> None:
    """Raises UnknownModel, with the nearest names."""
    end = next((end for end in ENDS if architecture.endswith(end)), None)
    if architecture in known() or (end and any(architecture.removesuffix(end) + other in known() for other in ENDS)):
        return
    near = difflib.get_close_matches(architecture[:200], sorted(known()), n=3, cutoff=0.5)
    raise UnknownModel(
        f"config.json names the architecture {architecture[:100]!r}, which the engine (vLLM) does not know"
        + (f"; the nearest it knows: {', '.join(near)}" if near else "")
        + ". Is the name right? Else wait for an engine that knows it"
    )
