"""The texts of a model, which are JSON: how each is read, and refused where it is not JSON. While packing.

Some megabytes of nothing but brackets become gigabytes of objects, and the reader may be the node's agent, which serves
others too. So what is larger, or holds more, than any text of a model is refused before it is parsed. Every reader
reads them so: a file that one reader takes and the next one does not would be copied first and refused afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from snapshots.errors import PackError

LARGEST_TEXT = 256 << 20  # bytes of a file that is no weights; the largest tokenizers have some 40 MB
MOST_CONTAINERS = 4_000_000  # lists and objects of one file; a tokenizer with 600,000 merges has so many
MOST_VALUES = 32_000_000
ANEW = "get it anew from where it came from"


def check_size(path: str, size: int) -> None:
    """Raises PackError."""
    if size > LARGEST_TEXT:
        raise PackError(f"{path[:200]} has {size} bytes, more than any text of a model: {ANEW}, or remove it")


def read_json(content: bytes, path: str, *, pairs: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """`pairs` makes an object of its names and values, of which a name may be there twice. Raises PackError, which
    names the file.
    """
    if content.count(b"[") + content.count(b"{") > MOST_CONTAINERS or content.count(b",") > MOST_VALUES:
        raise PackError(f"{path[:100]} has more values than any text of a model: {ANEW}, or remove it")
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise PackError(f"{path[:100]} is not JSON ({str(error)[:200]}): {ANEW}") from None
