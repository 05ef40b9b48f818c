"""Prints greedy token ids of a model, loaded as vLLM does ("auto") or mapped ("pilotlight": before, and after packing).

python -m tests.integration.mapped_probe MODEL FORMAT BAKED_FOLDER
"""

from __future__ import annotations

import json
import os
import sys

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
os.environ |= {"TORCH_COMPILE_DISABLE": "1", "OMP_WAIT_POLICY": "passive"}


def main(model: str, load_format: str, baked: str) -> None:
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    from runtime.loader.mapped import LOAD_FORMAT, outcome, unpacked

    Executor.get_class = staticmethod(lambda vllm_config: UniProcExecutor)
    extra = {"model_loader_extra_config": {"baked": baked, "arriving": ""}} if load_format == LOAD_FORMAT else {}
    llm = LLM(model, load_format=load_format, enforce_eager=True, max_model_len=256, kv_cache_memory_bytes=64 << 20, seed=0, **extra)
    prompts = [TokensPrompt(prompt_token_ids=[1 + (number * 7 + 3 * place) % 1000 for place in range(5 + number)]) for number in range(6)]
    parameters = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, detokenize=False)

    def answers() -> list[list[int]]:
        return [list(output.outputs[0].token_ids) for output in llm.generate(prompts, parameters, use_tqdm=False)]

    postponed = len(unpacked.layers)
    first = answers()
    while unpacked.pack_one():
        continue
    print(json.dumps({"postponed": postponed, "first": first, "packed": answers(), "note": outcome.note}))


if __name__ == "__main__":
    main(*sys.argv[1:])
