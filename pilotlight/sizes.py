"""Bytes as people read them, in powers of 1000: in messages, tables and logs."""

from __future__ import annotations


def human(count: float) -> str:
    """Such as 25.3 GB."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB" if abs(count) < 1000 else f"{count / 1000:.1f} TB"
