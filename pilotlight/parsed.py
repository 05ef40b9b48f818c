"""JSON and TOML of others, read so that whatever is none is a ValueError. Standard library only.

Python's own readers recurse: a text that is nested too deep is a RecursionError, which nobody expects of a file. That
is the failure to survive: a thousand brackets in a note, an answer or a file of settings must not end a process.
"""

from __future__ import annotations

import json
from typing import Any

TOO_DEEP = "it is nested too deep"


def json_of(text: str | bytes) -> Any:
    """Raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def toml_of(text: str) -> dict[str, Any]:
    """Raises ValueError, of which `tomllib.TOMLDecodeError` is one."""
    import tomllib  # here alone: processes that read no file of settings do without it

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
