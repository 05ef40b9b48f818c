"""What a look at one thing finds: it is in order, or what is wrong and what to do. Of `doctor`, and of `ps`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`remedy` says what to do; it is empty where nothing is wrong."""

    ok: bool
    text: str
    remedy: str = ""
