"""The canary of a model that scores pairs of texts: the score of a fixed pair. Step 8.

A cross-encoder reads both texts at once and gives the score itself. Of other models the score is how near the texts'
vectors are to each other: one vector a text, or one a token (late interaction). `canary.py` says when it is asked and
what becomes of the answer. The failure to survive is a model that scores nothing: it ends its start with a reason.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from runtime.tasks import SCORE, canary_of

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

TOLERANCE = 0.02  # of a score, and as much again for each unit of it; bf16 sums in another order differ by about 0.005


async def ask(engine: AsyncLLM, request_id: str) -> float:
    """The score of a fixed pair of token ids that every vocabulary has. Raises ValueError for a model without scores.

    A cross-encoder's is taken before its activation, which would hide differences at both ends.
    """
    from vllm.entrypoints.pooling.utils import enable_scoring_api  # here: comparing needs no engine

    model = engine.model_config
    tasks = await engine.get_supported_tasks()
    if not enable_scoring_api(tasks, model):
        raise ValueError(
            f"the model ({model.architecture}) gives no score to a pair of texts: deploy it for another task"
        )
    prompt = canary_of(SCORE).prompt(model.get_vocab_size())
    task = model.get_pooling_task(tasks)
    if task == "classify":
        return float((await _pooled(engine, task, prompt, request_id)).flatten()[0])
    half = len(prompt) // 2
    first = await _pooled(engine, task, prompt[:half], f"{request_id}-0")
    second = await _pooled(engine, task, prompt[half:], f"{request_id}-1")
    return _similarity(first, second)


async def _pooled(engine: AsyncLLM, task: str, prompt: list[int], request_id: str) -> Any:
    from vllm import PoolingParams, TokensPrompt

    params = PoolingParams(task=task, use_activation=False if task == "classify" else None)
    data: Any = None
    async for output in engine.encode(TokensPrompt(prompt_token_ids=prompt), params, request_id=request_id):
        data = output.outputs.data.float()
    return data


def _similarity(first: Any, second: Any) -> float:
    """Of a vector each, the cosine; of a vector a token, the mean of each token's best."""
    import torch.nn.functional as F

    near = F.normalize(first.reshape(-1, first.shape[-1])) @ F.normalize(second.reshape(-1, second.shape[-1])).T
    return float(near.amax(dim=-1).mean())


def differs(recorded: float, heard: float) -> str | None:
    """What is different, in words; None where nothing is. A score that is not a number is always different."""
    if math.isfinite(heard) and abs(recorded - heard) <= TOLERANCE * (1 + abs(recorded)):
        return None
    return f"gave its pair the score {heard:.4f}, not {recorded:.4f}"
