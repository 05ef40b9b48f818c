"""Moments as people write them: `10m` ago, or an ISO 8601 time. Pure but for the default `now`."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class MomentError(ValueError):
    """No moment; the text says how to write one."""


def unix_seconds(text: str, *, now: float | None = None) -> float:
    """Raises MomentError."""
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text):
        return (time.time() if now is None else now) - float(ago[1]) * UNITS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise MomentError(f"{text!r}: write 30s, 10m, 2h, 7d or 2w ago, or a time such as 2026-01-31T12:00Z (UTC unless it says)") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
