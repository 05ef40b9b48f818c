"""The canary of a model that makes vectors: the vector of a fixed prompt. Step 8.

Vectors are compared by their direction, which is all that an embedding means. `canary.py` says when it is asked and
what becomes of the answer. The failure to survive is a vector without a direction, which equals every other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.tasks import EMBED, canary_of

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

TOLERANCE = 0.002  # 1 - cosine; bf16 sums in another order (batch shape, thread count, packing) make it about 0.00005


async def ask(engine: AsyncLLM, request_id: str) -> Sequence[float]:
    """The embedding of a fixed prompt of token ids that every vocabulary has."""
    from vllm import PoolingParams, TokensPrompt  # here: comparing needs no engine

    prompt = TokensPrompt(prompt_token_ids=canary_of(EMBED).prompt(engine.model_config.get_vocab_size()))
    vector: list[float] = []
    async for output in engine.encode(prompt, PoolingParams(task=EMBED), request_id=request_id):
        vector = [round(value, 6) for value in output.outputs.data.flatten().tolist()]
    return vector


def differs(recorded: Sequence[float], heard: Sequence[float]) -> str | None:
    """What is different, in words; None where nothing is. A vector without a direction is always different."""
    if len(recorded) != len(heard):
        return f"has {len(heard)} values, not {len(recorded)}"
    lengths = math.hypot(*recorded) * math.hypot(*heard)
    if not math.isfinite(lengths) or lengths == 0:
        return "has no direction"
    distance = 1 - sum(was * now for was, now in zip(recorded, heard, strict=True)) / lengths
    return f"points elsewhere: by a cosine distance of {distance:.4f}" if distance > TOLERANCE else None
