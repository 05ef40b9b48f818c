"""The canary of a model that answers in text: a short greedy answer. Step 8.

It must be the same token for token, and with the same log-probabilities. `canary.py` says when it is asked and what
becomes of the answer. The failure to survive is a difference that is none: two bf16 sums in another order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.tasks import GENERATE, canary_of

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

TOLERANCE = 0.05  # nats; bf16 sums in another order (batch shape, thread count) differ by about 0.01

Answer = Sequence[tuple[int, float]]  # token id, log-probability in nats


async def ask(engine: AsyncLLM, request_id: str) -> Answer:
    """A greedy answer to a fixed prompt of token ids that every vocabulary has."""
    from vllm import SamplingParams, TokensPrompt  # here: comparing needs no engine
    from vllm.sampling_params import RequestOutputKind

    canary = canary_of(GENERATE)
    prompt = TokensPrompt(prompt_token_ids=canary.prompt(engine.model_config.get_vocab_size()))
    parameters = SamplingParams(
        temperature=0,
        max_tokens=canary.made,
        logprobs=0,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    answer: list[tuple[int, float]] = []
    async for output in engine.generate(prompt, parameters, request_id=request_id):
        first = output.outputs[0]
        assert first.logprobs is not None
        answer = [
            (token, chances[token].logprob) for token, chances in zip(first.token_ids, first.logprobs, strict=True)
        ]
    return answer


def differs(recorded: Answer, heard: Answer) -> str | None:
    """What is different, in words; None: nothing is. A log-probability that is not a number is always different."""
    if [token for token, _ in recorded] != [token for token, _ in heard]:
        return f"said {[token for token, _ in heard]}, not {[token for token, _ in recorded]}"
    for place, ((_, was), (_, now)) in enumerate(zip(recorded, heard, strict=True)):
        if not math.isfinite(now) or abs(was - now) > TOLERANCE:
            return f"gave its token {place} the log-probability {now:.4f}, not {was:.4f}"
    return None
