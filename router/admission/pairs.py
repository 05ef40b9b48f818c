"""Step 3: bounds what a request for scores makes the engine read. Pure.

The engine reads one text together with each of the others, so a long query is read once for each document. The failure
to survive is a small body with a long query and many documents, which would keep a replica busy for minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.errors import BadRequest

MOST_CHARACTERS = 4 << 20  # of all pairs together: two seconds of a tokenizer, and 150 MB of tokens at worst
MOST_TO_CUT = 256 << 10  # where texts are cut by tokens, which the engine does between the steps of others
REPEATED = ("instruction", "chat_template_kwargs")  # read with each pair
CUTS = ("max_tokens_per_query", "max_tokens_per_doc")


def check(given: Mapping[str, Any], one: str, many: str) -> None:
    """`one` and `many`: the fields of the texts. Each holds a text or a list; lists are of one or of as many as the
    other. Raises BadRequest.
    """
    firsts, seconds = _listed(given[one]), _listed(given[many])
    if not firsts:
        raise BadRequest(f"'{one}' must not be an empty list.", param=one)
    if len(firsts) not in (1, len(seconds)):
        raise BadRequest(
            f"'{one}' has {len(firsts)} texts and '{many}' {len(seconds)}. Send one text in '{one}', or as many as in '{many}'.",
            param=one,
        )
    again = sum(len(str(given.get(name) or "")) for name in REPEATED)
    rounds = len(seconds) // len(firsts)
    characters = sum(map(len, firsts)) * rounds + sum(map(len, seconds)) + again * len(seconds)
    if characters > MOST_CHARACTERS:
        raise BadRequest(
            f"The engine would read {characters} characters, as '{one}' is read with each text of '{many}'. "
            f"At most {MOST_CHARACTERS} go into one request. Send several.",
            param=one,
        )
    if characters > MOST_TO_CUT and (cut := next((name for name in CUTS if given.get(name)), "")):
        raise BadRequest(
            f"'{cut}' goes with at most {MOST_TO_CUT} characters in one request, and this one has {characters}. "
            "Send several, or shorter texts without it.",
            param=cut,
        )


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts
