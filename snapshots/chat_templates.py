"""Whether a model has a chat template that can be read: one that cannot would fail every chat at its first call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snapshots.errors import PackError
from snapshots.texts import ANEW

NONE = (
    "it has no chat template: /v1/completions serves it, /v1/chat/completions answers 400. Put chat_template.jinja into the folder, or give "
    "one with --engine-arg chat-template='…', if it is a model for chats"
)
MEND = f"{ANEW}, or mend it"


def check_chat_templates(folder: Path, paths: list[str], documents: dict[str, dict[str, Any]]) -> bool:
    """Whether there is one; each there is can be read. Raises PackError."""
    found = _templates(folder, paths, documents)
    if found:
        from jinja2 import TemplateSyntaxError
        from jinja2.ext import Extension
        from jinja2.nodes import Node
        from jinja2.parser import Parser
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Generation(Extension):
            """`{% generation %}`, which transformers adds for training."""

            tags = {"generation"}

            def parse(self, parser: Parser) -> list[Node]:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        reader = ImmutableSandboxedEnvironment(extensions=[Generation, "jinja2.ext.loopcontrols"])
        for path, template in found.items():
            try:
                reader.parse(template)
            except (TemplateSyntaxError, RecursionError) as error:
                at = f" in line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
                raise PackError(
                    f"the chat template in {path} cannot be read ({str(error)[:200]}{at}): {MEND}"
                ) from None
    return bool(found) or "tekken.json" in paths


def _templates(folder: Path, paths: list[str], documents: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Where → template."""
    found: dict[str, str] = {}
    for path in paths:
        if path == "chat_template.jinja" or (path.startswith("additional_chat_templates/") and path.endswith(".jinja")):
            try:
                found[path] = (folder / path).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise PackError(f"{path} is not text in UTF-8: {MEND}") from None
    for path in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        given = documents.get(path, {}).get("chat_template")
        if isinstance(given, str):
            found[path] = given
        elif isinstance(given, dict | list):
            several = (
                [each.get("template") for each in given if isinstance(each, dict)]
                if isinstance(given, list)
                else list(given.values())
            )
            found |= {
                f"{path} (number {number})": each for number, each in enumerate(several, 1) if isinstance(each, str)
            }
    return found
