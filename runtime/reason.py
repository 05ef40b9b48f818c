"""Why an engine refuses what it is given, in its own words, as far as they help whoever deploys. Pure.

An engine's error may have pages. What must survive is its sense: it is given in complete sentences, from the first on.
It ends before advice that nobody can follow here, which is to set variables: an engine is started with an allow-list of
them.
"""

from __future__ import annotations

import re

VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9]\b")
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z'\"`(])")


def first_sentences(text: str, longest: int) -> str:
    """The first sentences, of no more than `longest` characters together; of a first one that is longer, its first
    words.
    """
    first, *rest = _END.split(" ".join(text.split()))
    kept = first if len(first) <= longest else f"{first[: longest - 2].rpartition(' ')[0] or first[: longest - 2]} …"
    for sentence in rest:
        if VARIABLE.search(sentence) or len(kept) + 1 + len(sentence) > longest:
            break
        kept += f" {sentence}"
    return kept
