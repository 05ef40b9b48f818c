"""The fields of each route, a closed set: what stands in no table is refused by name. Step 3.

A table says one thing of each field. It is served, and what it may hold. Only some endpoints allow it. It is the
platform's. It is not served, and what to do instead. Or it makes no difference here (`IGNORED`: clients of OpenAI are
known to send it). The failure to survive is a new release of the engine or of a client whose fields nobody has looked
at. A test takes the engine's request models and OpenAI's own parameter lists, and fails for a field that is in no
table.
"""

from __future__ import annotations

from typing import Any

from router.admission import media, schemas
from router.admission.fields import (
    INTEGER,
    SEED,
    Table,
    Wants,
    allowed,
    anything,
    bounded,
    either,
    flag,
    integer,
    list_of,
    map_of,
    never,
    number,
    object_of,
    one_of,
    only,
    platform,
    refuse,
    takes,
    text,
    texts,
)
from runtime.wire import MOST_STOPS

MOST_CHOICES = 128  # `n`, as at OpenAI; prompts times choices is bounded too (`openai.py`)
MOST_LOGPROBS = 20
MOST_TOKEN_IDS = 16_384
LONGEST_USER = 1024  # characters

PLATFORM: Table = dict.fromkeys(
    (
        "cache_salt",
        "priority",
        "kv_transfer_params",
        "ec_transfer_params",
        "vllm_xargs",
        "request_id",
        "stream_interval",
    ),
    platform,
)
# `vllm_xargs` sets whatever else an engine knows. `stream_interval` is how many tokens an event has, by which a broken
# stream is counted.

RENDERED: Table = dict.fromkeys(
    ("mm_payload", "return_mm_kwargs", "return_token_offsets", "routed_experts_prompt_start"), anything
)
# Said to matter on routes of the engine that are not served here.

SAMPLING: Table = {
    "temperature": number(0, 100),
    "top_p": number(0, 1),
    "top_k": integer(-1, INTEGER),
    "min_p": number(0, 1),
    "repetition_penalty": number(0, 100),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "length_penalty": number(-100, 100),
    "watermarking": flag,
    "seed": integer(-SEED, SEED - 1),
    "stop": either(str, text(1024), list_of(text(1024), MOST_STOPS)),
    "stop_token_ids": list_of(integer(0, INTEGER), 128),
    "include_stop_str_in_output": flag,
    "ignore_eos": flag,
    "min_tokens": integer(0, INTEGER),
    "skip_special_tokens": flag,
    "spaces_between_special_tokens": flag,
    "truncate_prompt_tokens": integer(-1, INTEGER),
    "truncation_side": one_of("left", "right"),
    "logit_bias": map_of(number(-100, 100), 1024),
    "allowed_token_ids": list_of(integer(0, INTEGER), MOST_TOKEN_IDS),
    "logprob_token_ids": never(
        "the engine would then give all who are answered beside you these tokens in place of theirs; ask for 'top_logprobs'"
    ),
    "bad_words": list_of(text(256), 128),
    "thinking_token_budget": integer(-1, INTEGER),
    "repetition_detection": object_of(
        {"max_pattern_size": integer(0, 128), "min_pattern_size": integer(0, 128), "min_count": integer(0, 128)},
    ),
    "structured_outputs": schemas.structured_outputs,
    "response_format": schemas.response_format,
    "prompt_logprobs": allowed("prompt_logprobs", integer(0, MOST_LOGPROBS)),
    "use_beam_search": only(False, otherwise="its tokens could not be counted. Ask for 'n' choices"),
}
STREAMING: Table = {"stream": flag, "stream_options": bounded(16, 1024, 3)}
COMMON: Table = {
    **PLATFORM,
    **RENDERED,
    **STREAMING,
    "model": text(512),
    "n": integer(1, MOST_CHOICES),
    "user": text(LONGEST_USER),
    "session_id": text(LONGEST_USER),
    "max_tokens": integer(0, INTEGER),
    "return_tokens_as_token_ids": flag,
    "return_token_ids": flag,
    "add_special_tokens": flag,
}
ARGUMENTS = frozenset(
    (
        "chat_template", "conversation", "conversations", "max_length", "messages", "model_config", "padding", "return_assistant_tokens_mask", "return_dict",
        "return_tensors", "self", "tokenize", "tokenizer", "tokenizer_kwargs", "tools", "truncation",
    )
)  # fmt: skip
"""What the functions on the way to a chat template take besides: no variable of a template's, and how the engine calls
them is not the caller's."""


@takes({"type": "object", "propertyNames": {"not": {"enum": sorted(ARGUMENTS)}}})
def template_variables(value: Any, name: str, wants: Wants) -> None:
    if not isinstance(value, dict):
        raise refuse(name, "must be an object")
    bounded(256, 1 << 14, 8)(value, name, wants)
    if named := next((key for key in value if key in ARGUMENTS), None):
        raise refuse(f"{name}.{named}", "is no variable of a chat template. Remove it")


TEMPLATE: Table = {
    "add_generation_prompt": flag,
    "continue_final_message": flag,
    "chat_template": allowed("chat_template", text(1 << 16)),
    "chat_template_kwargs": template_variables,
    "media_io_kwargs": allowed("media", bounded(64, 4096, 4)),
    "mm_processor_kwargs": allowed("media", bounded(64, 4096, 4)),
}
IGNORED: Table = dict.fromkeys(
    (
        "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
        "verbosity", "prediction", "moderation", "best_of", "client_metadata",
    ),
    bounded(4096, 1 << 16, 8),
)  # fmt: skip
_USE_TOOLS = never("use 'tools' and 'tool_choice'")
_GUIDED = dict.fromkeys(
    ("guided_json", "guided_regex", "guided_choice", "guided_grammar"), never("use 'structured_outputs'")
)


@takes({"type": "boolean"})
def _echo_of_a_chat(value: Any, name: str, wants: Wants) -> None:
    """The engine computes the log-probabilities of the whole prompt for it, whether they are asked for or not."""
    flag(value, name, wants)
    if value:
        wants.allowances.setdefault("echo_logprobs", name)


CHAT: Table = {
    **COMMON,
    **SAMPLING,
    **TEMPLATE,
    **IGNORED,
    **_GUIDED,
    "messages": media.messages,
    "echo": _echo_of_a_chat,
    "max_completion_tokens": integer(0, INTEGER),
    "logprobs": flag,
    "top_logprobs": integer(0, MOST_LOGPROBS),
    "tools": schemas.tools,
    "tool_choice": either(str, one_of("none", "auto", "required"), schemas.tool_choice),
    "parallel_tool_calls": flag,
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "include_reasoning": flag,
    "documents": list_of(map_of(text(1 << 20), 16), 256),
    "return_prompt_text": flag,
    "modalities": only(["text"], otherwise="models here answer in text"),
    "audio": never("models here answer in text"),
    "web_search_options": never("nothing is searched here; give the model a tool"),
    "functions": _USE_TOOLS,
    "function_call": _USE_TOOLS,
}

COMPLETIONS: Table = {
    **COMMON,
    **SAMPLING,
    **IGNORED,
    **_GUIDED,
    "prompt": texts,
    "echo": flag,  # with `logprobs` only where it is allowed: `openai.py`
    "logprobs": integer(0, MOST_LOGPROBS),
    "suffix": only("", otherwise="models here go on from a prompt; they do not fill in"),
    "prompt_embeds": never("it would have the engine open a tensor of yours; send 'prompt'"),
}

EMBEDDINGS: Table = {
    **PLATFORM,
    **{name: IGNORED[name] for name in ("metadata", "store", "service_tier", "safety_identifier")},
    "model": text(512),
    "user": text(LONGEST_USER),
    "input": texts,
    "encoding_format": one_of("float", "base64"),
    "embed_dtype": one_of("float32", "float16", "bfloat16"),
    "endianness": one_of("native", "big", "little"),
    "dimensions": integer(1, 1 << 20),
    "use_activation": flag,
    "add_special_tokens": flag,
    "padding": one_of("do_not_pad"),
    "truncate_prompt_tokens": integer(-1, INTEGER),
    "truncation_side": one_of("left", "right"),
    "mm_processor_kwargs": allowed("media", bounded(64, 4096, 4)),
    **dict.fromkeys(("messages", "media_io_kwargs", *TEMPLATE), never("send the texts as 'input'")),
}

RESPONSES: Table = {
    **PLATFORM,
    **RENDERED,
    **STREAMING,
    **{name: rule for name, rule in IGNORED.items() if name not in ("store", "best_of", "prediction", "verbosity")},
    **{
        name: SAMPLING[name]
        for name in (
            "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "watermarking", "seed",
            "stop", "stop_token_ids", "include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "logit_bias", "structured_outputs",
        )
    },
    "model": text(512),
    "user": text(LONGEST_USER),
    "session_id": text(LONGEST_USER),
    "input": media.items,
    "instructions": text(1 << 23),
    "max_output_tokens": integer(0, INTEGER),
    "max_tool_calls": integer(0, 1024),
    "tools": schemas.tools,
    "tool_choice": either(str, one_of("none", "auto", "required"), schemas.tool_choice),
    "parallel_tool_calls": flag,
    "top_logprobs": integer(0, MOST_LOGPROBS),
    "text": schemas.text_format,
    "reasoning": bounded(16, 1024, 3),
    "include_reasoning": flag,
    "include": list_of(text(128), 32),
    "truncation": one_of("auto", "disabled"),
    "store": flag,  # nothing is ever stored: the route says `false` to the engine
    "background": only(False, otherwise="answers are not kept; wait for this one, or stream it"),
    "previous_response_id": never("answers are not kept; send the whole conversation as 'input'"),
    "previous_input_messages": never("send the whole conversation as 'input'"),
    "conversation": never("answers are not kept; send the whole conversation as 'input'"),
    "context_management": never("send what is to be read as 'input'"),
    "prompt": never("no prompts are kept here; send 'input' and 'instructions'"),
    "image": never("models here answer in text"),
    "access_programs": never("nothing of the kind is run here"),
    "enable_response_messages": only(False, otherwise="it is for looking into the engine"),
    "chat_template_kwargs": TEMPLATE["chat_template_kwargs"],
    "media_io_kwargs": TEMPLATE["media_io_kwargs"],
    "mm_processor_kwargs": TEMPLATE["mm_processor_kwargs"],
}  # fmt: skip

MESSAGES: Table = {
    **PLATFORM,
    **{name: RENDERED[name] for name in ("mm_payload", "return_mm_kwargs")},
    "model": text(512),
    "messages": media.messages,
    "system": media.system,
    "max_tokens": integer(1, INTEGER),
    "stop_sequences": list_of(text(1024), MOST_STOPS),
    "stream": flag,
    "temperature": SAMPLING["temperature"],
    "top_p": SAMPLING["top_p"],
    "top_k": SAMPLING["top_k"],
    "watermarking": flag,
    "tools": schemas.tools,
    "tool_choice": schemas.tool_choice,
    "thinking": bounded(16, 1024, 3),
    "output_config": bounded(schemas.MOST_VALUES, schemas.MOST_CHARACTERS, schemas.DEEPEST),
    "chat_template_kwargs": TEMPLATE["chat_template_kwargs"],
    **dict.fromkeys(
        ("metadata", "service_tier", "container", "context_management", "betas", "inference_geo"), IGNORED["metadata"]
    ),
    "cache_control": IGNORED["metadata"],
    "mcp_servers": never("no servers are called from here; give the model tools"),
}

COUNT_TOKENS: Table = {
    **PLATFORM,
    **{
        name: MESSAGES[name]
        for name in ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
    },
    **{
        name: MESSAGES[name]
        for name in ("chat_template_kwargs", "cache_control", "betas", "mcp_servers", "context_management")
    },
}

_TEXTS = either(str, text(1 << 20), list_of(text(1 << 20), 2048))
_USE_TEXTS = never("use 'text_1' and 'text_2'")
_SCORING: Table = {
    **PLATFORM,
    **{
        name: EMBEDDINGS[name]
        for name in ("model", "user", "use_activation", "padding", "truncate_prompt_tokens", "truncation_side")
    },
    **{
        name: EMBEDDINGS[name]
        for name in ("mm_processor_kwargs", "metadata", "store", "service_tier", "safety_identifier")
    },
    "max_tokens_per_query": integer(0, INTEGER),
    "max_tokens_per_doc": integer(0, INTEGER),
    "instruction": text(1 << 16),
    "chat_template_kwargs": TEMPLATE["chat_template_kwargs"],
}
RERANK: Table = {
    **_SCORING,
    "query": text(1 << 20),
    "documents": _TEXTS,
    "top_n": integer(0, INTEGER),
    "return_documents": anything,  # of Cohere's and Jina's clients: they are always returned
}
SCORE: Table = {
    **_SCORING,
    "text_1": _TEXTS,
    "text_2": _TEXTS,
    **dict.fromkeys(("queries", "documents", "items", "data_1", "data_2"), _USE_TEXTS),
}
