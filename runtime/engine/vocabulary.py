"""What vLLM asks of a vocabulary before it answers anything, kept beside the baked copies. Step 8.

vLLM lists all tokens of a tokenizer to know the largest id and the longest text (0.1 s of a start with 151,000 tokens).
Both are found once per snapshot; the list itself is made when somebody asks for it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pilotlight.files import write_once
from pilotlight.parsed import json_of
from runtime.engine import seams

log = logging.getLogger("vllm.pilotlight")


def remember(file: Path, model: str) -> None:
    """For the tokenizer that lies with `model`, in this process: what `file` holds is believed; where there is none it
    is written.
    """
    seams.replace("cached tokenizer", lambda cache: kept(cache, file, model))


def kept(cache: Callable[[Any], Any], file: Path, model: str) -> Callable[[Any], Any]:
    """`get_cached_tokenizer`, which tells a cached form its largest id and longest token before it is asked for the
    list.
    """

    def cached(tokenizer: Any) -> Any:
        if tokenizer.name_or_path != model:
            return cache(tokenizer)
        known = read(file)
        if known is None:
            form = cache(tokenizer)
            _write(file, form.max_token_id, form.max_chars_per_token)
            return form
        largest_id, longest = known
        with _listing(type(tokenizer), {"x" * longest: largest_id}):
            form = cache(tokenizer)
        listed = functools.cache(tokenizer.get_vocab)
        seams.give(type(form), "get_vocab", lambda self: listed())
        return form

    return cached


@contextlib.contextmanager
def _listing(kind: type, vocabulary: dict[str, int]) -> Iterator[None]:
    """Who asks a tokenizer of this class meanwhile for its list gets that one. Of the class: a copy of an object would
    keep it.
    """
    with seams.lent(kind, "get_vocab", lambda self: vocabulary):
        yield


def read(file: Path) -> tuple[int, int] | None:
    """(largest id, characters of the longest token), or None where they are not known."""
    try:
        kept = json_of(file.read_bytes())
        return int(kept["largest_id"]), int(kept["longest_token"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(file: Path, largest_id: int, longest: int) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_once(file, json.dumps({"largest_id": largest_id, "longest_token": longest}).encode())
    except OSError as error:
        log.warning("what is known of the vocabulary is not kept, the next start lists it again (%s)", error)
