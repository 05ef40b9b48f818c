"""The demo model as it lies in the repository: what an engine, a snapshot store and a reader of its answers rely on.

Nothing here imports torch: the files are read as bytes and JSON, so these tests take milliseconds on any machine.
"""

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

DEMO = Path(__file__).resolve().parents[2] / "snapshots" / "demo"
MODEL = DEMO / "model"
WEIGHTS = MODEL / "model.safetensors"
MAX_WEIGHTS_BYTES = 8_000_000
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DEMO / "questions.jsonl").read_text(encoding="utf-8").splitlines()]


def read_json(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((MODEL / name).read_text(encoding="utf-8"))
    return content


def header() -> tuple[int, dict[str, Any]]:
    """Length of the safetensors header in bytes, and the header."""
    with WEIGHTS.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        content: dict[str, Any] = json.loads(file.read(length))
    content.pop("__metadata__", None)
    return length, content


def render(messages: list[dict[str, Any]], *, add_generation_prompt: bool = True) -> str:
    source = (MODEL / "chat_template.jinja").read_text(encoding="utf-8")
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    return template.render(messages=messages, add_generation_prompt=add_generation_prompt)


def test_every_row_is_one_question_with_one_plain_answer() -> None:
    for row in rows():
        assert set(row) == {"question", "answer"}
        for text in row.values():
            assert isinstance(text, str)
            assert text == text.strip()
            assert text
            assert "<|" not in text  # would be read as a special token
    assert len(rows()) >= 300


def test_no_question_is_asked_twice_whatever_its_case_and_punctuation() -> None:
    questions = [re.sub(r"\W+", " ", row["question"].lower()).strip() for row in rows()]
    assert len(set(questions)) == len(questions)


def test_answers_are_short_and_the_longest_still_lets_a_stream_be_seen() -> None:
    words = sorted(len(row["answer"].split()) for row in rows())
    assert 15 <= words[len(words) // 2] <= 60
    assert 100 <= words[-1] <= 150


def test_the_folder_holds_the_standard_files_and_no_code() -> None:
    assert {path.name for path in MODEL.iterdir()} == FILES


def test_weights_fit_in_the_repository_and_fill_their_file() -> None:
    length, tensors = header()
    assert WEIGHTS.stat().st_size <= MAX_WEIGHTS_BYTES
    spans = sorted(tuple(tensor["data_offsets"]) for tensor in tensors.values())
    assert [begin for begin, _ in spans] == [0, *[end for _, end in spans][:-1]]
    assert WEIGHTS.stat().st_size == 8 + length + spans[-1][1]


def test_every_tensor_is_bfloat16_and_as_long_as_its_shape_says() -> None:
    _, tensors = header()
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}
    for tensor in tensors.values():
        begin, end = tensor["data_offsets"]
        assert end - begin == 2 * math.prod(tensor["shape"])


def test_config_is_a_plain_llama_that_agrees_with_the_weights_and_the_tokenizer() -> None:
    config = read_json("config.json")
    tokenizer = read_json("tokenizer.json")
    _, tensors = header()
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["head_dim"] == 64
    assert config["max_position_embeddings"] == 1024
    assert tensors["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    assert sorted(tokenizer["model"]["vocab"].values()) == list(range(config["vocab_size"]))


@pytest.mark.parametrize("name", sorted(FILES - {"model.safetensors"}))
def test_no_file_asks_for_code_or_names_the_machine_it_was_made_on(name: str) -> None:
    text = (MODEL / name).read_text(encoding="utf-8")
    assert "auto_map" not in text
    assert "trust_remote_code" not in text
    assert not re.search(r"/(?:work|home|root|tmp|usr)/", text)


def test_the_end_token_is_the_one_the_engine_stops_at() -> None:
    ends = [token for token in read_json("tokenizer.json")["added_tokens"] if token["content"] == "<|end|>"]
    assert [(token["id"], token["special"]) for token in ends] == [(read_json("config.json")["eos_token_id"], True)]
    assert read_json("generation_config.json")["eos_token_id"] == ends[0]["id"]
    assert read_json("tokenizer_config.json")["eos_token"] == "<|end|>"


def test_one_message_renders_as_the_text_the_model_was_trained_on() -> None:
    assert render([{"role": "user", "content": " What is a hold? "}]) == "<|user|>What is a hold?<|end|><|assistant|>"


def test_a_conversation_renders_in_order_with_its_system_message() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "tool", "content": None},
    ]
    expected = "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|><|user|><|end|>"
    assert render(messages, add_generation_prompt=False) == expected
