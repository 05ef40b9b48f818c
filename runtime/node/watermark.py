"""The watermark of usage: word that a replica's journal is sent up to a moment, for the ledger. Step 12.

`Ship` asks; it comes after whatever the ledger waits for had ended at its router. A replica has then been given all of
it, and when its event loop has turned in two beats it has at least begun it. What its last beat does not have in work,
and its journal has no line of, it never made. A replica that is gone has said all it will. The failures to survive: one
that hangs is left out of the answer, and the ledger asks again. One that has not beaten yet is still being built, and
nobody has been sent to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from runtime.node.last_counts import Counts
from runtime.node.usage_shipper import UsageShipper
from runtime.wire import RequestCount, Shipped

BEATS = 2
LEAST_SECONDS = 2.0  # for what has never beaten
MOST_SECONDS = 4.0  # then the answer is given without those that have not

Answer = Callable[[Shipped], None]


@dataclass(slots=True)
class _Asked:
    token: int
    answer: Answer
    at: float  # monotonic seconds
    due: dict[
        str, int
    ]  # by replica that lived then: at how many turns it has begun all it had been given; 0: it had never beaten


class Watermark:
    """`living`: the replicas there are now. `look` is called each second."""

    def __init__(self, *, shipper: UsageShipper, counts: Counts, living: Callable[[], Iterable[str]]) -> None:
        self._shipper = shipper
        self._counts = counts
        self._living = living
        self._asked: list[_Asked] = []

    def ask(self, token: int, answer: Answer, *, now: float) -> None:
        due = {
            replica_id: turns and turns + BEATS
            for replica_id in self._living()
            for turns in (self._counts.turns(replica_id),)
        }
        self._asked.append(_Asked(token, answer, now, due))
        self.look(now=now)

    def heard(
        self, replica_id: str, counts: Sequence[RequestCount], *, turned: bool, now: float, rest: bool = False
    ) -> None:
        """A beat of this replica, or the `rest` of one: what it has in work."""
        self._counts.heard(replica_id, counts, turned=turned, rest=rest)
        self.look(now=now)

    def gone(self, replica_id: str) -> None:
        """This replica is gone: what it leaves uncounted is written to its journal, and then that is called whole."""
        if self._counts.gone(replica_id):
            self._shipper.finished(replica_id)

    def retry(self) -> None:
        """Once a second: the journals a full disk did not let be ended."""
        for replica_id in self._counts.retry():
            self._shipper.finished(replica_id)

    def look(self, *, now: float) -> None:
        """Answer those who can be answered, or have waited enough."""
        if not self._asked:
            return
        living = set(self._living())
        for asked in list(self._asked):
            late = {
                name
                for name, turns in asked.due.items()
                if name in living and not self._is_due(name, turns, now - asked.at)
            }
            if not late or now - asked.at >= MOST_SECONDS:
                self._asked.remove(asked)
                self._answer(asked, late | (living - asked.due.keys()))

    def _is_due(self, replica_id: str, turns: int, waited: float) -> bool:
        return self._counts.turns(replica_id) >= turns if turns else waited >= LEAST_SECONDS

    def _answer(self, asked: _Asked, without: set[str]) -> None:
        replicas = tuple(name for name in self._shipper.sent() if name not in without)
        asked.answer(Shipped(token=asked.token, replicas=replicas, in_work=tuple(self._counts.in_work(replicas))))
