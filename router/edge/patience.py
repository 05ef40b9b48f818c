"""Decides until when a client must have sent what is its turn to send. Step 1; pure, time is an argument, in the loop's
seconds.

A head, or each `BODY_STEP` of a body, is to come within `header_seconds`, and all of a body within `upload_seconds`.
Who sends a byte now and then gets no further time by it. The failure to survive is a connection without any deadline.
"""

from __future__ import annotations

from router.edge.exchange import ClientLimits

BODY_STEP = 64 << 10  # bytes
LINGER_SECONDS = 1.0  # after a refusal the client did not wait for: else its answer is lost in a connection reset


class Patience:
    """Of one connection. `until`: the deadline that counts while something is due from the client."""

    __slots__ = ("_complete_by", "_headed", "_limits", "_mark", "_message", "until")

    def __init__(self, limits: ClientLimits, now: float) -> None:
        self._limits = limits
        self.until = now + limits.header_seconds
        self._message = 0
        self._headed = False
        self._mark = BODY_STEP
        self._complete_by = 0.0

    def rest(self, now: float, message: int, headed: bool, body: int) -> None:
        """A segment has ended, and the connection's so-many-eth request is not whole: `headed`: its head is; `body`: so
        many bytes of it are here.

        It has `header_seconds` again where this is its first segment, the one its head was whole in, or one that made
        the next step of its body.
        """
        renewed = message != self._message
        if renewed:
            self._message = message
            self._headed = False
            self._mark = BODY_STEP
            self._complete_by = now + self._limits.upload_seconds
        if headed and not self._headed:
            renewed = self._headed = True
        if body > self._mark:
            renewed, self._mark = True, body + BODY_STEP
        if renewed:
            self.until = min(now + self._limits.header_seconds, self._complete_by)

    def answered(self, now: float, *, complete: bool) -> None:
        """Nothing is due from us; `complete`: nor is there more to come of the last request."""
        self.until = now + (self._limits.keep_alive_seconds if complete else self._limits.header_seconds)

    def linger(self, now: float) -> None:
        self.until = now + LINGER_SECONDS

    def refusal(self) -> str:
        """What a client hears whose time is over."""
        limits = self._limits
        return (
            f"The request came too slowly. Send it, or the next {BODY_STEP >> 10} KiB of it, within {limits.header_seconds:g} s, "
            f"and all of it within {limits.upload_seconds:g} s."
        )
