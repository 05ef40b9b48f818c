"""The texts of a model, which are JSON: how each is read, and refused where it is none. While packing.

Whoever reads one reads it so: a file that one reader takes and the next one does not would be copied first and refused afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from snapshots.errors import PackError

ANEW = "get it anew from where it came from"


def read_json(content: bytes, path: str, *, pairs: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """`pairs` makes an object of its names and values, of which a name may be there twice. Raises PackError, which names the file."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise PackError(f"{path[:100]} is no JSON ({str(error)[:200]}): {ANEW}") from None
