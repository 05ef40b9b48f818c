"""What the router asks of an event loop: the time, and a call at a time. Steps 2, 5 and 11.

The loop itself is one; tests give one of their own, whose time moves only when they say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """Seconds of the loop's own clock, which never goes back."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer: ...
