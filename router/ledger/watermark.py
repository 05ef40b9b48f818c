"""Knows whether the engine's journal may still have something to say about a request: by word, never guessed by time.

Step 12, pure. The ledger asks the activator, which asks every agent, and then looks into Postgres. What is not there
then can only still come from a replica that was left out of the answers, or has the request in work. The failure to
survive is a replica nobody can ask (its node is away, or hangs). Its request waits, for it may have been billed to the
last token there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from router.spool.record import EndRecord, OpenRecord

PARTING_SECONDS = 600.0  # a replica that ended so long before a request was admitted never had it, whatever clocks say


class Unfinished(NamedTuple):
    """A replica whose journal is not known to be whole in Postgres."""

    replica_id: str
    endpoint_id: str = ""
    stopped_at: float | None = None  # Unix seconds; None: it has not ended, as far as Postgres knows


class Word(NamedTuple):
    """What was known a moment after the question."""

    covered: frozenset[str] = frozenset()  # replicas whose journals are in Postgres up to the question
    in_work: frozenset[str] = frozenset()  # requests these will still have a line of
    unfinished: tuple[Unfinished, ...] = ()
    heard: bool = True  # the activator answered; else only what Postgres has is known

    @staticmethod
    def of(
        covered: Iterable[str], in_work: Iterable[str], unfinished: Iterable[Unfinished], *, heard: bool = True
    ) -> Word:
        return Word(frozenset(covered), frozenset(in_work), tuple(unfinished), heard)

    def may_come(self, opened: OpenRecord, end: EndRecord | None) -> bool:
        """May a line of this request still come, though there is none?

        1. A replica is working on it. 2. The replica it was at has not said all it has. 3. Its router died, and nobody
           knows where it
        was: neither has one of its endpoint's replicas, of which Postgres may not know as yet.
        """
        if opened.event_id in self.in_work:
            return True  # 1
        if end is not None:
            return any(replica.replica_id == end.replica_id for replica in self._silent())  # 2
        return not self.heard or any(
            replica.endpoint_id == opened.endpoint_id
            and (replica.stopped_at is None or replica.stopped_at > opened.admitted_at - PARTING_SECONDS)
            for replica in self._silent()
        )  # 3

    def _silent(self) -> Iterable[Unfinished]:
        return (replica for replica in self.unfinished if replica.replica_id not in self.covered)
