"""The canary of an embedding model: the vector of a fixed prompt, recorded at a revision's first boot and compared
before every `ready`. Step 8.

As `canary.py` for a model that says nothing: the record is of the same kind and lies in the same place, and what
differs is how answers are compared. Vectors are compared by their direction, which is all that an embedding means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pilotlight.files import write_once
from runtime.control import canary_prompt
from runtime.errors import CanaryMismatch

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

TOLERANCE = 0.002  # 1 - cosine; bf16 sums in another order (batch shape, thread count, packing) make it about 0.00005


async def check(engine: AsyncLLM, record: Path, request_id: str) -> None:
    """Ask, and compare with the record; make the record where there is none. Raises CanaryMismatch."""
    heard = await ask(engine, request_id)
    if (flaw := differs(heard, heard)) is not None:  # nothing to remember, either
        raise CanaryMismatch(f"the canary of {record.stem} {flaw}: the model's weights give no embedding")
    recorded = json.loads(write_once(record, json.dumps(heard).encode()))
    if (difference := differs([float(value) for value in recorded], heard)) is not None:
        raise CanaryMismatch(
            f"the canary of {record.stem} {difference}; its weights or its engine are not what they were"
        )


async def ask(engine: AsyncLLM, request_id: str) -> list[float]:
    """The embedding of a fixed prompt of token ids that every vocabulary has."""
    from vllm import PoolingParams, TokensPrompt  # here: comparing needs no engine

    prompt = TokensPrompt(prompt_token_ids=canary_prompt(engine.model_config.get_vocab_size()))
    vector: list[float] = []
    async for output in engine.encode(prompt, PoolingParams(task="embed"), request_id=request_id):
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
