"""What vLLM would accept from a caller and must not, checked before its engine core hears of the request. Step 11.

Token ids beyond the model's rows end the engine core, with everybody's answers; a tokenizer may have more than the
model. Grammars and schemas are compiled in the engine core, uninterruptibly; vLLM checks them before that on the event
loop that moves everyone's tokens. Here each new one is first tried in a fork (`runtime/serving/trial.py`): checked,
compiled, and used for some tokens. The failure to survive is one that is small and valid, but takes minutes or
gigabytes to compile. Or it takes a moment too long for every token.
Or it allows no answer at all, which the engine notices only when it has read the prompt.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import random
import time
from collections.abc import Mapping
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend
from vllm.v1.structured_output.request import get_structured_output_key

from runtime.serving.trial import Limits, Trials

STEPS = 16  # of an answer that a grammar is tried with
MOST_STEP_SECONDS = 0.1  # of CPU: every token of every answer waits for it
SLOW = "it takes too long for every token"
EMPTY = "it lets no token begin an answer, as where a rule or a reference leads only to itself"


class Guarded(AsyncLLM):  # type: ignore[misc]
    """vLLM's own, and looks first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows = int(self.model_config.get_vocab_size())
        self._trials = Trials(Limits())
        self._making = asyncio.Lock()
        self._backend: XgrammarBackend | None = None
        fields = self.input_processor.generation_config_fields
        fields |= ends_within(fields, self._rows)

    async def add_request(self, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        check_tokens(prompt, self._rows)
        if isinstance(params, SamplingParams) and params.structured_outputs is not None:
            await self._try(params, prompt)
        return await super().add_request(request_id, prompt, params, *args, **kwargs)

    async def _try(self, params: SamplingParams, prompt: Any) -> None:
        """Raises VLLMValidationError, which a caller is told with 400."""
        constraint = params.structured_outputs
        if constraint.json_object:
            return
        async with self._making:
            if self._backend is None:
                self._backend = await asyncio.to_thread(self._make)
        user = str(prompt.get("cache_salt") or "") if isinstance(prompt, dict) else ""
        work = functools.partial(compile_and_use, params.clone(), self.vllm_config, self.tokenizer, self._backend)
        if reason := await self._trials.outcome(hashlib.sha256(repr(constraint).encode()).digest(), user, work):
            raise VLLMValidationError(
                f"The grammar or schema of this request is not served: {reason}. Change it; where it is large, make it smaller: fewer "
                "optional properties, alternatives and counted repetitions.",
                parameter="response_format",
            )

    def _make(self) -> XgrammarBackend:
        """Knows the vocabulary, so that no fork has to learn it."""
        return XgrammarBackend(self.vllm_config, tokenizer=self.tokenizer, vocab_size=self._rows)


def ends_within(fields: Mapping[str, Any], rows: int) -> dict[str, list[int]]:
    """A model's `eos_token_id`, as its generation_config.json has it, without tokens it has no row for: it never makes
    those, and to keep an answer from ending (`min_tokens`) the engine core would write beyond its rows, and end.
    Nothing where there is nothing to change.
    """
    said = fields.get("eos_token_id")
    ends = said if isinstance(said, list) else [said]
    return (
        {"eos_token_id": [end for end in ends if type(end) is int and end < rows]}
        if any(type(end) is int and end >= rows for end in ends)
        else {}
    )


def check_tokens(prompt: Any, rows: int) -> None:
    """Raises VLLMValidationError for a token that the model has no row for."""
    ids = prompt.get("prompt_token_ids") if isinstance(prompt, dict) else None
    if ids and max(ids) >= rows:
        raise VLLMValidationError(
            f"Token id {max(ids)} is beyond this model's vocabulary of {rows} tokens. Send text, or ids of its own tokenizer.",
            parameter="prompt",
        )


def compile_and_use(params: SamplingParams, config: Any, tokenizer: Any, backend: XgrammarBackend) -> None:
    """In the fork. Raises whatever is wrong with it."""
    import xgrammar  # by now vLLM has: importing it costs a start that needs none half a second

    params._validate_structured_outputs(config.model_config, config.structured_outputs_config, tokenizer)
    constraint = params.structured_outputs
    if constraint._backend != "xgrammar":
        return  # others compile as they check
    grammar = backend.compile_grammar(*get_structured_output_key(constraint))
    mask = xgrammar.allocate_token_bitmask(1, backend.vocab_size)
    words, chance = mask.numpy()[0], random.Random(0)
    for step in range(STEPS):
        if grammar.is_terminated():
            return
        began = time.process_time()
        grammar.fill_bitmask(mask, 0)
        if time.process_time() - began > MOST_STEP_SECONDS:
            raise ValueError(SLOW)
        allowed = [place for place, word in enumerate(words) if word]
        if not allowed and step == 0:
            raise ValueError(EMPTY)  # the engine would find out once it has read the prompt, and fail
        if not allowed:
            return
        place = chance.choice(allowed)
        bits = [bit for bit in range(32) if words[place] & (1 << bit if bit < 31 else -1 << 31)]
        grammar.accept_tokens("trial", [32 * place + chance.choice(bits)])
