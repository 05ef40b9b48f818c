"""Bounds how large a grammar, a schema or a set of tools may be before the engine sees it. Step 3; pure.

Such a thing is compiled against the model's whole vocabulary, which takes time and memory that grow faster than its
length. Size is bounded here, time in the replica (`runtime/serving/trial.py`), where a compilation is tried by a
process that may be ended. The failure to survive is a constraint that hides in another field: tools carry schemas too,
and a text may hold JSON.
"""

from __future__ import annotations

import json
from typing import Any

from router.admission.fields import Table, Wants, bounded, flag, object_of, one_of, refuse, takes, text, weigh

MOST_VALUES = 10_000  # of one schema
MOST_CHARACTERS = 1 << 17  # of its text, keys counted
DEEPEST = 48  # levels of JSON
MOST_TOOLS = 128
MOST_TOOL_VALUES = 20_000  # of all tools together
MOST_TOOL_CHARACTERS = 1 << 19
LONGEST_GRAMMAR = 1 << 16  # characters
LONGEST_PATTERN = 1 << 13
MOST_CHOICES = 4096
LONGEST_NAME = 256


@takes({"type": ["object", "boolean", "string"]})
def schema(value: Any, name: str, wants: Wants) -> None:
    """A JSON schema: an object, true or false, or the text of one."""
    if isinstance(value, str):
        text(MOST_CHARACTERS)(value, name, wants)
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise refuse(name, "is text, but not that of a JSON schema. Send an object") from None
    if not isinstance(value, dict | bool):
        raise refuse(name, "must be a JSON schema")
    weigh(value, name, most_values=MOST_VALUES, most_characters=MOST_CHARACTERS, deepest=DEEPEST)


@takes(
    {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": ["text", "json_object", "json_schema", "structural_tag"]}},
    }
)
def response_format(value: Any, name: str, wants: Wants) -> None:
    """`{"type": "json_schema", "json_schema": {"name", "schema", "strict"}}` and its kin."""
    kind = value.get("type") if isinstance(value, dict) else None
    rule = _FORMATS.get(kind) if isinstance(kind, str) else None
    if rule is None:
        raise refuse(name, f"must be an object whose 'type' is one of {', '.join(_FORMATS)}")
    if kind == "json_schema" and not isinstance(value.get("json_schema"), dict):
        raise refuse(f"{name}.json_schema", "is missing: it holds the 'schema' that the answer is to follow")
    rule(value, name, wants)


@takes({"type": ["object", "boolean", "string"]})
def structural_tag(value: Any, name: str, wants: Wants) -> None:
    """An object, or its text."""
    schema(value, name, wants)


@takes({"type": "array", "minItems": 1, "items": {"type": "string"}})
def choices(value: Any, name: str, wants: Wants) -> None:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise refuse(name, "must be a list of at least one string")
    weigh(value, name, most_values=MOST_CHOICES, most_characters=LONGEST_GRAMMAR, deepest=2)


@takes({"type": "array", "maxItems": MOST_TOOLS, "items": {"type": "object"}})
def tools(value: Any, name: str, wants: Wants) -> None:
    """A list of tools, each an object, bounded one by one and together."""
    if not isinstance(value, list):
        raise refuse(name, "must be a list")
    if len(value) > MOST_TOOLS:
        raise refuse(name, f"has {len(value)} tools; at most {MOST_TOOLS} are taken")
    if not all(isinstance(tool, dict) for tool in value):
        raise refuse(name, "must be a list of objects")
    weigh(value, name, most_values=MOST_TOOL_VALUES, most_characters=MOST_TOOL_CHARACTERS, deepest=DEEPEST + 3)
    for number, tool in enumerate(value):
        inner = tool.get("function", tool)
        for key in ("parameters", "input_schema"):
            given = inner.get(key) if isinstance(inner, dict) else None
            if given is not None:
                schema(given, f"{name}[{number}].{key}", wants)


tool_choice = bounded(64, 4096, 6)

SHAPING = ("structured_outputs", "response_format", "text", "output_config", "tools")
"""Fields of which the engine makes a grammar: whatever it was, it names the same one when it refuses that."""

NAMED: Table = {"name": text(LONGEST_NAME), "description": text(1 << 14), "schema": schema, "strict": flag}
_KIND = one_of("text", "json_object", "json_schema", "structural_tag")
_FORMATS = {
    "text": object_of({"type": _KIND}),
    "json_object": object_of({"type": _KIND}),
    "json_schema": object_of({"type": _KIND, "json_schema": object_of(NAMED)}),
    "structural_tag": bounded(MOST_VALUES, MOST_CHARACTERS, DEEPEST),
}
structured_outputs = object_of(
    {
        "json": schema,
        "regex": text(LONGEST_PATTERN),
        "choice": choices,
        "grammar": text(LONGEST_GRAMMAR),
        "json_object": flag,
        "disable_any_whitespace": flag,
        "disable_additional_properties": flag,
        "whitespace_pattern": text(64),
        "structural_tag": structural_tag,
    }
)
"""vLLM's own way of saying what an answer is to look like."""

text_format = object_of(
    {"format": bounded(MOST_VALUES, MOST_CHARACTERS, DEEPEST + 1), "verbosity": one_of("low", "medium", "high")},
)
"""`text` of /v1/responses: its `format` is what `response_format` is on other routes, laid out flat."""
