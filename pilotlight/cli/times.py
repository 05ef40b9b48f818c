"""Moments and durations as people write them: `10m` ago, an ISO 8601 time; for `1h`. Pure but for the default `now`."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class MomentError(ValueError):
    """No moment, or no duration; the text says how to write one."""


def unix_seconds(text: str, *, now: float | None = None) -> float:
    """Raises MomentError."""
    if (ago := _seconds(text)) is not None:
        return (time.time() if now is None else now) - ago
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise MomentError(
            f"{text!r}: write 30s, 10m, 2h, 7d or 2w ago, or a time such as 2026-01-31T12:00Z (UTC unless it says)"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def duration_seconds(text: str) -> float:
    """Of `90s`, `10m`, `2h`, `7d` or `2w`, or a bare number of seconds. Raises MomentError."""
    seconds = _seconds(text) if text[-1:].isalpha() else _seconds(text + "s")
    if seconds is None:
        raise MomentError(f"{text!r}: write a duration such as 90s, 10m, 2h, 7d or 2w")
    return seconds


def duration(seconds: float) -> str:
    """A duration as people read it, in its largest whole units: `1h`, `1d 2h`, `90s` is `1m 30s`."""
    left, parts = round(seconds), []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def _seconds(text: str) -> float | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text, re.ASCII)
    return float(found[1]) * UNITS[found[2]] if found else None
