"""The kinds of values that settings have besides numbers and words: files, stores, lists of names. Each is refused with
what may stand there.

Paths are told whole, for processes that begin in other folders read them too. What networks and origins are is told in
their own modules.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from pilotlight.lists import words
from pilotlight.paths import absolute

ARGUMENT = re.compile(r"[a-z0-9-]{1,100}", re.ASCII)  # the name of an engine argument


def _file(value: str) -> str:
    return str(absolute(Path(value))) if value else ""


def _names(value: object) -> list[str]:
    return words(value, what="names and addresses")


def _arguments(value: object) -> tuple[str, ...]:
    what = "names such as chat-template, without leading dashes"
    parts = words(value, what=what)
    if not all(map(ARGUMENT.fullmatch, parts)):
        raise ValueError(f"it is a list of {what}")
    return tuple(dict.fromkeys(parts))


def _store(url: str) -> str:
    if "://" in url and not url.startswith("s3://"):
        raise ValueError("it must be s3://BUCKET/PREFIX, or the path of a folder")
    return str(absolute(Path(url))) if url and "://" not in url else url


File = Annotated[str, AfterValidator(_file)]
Store = Annotated[str, AfterValidator(_store)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
ArgumentNames = Annotated[tuple[str, ...], BeforeValidator(_arguments)]
