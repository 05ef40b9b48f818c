"""Lists as people write them where only text fits: words with commas between them, in an environment variable or an
option. Pure.
"""

from __future__ import annotations


def words(value: object, *, what: str) -> list[str]:
    """The items of a list of texts, as they are; or of one text with commas, without blanks around them and without
    empty ones.

    Raises ValueError for anything else: it is a list of `what`.
    """
    if isinstance(value, str):
        return [word for part in value.split(",") if (word := part.strip())]
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"it is a list of {what}")
    return list(value)
