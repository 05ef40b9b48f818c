"""Step 3: every field of the engine's own request models is in a table of ours. A release of vLLM with a new one fails
here.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import transformers
from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES
from transformers.tokenization_python import PythonBackend
from transformers.utils.chat_template_utils import render_jinja_template
from vllm.config import StructuredOutputsConfig
from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensRequest, AnthropicMessagesRequest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingChatRequest, EmbeddingCompletionRequest
from vllm.entrypoints.pooling.scoring.protocol import RerankRequest, ScoreRequest
from vllm.renderers.chat_utils import MM_PARSER_MAP
from vllm.renderers.hf import safe_apply_chat_template
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

from router.admission.field_tables import (
    ARGUMENTS,
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    IGNORED,
    MESSAGES,
    RERANK,
    RESPONSES,
    SCORE,
)
from router.admission.fields import Table, Wants, platform
from router.admission.media import EMBEDDINGS as TENSORS
from router.admission.media import MEDIA, TEXTS, messages
from router.admission.schemas import structured_outputs
from router.errors import BadRequest
from runtime.engine.guarding import EMPTY, compile_and_use, ends_within
from snapshots.errors import CodeRefused
from snapshots.tokenizer_files import PATHS, check_paths
from tests.integration.system import MODEL

MODELS: list[tuple[Any, Table]] = [
    (ChatCompletionRequest, CHAT),
    (CompletionRequest, COMPLETIONS),
    (EmbeddingCompletionRequest, EMBEDDINGS),
    (EmbeddingChatRequest, EMBEDDINGS),
    (ResponsesRequest, RESPONSES),
    (AnthropicMessagesRequest, MESSAGES),
    (RerankRequest, RERANK),
    *[(model, SCORE) for model in get_args(ScoreRequest)],
    (AnthropicCountTokensRequest, COUNT_TOKENS),
]


@pytest.mark.parametrize(("model", "table"), MODELS, ids=lambda each: getattr(each, "__name__", ""))
def test_every_field_of_the_engine_has_been_thought_of(model: Any, table: Table) -> None:
    known = set(model.model_fields) | {field.alias for field in model.model_fields.values() if field.alias}
    assert known - set(table) == set(), (
        "decide for each: a rule with its maximum, an allowance, the platform's, or not served"
    )


@pytest.mark.parametrize(("model", "table"), MODELS, ids=lambda each: getattr(each, "__name__", ""))
def test_what_salts_and_orders_is_the_platforms_wherever_the_engine_has_it(model: Any, table: Table) -> None:
    for name in {
        "cache_salt",
        "priority",
        "request_id",
        "vllm_xargs",
        "kv_transfer_params",
        "ec_transfer_params",
    } & set(model.model_fields):
        assert table[name] is platform, name


def test_what_is_ignored_is_nothing_to_the_engine() -> None:
    """A field that makes no difference here must make none there."""
    assert set(IGNORED) & set(ChatCompletionRequest.model_fields) == set()
    assert set(IGNORED) & set(CompletionRequest.model_fields) == set()


def test_every_kind_of_part_is_text_or_media_or_refused() -> None:
    assert set(MM_PARSER_MAP) <= TEXTS | MEDIA | TENSORS


@pytest.mark.parametrize("kind", sorted(set(MM_PARSER_MAP) - TEXTS))
def test_no_part_that_the_engine_opens_passes_as_text(kind: str) -> None:
    for part in (
        {"type": kind, kind: "data:,"},
        {kind: "data:,"},
        {"type": "text", "text": "a", kind: "data:,", "uuid": "u"},
    ):
        wants = Wants()
        try:
            messages([{"role": "user", "content": [part]}], "messages", wants)
        except BadRequest:
            continue
        assert "media" in wants.allowances, part


def test_every_way_to_shape_an_answer_is_bounded() -> None:
    for name in {field for field in StructuredOutputsParams.__dataclass_fields__ if not field.startswith("_")}:
        structured_outputs({name: None}, "structured_outputs", Wants())


NO_ANSWER: list[dict[str, Any]] = [
    {"json": {"$ref": "#"}},
    {"json": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
    {"grammar": "root ::= root"},
    {"grammar": "root ::= a\na ::= root"},
    {"grammar": "start: start"},
    {"regex": r"[^\s\S]"},
]
ANSWERS: list[dict[str, Any]] = [
    {"json": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}},
    {"json": {"type": "object"}},
    {"grammar": 'root ::= "a" root'},
    {"grammar": 'root ::= ""'},
    {"regex": ""},
    {"choice": ["", "north"]},
]


@pytest.fixture(scope="module")
def grammars() -> Callable[[dict[str, Any]], None]:
    """Tries a constraint as a replica of the demo model would."""
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    model = SimpleNamespace(is_diffusion=False, hf_config=SimpleNamespace(model_type="llama"))
    config = SimpleNamespace(
        model_config=model, structured_outputs_config=StructuredOutputsConfig(), speculative_config=None
    )
    backend = XgrammarBackend(config, tokenizer=tokenizer, vocab_size=len(tokenizer))

    def attempt(constraint: dict[str, Any]) -> None:
        params = SamplingParams(structured_outputs=StructuredOutputsParams(**constraint))
        compile_and_use(params, config, tokenizer, backend)

    return attempt


@pytest.mark.parametrize("constraint", NO_ANSWER, ids=str)
def test_what_allows_no_answer_is_found_out_before_a_prompt_is_read(
    grammars: Callable[[dict[str, Any]], None], constraint: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=re.escape(EMPTY)):
        grammars(constraint)


@pytest.mark.parametrize("constraint", ANSWERS, ids=str)
def test_what_allows_an_answer_is_served(
    grammars: Callable[[dict[str, Any]], None], constraint: dict[str, Any]
) -> None:
    grammars(constraint)


def makers_of_tokenizers() -> Iterator[tuple[str, str, str]]:
    """(class, what its maker takes, as what) of every tokenizer the engine may make of a folder."""
    names = {
        name
        for value in TOKENIZER_MAPPING_NAMES.values()
        for name in (value if isinstance(value, tuple | list) else [value])
        if name
    }
    for name in sorted(names):
        found = getattr(transformers, name)
        # by the model's own files, whatever its configuration says
        replaced = set(getattr(found, "vocab_files_names", None) or {})
        for kind in found.__mro__[:-1]:
            for entry, given in inspect.signature(kind.__init__).parameters.items():
                if entry not in replaced:
                    yield name, entry, str(given.annotation)


def test_no_entry_of_a_tokenizers_configuration_is_a_path_that_packing_takes() -> None:
    taken = {entry for _, entry, kind in makers_of_tokenizers() if "str" in kind and ("dict" in kind or "list" in kind)}
    paths = {entry for _, entry, kind in makers_of_tokenizers() if "Path" in kind}
    harmless = {
        "extra_special_tokens",
        "additional_special_tokens",
        "model_input_names",
        "model_specific_special_tokens",
    }
    harmless |= {"sp_model_kwargs"}  # what it may open must be a SentencePiece model, whose lines nobody sees
    assert (taken | paths) - harmless <= set(PATHS), (
        "each of these may be opened as a file of the machine: refuse it when packing"
    )


def test_why_packing_refuses_them(tmp_path: Path) -> None:
    """A configuration's `vocab` is opened wherever it leads."""
    (tmp_path / "secret").write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\nthe secret\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "vocab.txt").write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\nharmless\n")
    said = {"tokenizer_class": "BertTokenizer", "vocab": str(tmp_path / "secret")}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(said))
    assert "the secret" in transformers.AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab()
    with pytest.raises(CodeRefused, match="read as a file of this machine"):
        check_paths(said)


def test_no_variable_of_a_template_is_an_argument_of_what_renders_it() -> None:
    given = {
        name
        for function in (PythonBackend.apply_chat_template, safe_apply_chat_template, render_jinja_template)
        for name in inspect.signature(function).parameters
    }
    assert given - ARGUMENTS == {"add_generation_prompt", "continue_final_message", "documents", "kwargs"}, (
        "fields of a request, too"
    )


@pytest.mark.parametrize(
    ("said", "kept"),
    [(0, None), ([0, 7], None), (None, None), ("a", None), ([], None), (8, []), ([0, 8, 7], [0, 7]), ([True, 99], [])],
)
def test_what_ends_an_answer_has_a_row(said: Any, kept: Any) -> None:
    assert ends_within({"eos_token_id": said}, 8) == ({} if kept is None else {"eos_token_id": kept})
    assert ends_within({}, 8) == {}
