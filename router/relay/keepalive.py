"""Tells a held stream that it is held: our own head after 5 s, and a comment every 5 s. Step 5.

So no client, and no proxy on the way, gives up. Nothing is sent for the first 5 s, so that a failure is still a proper
status. A comment is one line and no frame. A blank line behind it would end an event without data, and SDKs of several
languages take that for one, or for the end. The failure to survive is a request that goes back to the hold: its next
comment comes when it would have come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from router.clock import Clock, Timer
from router.relay.answer import Answer

WAITING_SECONDS = 5.0


class Keepalive:
    """The comments of one held stream. `describe` gives the comment, `fields` the head's fields."""

    __slots__ = ("_answer", "_clock", "_describe", "_fields", "_next", "_seconds", "_timer")

    def __init__(
        self,
        *,
        clock: Clock,
        seconds: float,
        answer: Answer,
        fields: Iterable[tuple[bytes, bytes]],
        describe: Callable[[], bytes],
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._answer = answer
        self._fields = fields
        self._describe = describe
        self._next = clock.time() + seconds
        self._timer: Timer | None = None
        self.start()

    def start(self) -> None:
        self._timer = self._clock.call_at(self._next, self._tell)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        if not self._answer.committed:
            self._answer.commit(self._fields)
        self._answer.write(self._answer.framed(self._describe()))
        self._next = self._clock.time() + self._seconds
        self.start()


def comment(phase: str, eta: float, fetched: float | None = None, waits_for: str = "") -> bytes:
    """`: pilotlight phase=load eta=0.8s`, `: pilotlight phase=fetch fetched=63% eta=12.0s`, `: pilotlight phase=place
    (why)`; an eta of 0 is not known and not told, and none that is known reads 0; nor is one of a start that waits.
    """
    if waits_for:
        return b": pilotlight phase=%s (%s)\n" % (phase.encode(), " ".join(waits_for.split()).encode())
    done = b" fetched=%d%%" % (fetched * 100) if fetched is not None else b""
    return b": pilotlight phase=%s%s%s\n" % (phase.encode(), done, b" eta=%.1fs" % max(eta, 0.1) if eta > 0 else b"")
