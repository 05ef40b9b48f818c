"""The canary: a short greedy answer, recorded at a revision's first boot and asked again before every `ready`. Step 8.

A forked, mapped or restored engine that is subtly wrong still answers, fluently and fast; what it cannot do is repeat,
token for token and with the same log-probabilities, what it once said. A replica whose canary differs never serves. The
record lies on the node, under a key of everything that may change an answer: snapshot, engine version, device, engine
arguments. Its tokens count for nobody, neither in the journal nor in vLLM's own counters; but they are counted
(`metering.py`), and must be as many as these.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from vllm import SamplingParams, TokensPrompt
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from pilotlight.files import write_once
from runtime.control import CANARY_ANSWER_TOKENS, canary_prompt
from runtime.errors import CanaryMismatch

TOLERANCE = 0.05  # nats; bf16 sums in another order (batch shape, thread count) differ by about 0.01


Answer = list[tuple[int, float]]  # token id, log-probability in nats


async def check(engine: AsyncLLM, record: Path, request_id: str) -> None:
    """Ask, and compare with the record; make the record where there is none. Raises CanaryMismatch."""
    heard = await ask(engine, request_id)
    recorded = json.loads(write_once(record, json.dumps(heard).encode()))
    if (difference := differs([(int(token), float(logprob)) for token, logprob in recorded], heard)) is not None:
        raise CanaryMismatch(
            f"the canary of {record.stem} {difference}; its weights or its engine are not what they were"
        )


async def ask(engine: AsyncLLM, request_id: str) -> Answer:
    """A greedy answer to a fixed prompt of token ids that every vocabulary has."""
    prompt = TokensPrompt(prompt_token_ids=canary_prompt(engine.model_config.get_vocab_size()))
    parameters = SamplingParams(
        temperature=0,
        max_tokens=CANARY_ANSWER_TOKENS,
        logprobs=0,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    answer: Answer = []
    async for output in engine.generate(prompt, parameters, request_id=request_id):
        choice = output.outputs[0]
        assert choice.logprobs is not None
        answer = [
            (token, chances[token].logprob) for token, chances in zip(choice.token_ids, choice.logprobs, strict=True)
        ]
    return answer


def differs(recorded: Sequence[tuple[int, float]], heard: Sequence[tuple[int, float]]) -> str | None:
    """What is different, in words; None where nothing is. A log-probability that is no number is always different."""
    if [token for token, _ in recorded] != [token for token, _ in heard]:
        return f"said {[token for token, _ in heard]}, not {[token for token, _ in recorded]}"
    for place, ((_, was), (_, now)) in enumerate(zip(recorded, heard, strict=True)):
        if not math.isfinite(now) or abs(was - now) > TOLERANCE:
            return f"gave its token {place} the log-probability {now:.4f}, not {was:.4f}"
    return None
