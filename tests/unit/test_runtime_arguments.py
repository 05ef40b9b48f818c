"""A replica's vLLM arguments: whose way the weights take on which device, and what the phases will say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime import logprobs
from runtime.control import Fork
from runtime.engine.arguments import arguments, fingerprint, graphs_when_idle, own_loader_reason, words
from runtime.loader.formats import MAPPED, RING


def fork(**other: Any) -> Fork:
    usual: dict[str, Any] = {
        "replica_id": "r", "endpoint": "chat", "snapshot": "/staged/sha256-1", "task": "generate", "engine_args": {}, "slots": 4,
        "folder": "/run/r", "baked": "/baked/sha256-1", "journal": "/j", "canary": "/c.json", "log": "/l", "threads": 2,
        "kv_cache_bytes": 64, "max_model_len": 128, "asked_at": 0.0, "arriving": "/partial",
    }  # fmt: skip
    return Fork(**(usual | other))


def given(device: str = "cpu", **other: Any) -> dict[str, Any]:
    return arguments(fork(**other), device=device, version="0.32.0", seed=17)


def test_on_a_cpu_weights_are_mapped_from_the_folder_of_the_copies() -> None:
    found = given()
    assert found["load-format"] == MAPPED
    assert json.loads(found["model-loader-extra-config"]) == {"baked": "/baked/sha256-1", "arriving": "/partial"}
    assert own_loader_reason(fork()) == ""


def test_on_a_gpu_they_come_through_the_ring() -> None:
    found = given("cuda")
    assert found["load-format"] == RING
    assert not {"model-loader-extra-config", "enforce-eager", "kv-cache-memory-bytes"} & found.keys()
    assert given("cuda", parks=True)["enable-sleep-mode"] is True


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["load-format", "load_format"])
def test_a_load_format_of_the_revision_gets_no_settings_of_ours(device: str, name: str) -> None:
    found = given(device, engine_args={name: "safetensors"})
    assert found["load-format"] == "safetensors" and "model-loader-extra-config" not in found
    assert own_loader_reason(fork(engine_args={name: "safetensors"})) == "load-format safetensors"
    assert (
        own_loader_reason(fork(engine_args={name: MAPPED})) == own_loader_reason(fork(engine_args={name: RING})) == ""
    ), "these say for themselves"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_start_from_nothing_kept_takes_the_engines_own_way_and_says_so(device: str) -> None:
    assert not {"load-format", "model-loader-extra-config"} & given(device, plain=True).keys()
    assert own_loader_reason(fork(plain=True)) == "after a canary that differed"


def test_settings_of_a_loader_without_its_name_are_refused() -> None:
    with pytest.raises(
        ValueError, match="model-loader-extra-config is for a load-format and none is named: set it too"
    ):
        given(engine_args={"model_loader_extra_config": '{"enable_multithread_load": true}'})
    both = {"model_loader_extra_config": '{"enable_multithread_load": true}', "load_format": "auto"}
    assert given(engine_args=both)["model-loader-extra-config"] == both["model_loader_extra_config"]


def test_a_revision_has_its_way_except_with_what_is_not_its_own() -> None:
    found = given(engine_args={"max_num_seqs": 9, "model": "other", "served-model-name": "other"})
    assert (found["max-num-seqs"], found["model"], found["served-model-name"]) == (9, "/staged/sha256-1", "chat")
    assert given(task="embed")["runner"] == "pooling"


def test_flags_are_words_without_a_value() -> None:
    assert words({"a": True, "b": False, "c": 3}) == ["--a", "--no-b", "--c", "3"]


def test_the_fingerprint_is_of_what_decides_an_answer() -> None:
    assert fingerprint(fork()) == fingerprint(fork(slots=9, folder="/elsewhere"))
    assert (
        len(
            {
                fingerprint(fork()),
                fingerprint(fork(snapshot="/staged/sha256-2")),
                fingerprint(fork(engine_args={"dtype": "float32"})),
            }
        )
        == 3
    )


def test_an_argument_of_ours_is_not_told_to_vllm() -> None:
    asked = fork(engine_args={"graphs_when_idle": True})
    assert graphs_when_idle(asked, device="cuda") and not graphs_when_idle(asked, device="cpu")
    assert "graphs-when-idle" not in given("cuda", engine_args={"graphs-when-idle": True})
    assert not graphs_when_idle(fork(), device="cuda")
    assert not graphs_when_idle(fork(engine_args={"graphs-when-idle": False}), device="cuda")
    with pytest.raises(ValueError, match="graphs-when-idle=later: write true or false"):
        graphs_when_idle(fork(engine_args={"graphs-when-idle": "later"}), device="cuda")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_replica_has_a_seed_of_its_own_unless_its_revision_names_one(device: str) -> None:
    assert given(device)["seed"] == 17
    assert given(device, engine_args={"seed": 4})["seed"] == 4


def test_media_is_fetched_from_nowhere_unless_hosts_are_named() -> None:
    assert words(given())[words(given()).index("--allowed-media-domains") + 1].endswith(".invalid")
    hosts = words(given(allow=("media",), media_hosts=("a.example", "b.example")))
    at = hosts.index("--allowed-media-domains")
    assert hosts[at + 1 : at + 3] == ["a.example", "b.example"]


def test_what_log_probabilities_of_prompts_take_at_once_is_bounded() -> None:
    assert "max-num-batched-tokens" not in given()
    for allowance in ("prompt_logprobs", "echo_logprobs"):
        assert given(allow=(allowance,))["max-num-batched-tokens"] == logprobs.TOKENS
        assert given(allow=(allowance,), slots=1000)["max-num-batched-tokens"] == 1000
    assert given(allow=("echo_logprobs",), engine_args={"max-num-batched-tokens": 64})["max-num-batched-tokens"] == 64


def test_log_probabilities_of_prompts_are_counted_where_they_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 151_936}))
    a_token = 151_936 * logprobs.TOKEN_BYTES
    assert logprobs.step_bytes(tmp_path, (), {}, slots=8) == 0
    assert logprobs.step_bytes(tmp_path, ("media",), {}, slots=8) == 0
    assert logprobs.step_bytes(tmp_path, ("echo_logprobs",), {}, slots=8) == logprobs.TOKENS * a_token
    assert logprobs.step_bytes(tmp_path, ("prompt_logprobs",), {"max_num_batched_tokens": 64}, slots=8) == 64 * a_token
