"""Step 1: until when a client must have done what is its turn to do. Pure: time is an argument, in the loop's seconds.

A head, or each `BODY_STEP` of a body, is to come within `header_seconds`, and all of a body within `upload_seconds`: who sends a byte now and
then gets no further time by it. The failure to survive is a connection without any deadline.
"""

from __future__ import annotations

from router.exchange import ClientLimits

BODY_STEP = 64 << 10  # bytes
LINGER_SECONDS = 1.0  # after a refusal the client did not wait for: else its answer is lost in a connection reset


class Patience:
    """Of one connection. `until`: the deadline that counts while something is due from the client."""

    __slots__ = ("_body", "_limits", "_mark", "_renewed", "_whole_by", "until")

    def __init__(self, limits: ClientLimits, now: float) -> None:
        self._limits = limits
        self.until = now + limits.header_seconds
        self._whole_by = 0.0
        self._body, self._mark = 0, BODY_STEP
        self._renewed = False

    def begun(self) -> None:
        """The first byte of a request is here."""
        self._renewed, self._whole_by = True, 0.0
        self._body, self._mark = 0, BODY_STEP

    def head(self) -> None:
        """Its head is whole."""
        self._renewed = True

    def body(self, size: int) -> None:
        self._body += size
        if self._body > self._mark:
            self._mark = self._body + BODY_STEP
            self._renewed = True

    def rest(self, now: float) -> None:
        """A segment has ended, and the request is not whole."""
        if self._renewed:
            self._renewed = False
            self._whole_by = self._whole_by or now + self._limits.upload_seconds
            self.until = min(now + self._limits.header_seconds, self._whole_by)

    def answered(self, now: float, *, whole: bool) -> None:
        """Nothing is due from us; `whole`: nor is there more to come of the last request."""
        self.until = now + (self._limits.keep_alive_seconds if whole else self._limits.header_seconds)

    def linger(self, now: float) -> None:
        self.until = now + LINGER_SECONDS

    def told(self) -> str:
        """What a client hears whose time is over."""
        limits = self._limits
        return (
            f"The request did not come whole in time: send it, or the next {BODY_STEP >> 10} KiB of it, within {limits.header_seconds:g} s, "
            f"and all of it within {limits.upload_seconds:g} s."
        )
