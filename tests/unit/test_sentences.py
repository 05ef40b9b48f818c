"""What a module says of itself is read by strangers: no sentence has more than 25 words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("pilotlight", "router", "activator", "runtime", "snapshots", "infra", "loadtests")
MOST_WORDS = 25
DOCSTRING = re.compile(r'r?"""(.*?)"""', re.S)
END = re.compile(r"(?<=[.!?])(?<!e\.g\.)\s+")


def modules() -> Iterator[str]:
    for package in PACKAGES:
        yield from (str(file.relative_to(ROOT)) for file in sorted((ROOT / package).rglob("*.py")))


def paragraphs(module: str) -> list[str]:
    """Without drawings, trees and lists, which are indented or have branches."""
    docstring = DOCSTRING.match((ROOT / module).read_text())
    found = docstring[1].split("\n\n") if docstring else []
    return [paragraph for paragraph in found if not paragraph.startswith(" ") and "├──" not in paragraph]


def sentences(paragraph: str) -> list[str]:
    return END.split(" ".join(paragraph.split()))


def words(sentence: str) -> int:
    """What is quoted as code is one word."""
    return len(re.sub(r"`[^`]*`", "code", sentence).split())


def long_sentences(module: str) -> list[str]:
    return [
        sentence
        for paragraph in paragraphs(module)
        for sentence in sentences(paragraph)
        if words(sentence) > MOST_WORDS
    ]


def test_sentences_are_told_apart_and_counted() -> None:
    assert sentences("Step 3. Reads `a b c`, e.g. this; no more.\nThen it ends.") == [
        "Step 3.",
        "Reads `a b c`, e.g. this; no more.",
        "Then it ends.",
    ]
    assert words("Reads `a b c` and ends.") == 4


def test_every_module_is_read() -> None:
    found = [module for module in modules() if paragraphs(module)]
    empty = [module for module in modules() if not paragraphs(module)]
    assert len(found) > 400 and all(not (ROOT / module).read_text().strip() for module in empty)


def test_no_sentence_is_too_long() -> None:
    faults = {module: found for module in modules() if (found := long_sentences(module))}
    assert not faults
