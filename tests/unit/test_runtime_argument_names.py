"""Which engine arguments are nobody's to set: by every spelling that vLLM's parser takes for them, and nothing else
with them.
"""

from __future__ import annotations

import pytest

from runtime.argument_names import EXECUTES, OPENS, REFUSED, executes_or_opens, refusal, too_wide


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
        {
            "tool-call-parser": "hermes",
            "enable-auto-tool-choice": True,
            "reasoning-parser": "qwen3",
            "tokenizer-mode": "slow",
        },
        {"kv_cache_memory_bytes": 64 << 20, "load_format": "safetensors", "graphs-when-idle": True, "max-num-seqs": 4},
        {"model-impl": "transformers", "model-loader-extra-config": "{}", "enable-prefix-caching": False},
        {"chat-template": "{% for message in messages %}{{ message.content }}{% endfor %}"},
        {"generation-config": "vllm", "trust-remote-code": False, "skip-tokenizer-init": "false"},
        {},
    ],
)
def test_what_is_an_engines_own_is_let_pass(engine_args: dict[str, str | int | float | bool]) -> None:
    assert refusal(engine_args) == ""


@pytest.mark.parametrize(
    ("name", "value"), [("chat-template", "/etc/passwd"), ("generation-config", "/srv"), ("trust_remote_code", True)]
)
def test_some_are_refused_only_with_a_value_that_opens_or_executes(name: str, value: str | bool) -> None:
    assert refusal({name: value})


INSIDE: list[tuple[str, str | int | float | bool]] = [
    ("structured-outputs-config", '{"reasoning_parser_plugin": "/tmp/x.py"}'),
    ("structured_outputs_config.reasoning_parser_plugin", "/tmp/x.py"),
    ("structured-outputs-config.reasoning-parser-plugin", "/tmp/x.py"),
    ("compilation-config", '{"inductor_passes": {"a": "os.system"}}'),
    ("compilation-config", '{"backend": "evil.module.backend"}'),
    ("compilation-config.backend", "evil.module.backend"),
    ("compilation-config", '{"cache_dir": "/etc"}'),
    ("compilation-config.debug_dump_path", "/etc"),
    ("compilation-config", '{"pass_config": {"x": [{"local_cache_dir": "/etc"}]}}'),
    ("speculative-config", '{"method": "draft_model", "model": "/srv/other"}'),
    ("speculative-config.model", "/srv/other"),
    ("model-loader-extra-config", '{"tensorizer_uri": "s3://x/y"}'),
    ("hf-overrides", '{"trust_remote_code": true}'),
    ("additional-config", '{"worker_cls": "x.Y"}'),
    ("load-format", "tensorizer"),
    ("load-format", "runai_streamer"),
    ("load_format", "pt"),
    ("lora-modules", "a=/srv/adapter"),
    ("spec-model", "/srv/draft"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), INSIDE)
def test_what_executes_or_opens_is_refused_as_a_key_of_a_value_too_and_on_a_node(name: str, value: str) -> None:
    told = refusal({"dtype": "float32", name: value})
    assert told.startswith(f"engine argument {name}: it") and "runtime.allow_engine_args" in told
    assert executes_or_opens({"dtype": "float32", name: value}) == told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speculative-config", '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}'),
        ("compilation-config", '{"level": 0, "backend": "eager", "cudagraph_mode": "NONE"}'),
        ("compilation-config.backend", "inductor"),
        ("structured-outputs-config", '{"backend": "xgrammar"}'),
        ("hf-overrides", '{"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}'),
        ("limit-mm-per-prompt", '{"image": 0}'),
        ("chat-template", '{% set x = {"worker_cls": 1} %}{{ x }}'),
        ("load-format", "auto"),
        ("reasoning-parser", "qwen3"),
        ("override-generation-config", '{"temperature": 0.5}'),
    ],
)
def test_the_engines_own_keys_pass(name: str, value: str) -> None:
    assert refusal({name: value}) == ""


def test_a_machine_may_allow_by_name_what_executes_or_opens_and_nothing_else() -> None:
    risky = {name: "x" for name, (why, _, _) in REFUSED.items() if why in (EXECUTES, OPENS)}
    for name in REFUSED:
        assert bool(refusal({name: "x"}, [name])) is (name not in risky), name
        assert bool(executes_or_opens({name: "x"})) is (name in risky), name
    assert refusal({"chat-template": "/etc/x", "trust-remote-code": True}, ["chat-template"]).startswith(
        "engine argument trust-remote-code"
    )
    assert refusal({"compilation-config": '{"cache_dir": "/x"}'}, ["compilation-config"]) == ""


def test_a_replica_spreads_over_no_more_cpus_than_there_are() -> None:
    told = too_wide({"tensor_parallel_size": 4, "dtype": "float32"}, cpus=2)
    assert told.startswith("engine argument tensor_parallel_size=4: ") and "the node has 2" in told
    assert too_wide({"tensor-parallel-size": "2", "pipeline-parallel-size": 2}, cpus=3)
    assert (
        too_wide({"tensor-parallel-size": 2}, cpus=2)
        == too_wide({}, cpus=1)
        == too_wide({"tensor-parallel-size": "x"}, cpus=1)
        == ""
    )
