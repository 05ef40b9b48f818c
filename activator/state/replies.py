"""Answers to commands that wait until the routers know the result. Step 6. Pure: time is an argument.

What must survive is a router that does not answer: after `REPLY_SECONDS` the command is answered all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from activator.events import Reply
from activator.wire import Done

REPLY_SECONDS = 3.0  # how long a command waits for the routers to know its result


@dataclass(slots=True)
class Replies:
    """Those that are not given yet."""

    _waiting: list[tuple[int, float, Reply, Done]] = field(default_factory=list)  # (table sequence, deadline, …)

    def add(self, sequence: int, now: float, reply: Reply, done: Done) -> None:
        """To be given once all routers have applied the table of this sequence."""
        self._waiting.append((sequence, now + REPLY_SECONDS, reply, done))

    def give(self, acknowledged: float, now: float) -> None:
        """Those whose table is known to all, and those that have waited long enough."""
        if not self._waiting:
            return
        due = [waiting for waiting in self._waiting if acknowledged >= waiting[0] or now >= waiting[1]]
        self._waiting = [waiting for waiting in self._waiting if waiting not in due]
        for _sequence, _deadline, reply, done in due:
            reply(done)
