"""Greedy token ids of a model, loaded as vLLM does ("auto") or mapped ("pilotlight": before and after packing, and
after vLLM's reload), and what a load says of snapshots that are not whole. For forks: a load changes the process.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def loaded(model: str, load_format: str, baked: str) -> dict[str, Any]:
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    from runtime.loader.formats import MAPPED, report
    from runtime.loader.mapped import unpacked

    Executor.get_class = staticmethod(lambda vllm_config: UniProcExecutor)
    extra = {"model_loader_extra_config": {"baked": baked, "arriving": ""}} if load_format == MAPPED else {}
    llm = LLM(
        model,
        load_format=load_format,
        enforce_eager=True,
        max_model_len=256,
        kv_cache_memory_bytes=64 << 20,
        seed=0,
        **extra,
    )
    prompts = [
        TokensPrompt(prompt_token_ids=[1 + (number * 7 + 3 * place) % 1000 for place in range(5 + number)])
        for number in range(6)
    ]
    parameters = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, detokenize=False)

    def answers() -> list[list[int]]:
        return [list(output.outputs[0].token_ids) for output in llm.generate(prompts, parameters, use_tqdm=False)]

    postponed = len(unpacked.layers)
    said: dict[str, Any] = {"note": report.note, "postponed": postponed, "first": answers()}
    if report.note == "mapped":
        unpacked.pack_one()  # one layer packed, the others not: a reload copes with both
        llm.collective_rpc("reload_weights")
        said |= {"left": len(unpacked.layers), "reloaded": answers(), "whole": whole(llm.llm_engine.vllm_config)}
    while unpacked.pack_one():
        continue
    return said | {"packed": answers()}


def whole(vllm_config: Any) -> dict[str, Any]:
    """What is said of the snapshot as it is, without some of its tensors, with others, and for other models than its
    own.
    """
    import torch
    from vllm.config import PoolerConfig, set_current_vllm_config
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.model_executor.model_loader.utils import get_model_architecture, initialize_model
    from vllm.model_executor.models.adapters import as_embedding_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    from runtime.loader.mapped import compatibility_key, layout_of
    from snapshots.safetensors_header import read_header

    loader: Any = get_model_loader(vllm_config.load_config)
    snapshot = dict(loader.get_all_weights(vllm_config.model_config, torch.nn.Module()))
    files = Path(vllm_config.model_config.model).glob("*.safetensors")
    names = {tensor.name for file in files for tensor in read_header(file).tensors}
    layer = "model.layers.1."

    def told(*, without: str = "", more: Iterable[str] = (), embeds: bool = False, **shape: Any) -> str:
        config = copy.deepcopy(vllm_config)
        config.compilation_config.static_forward_context = {}
        for name, value in shape.items():
            setattr(config.model_config.hf_config, name, value)
        model_class = None
        if embeds:
            config.model_config.pooler_config = PoolerConfig(seq_pooling_type="LAST", tok_pooling_type="ALL")
            model_class = as_embedding_model(get_model_architecture(config.model_config)[0])

        def given(*_: Any) -> Iterator[tuple[str, torch.Tensor]]:
            yield from ((name, tensor.clone()) for name, tensor in snapshot.items() if name != without)
            yield from ((name, torch.ones(4)) for name in more)

        with set_current_vllm_config(config), set_default_torch_dtype(config.model_config.dtype):
            model = initialize_model(config, model_class=model_class)
            loader._plain.get_all_weights = given
            try:
                loader._load_complete(model, config.model_config)
            except ValueError as error:
                return str(error)
        return compatibility_key(config.model_config, layout_of(model))

    return {
        "same names": names == snapshot.keys(),
        "as it is": told(),
        "rotary": told(more=[f"{layer}self_attn.rotary_emb.inv_freq"]),
        "embeds": told(embeds=True),
        "tied": told(tie_word_embeddings=True),
        "without a shard": told(without=f"{layer}self_attn.k_proj.weight"),
        "without a layer": told(without=f"{layer}mlp.down_proj.weight"),
        "without a bias": told(attention_bias=True),
        "left over": told(more=[f"{layer}mlp.down_proj.bias"]),
    }


def made(architecture: str, folder: str) -> None:
    """A small model of it with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(1)
    shape: dict[str, Any] = {
        "vocab_size": 1024,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }
    if architecture == "Qwen3":
        model: Any = Qwen3ForCausalLM(Qwen3Config(**shape))
    else:
        model = Qwen3MoeForCausalLM(
            Qwen3MoeConfig(**shape, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=128)
        )
    for _, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)  # far from ties, so that greedy means something
    model.to(torch.bfloat16).save_pretrained(folder)
