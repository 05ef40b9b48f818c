"""Step 3: every field of the engine's own request models is in a table of ours. A release of vLLM with a new one fails here."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensRequest, AnthropicMessagesRequest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingChatRequest, EmbeddingCompletionRequest
from vllm.entrypoints.pooling.scoring.protocol import RerankRequest, ScoreRequest
from vllm.renderers.chat_utils import MM_PARSER_MAP
from vllm.sampling_params import StructuredOutputsParams

from router.errors import BadRequest
from router.field_tables import CHAT, COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, IGNORED, MESSAGES, RERANK, RESPONSES, SCORE
from router.fields import Table, Wants, platform
from router.media import EMBEDDINGS as TENSORS
from router.media import MEDIA, TEXTS, messages
from router.schemas import structured_outputs

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
    assert known - set(table) == set(), "decide for each: a rule with its maximum, an allowance, the platform's, or not served"


@pytest.mark.parametrize(("model", "table"), MODELS, ids=lambda each: getattr(each, "__name__", ""))
def test_what_salts_and_orders_is_the_platforms_wherever_the_engine_has_it(model: Any, table: Table) -> None:
    for name in {"cache_salt", "priority", "request_id", "vllm_xargs", "kv_transfer_params", "ec_transfer_params"} & set(
        model.model_fields
    ):
        assert table[name] is platform, name


def test_what_is_ignored_is_nothing_to_the_engine() -> None:
    """A field that makes no difference here must make none there."""
    assert set(IGNORED) & set(ChatCompletionRequest.model_fields) == set()
    assert set(IGNORED) & set(CompletionRequest.model_fields) == set()


def test_every_kind_of_part_is_text_or_media_or_refused() -> None:
    assert set(MM_PARSER_MAP) <= TEXTS | MEDIA | TENSORS


@pytest.mark.parametrize("kind", sorted(set(MM_PARSER_MAP) - TEXTS))
def test_no_part_that_the_engine_opens_passes_as_text(kind: str) -> None:
    for part in ({"type": kind, kind: "data:,"}, {kind: "data:,"}, {"type": "text", "text": "a", kind: "data:,", "uuid": "u"}):
        wants = Wants()
        try:
            messages([{"role": "user", "content": [part]}], "messages", wants)
        except BadRequest:
            continue
        assert "media" in wants.allowances, part


def test_every_way_to_shape_an_answer_is_bounded() -> None:
    for name in {field for field in StructuredOutputsParams.__dataclass_fields__ if not field.startswith("_")}:
        structured_outputs({name: None}, "structured_outputs", Wants())
