"""Which engine arguments are nobody's to set: by every spelling that vLLM's parser takes for them, and nothing else with them."""

from __future__ import annotations

import pytest

from runtime.argument_names import REFUSED, refusal


@pytest.mark.parametrize("name", REFUSED)
def test_each_is_refused_in_every_spelling_with_a_reason_and_what_to_do(name: str) -> None:
    for spelling in (name, name.replace("-", "_"), f"--{name}", name.upper(), f"{name}.key", f"{name}+"):
        told = refusal({"dtype": "float32", spelling: "x"})
        assert told.startswith(f"engine argument {spelling}: it ") and "; " in told


@pytest.mark.parametrize("name", ["hos", "por", "trust-remote", "served_model", "middlewar", "api-ke"])
def test_the_beginning_of_a_refused_name_is_refused_with_it(name: str) -> None:
    assert "write names in full" in refusal({name: "x"})


@pytest.mark.parametrize("name", ["no-trust-remote-code", "no_enable_sleep_mode"])
def test_so_is_its_opposite(name: str) -> None:
    assert refusal({name: True})


@pytest.mark.parametrize(
    "engine_args",
    [
        {"max_model_len": 4096, "dtype": "bfloat16", "seed": 7, "tensor-parallel-size": 2},
        {"tool-call-parser": "hermes", "enable-auto-tool-choice": True, "reasoning-parser": "qwen3", "tokenizer-mode": "slow"},
        {"kv_cache_memory_bytes": 64 << 20, "load_format": "safetensors", "graphs-when-idle": True, "max-num-seqs": 4},
        {"model-impl": "transformers", "model-loader-extra-config": "{}", "enable-prefix-caching": False},
        {"chat-template": "{% for message in messages %}{{ message.content }}{% endfor %}"},
        {"generation-config": "vllm", "trust-remote-code": False, "skip-tokenizer-init": "false"},
        {},
    ],
)
def test_what_is_an_engines_own_is_let_pass(engine_args: dict[str, str | int | float | bool]) -> None:
    assert refusal(engine_args) == ""


@pytest.mark.parametrize(("name", "value"), [("chat-template", "/etc/passwd"), ("generation-config", "/srv"), ("trust_remote_code", True)])
def test_some_are_refused_only_with_a_value_that_opens_or_executes(name: str, value: str | bool) -> None:
    assert refusal({name: value})
