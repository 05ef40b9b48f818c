"""The join: a request's open record, its end and what the engine journalled become one settlement, in whatever order
they come.

Step 12, the pure part: no I/O, time is an argument. The failure to survive is repetition. Files are read again from
their start after a crash, lines come twice, and Postgres refuses a batch it has taken. Each request goes one way only
(above an arrow is what makes it, below it the method):

    new ──open──→ open ──end──→ waiting ──journal, or word that none comes──→ ready ──Postgres has it──→ settled
         add       │     add     ↑ │       journal, concluded, expire           │ ↑          settled
                   │             │ └ (an end the engine told in band            │ └─ give_back: it may not
                   └─router lost─┘    skips waiting)                            └── next_batch
                        lost

An end whose open is not (yet) known stays `new`. A router writes the open first, so the open was in a file that has
been settled and deleted, and the end with it.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from router.ledger.watermark import Word
from router.spool.record import EndRecord, OpenRecord
from runtime.wire import UsageEntry

MOST_WAITING = 50_000  # about 100 MB; beyond it the oldest are settled by what is known, and corrected by what comes


@dataclass(slots=True, eq=False)
class PendingUsage:
    """One request on its way into `usage`."""

    event_id: str
    worker: str
    files: tuple[str, ...] = ()  # the spool files that have lines of it
    open: OpenRecord | None = None
    end: EndRecord | None = None
    engine: UsageEntry | None = None
    state: Literal["new", "open", "waiting", "ready", "settled"] = "new"


class Join:
    """All requests with a line in a spool file that still exists."""

    def __init__(self) -> None:
        self._cases: dict[str, PendingUsage] = {}
        self._events: dict[str, list[str]] = defaultdict(list)  # by file: the requests with a line in it
        self._unsettled: dict[str, int] = defaultdict(int)  # by file: those of them neither new nor settled
        # since when, monotonic seconds; who was looked up longest ago first
        self._waiting: OrderedDict[str, float] = OrderedDict()
        self._ready: deque[PendingUsage] = deque()
        self._taken = 0

    @property
    def backlog(self) -> int:
        """Requests ready but not yet settled: what must be bounded while Postgres is away."""
        return len(self._ready) + self._taken

    @property
    def waiting(self) -> list[str]:
        """Whose journal rows are wanted."""
        return list(self._waiting)

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def ready(self) -> int:
        return len(self._ready)

    def add(self, record: OpenRecord | EndRecord, *, file: str, worker: str, now: float) -> None:
        """Take in a line of a spool file; one that was seen before changes nothing."""
        case = self._cases.get(record.event_id)
        if case is None:
            case = self._cases[record.event_id] = PendingUsage(record.event_id, worker)
        if file not in case.files:
            case.files += (file,)
            self._events[file].append(case.event_id)
            self._unsettled[file] += case.state not in ("new", "settled")
        if case.state == "settled":
            return
        if isinstance(record, EndRecord):
            if case.end is not None:
                return
            case.engine = best(record, [case.engine]) if case.engine else None
            case.end = record  # also of a request given up as lost a moment too early
        elif case.open is None:
            case.open, case.state = record, "open"
            for name in case.files:
                self._unsettled[name] += 1
        else:
            return
        if case.state in ("open", "waiting") and case.end is not None:
            if case.end.count_source in ("relayed", "none") and case.end.replica_id:
                self._wait(case, now)
            else:
                self._settle(case)
            while len(self._waiting) > MOST_WAITING:
                self._settle(self._cases[next(iter(self._waiting))])

    def lost(self, worker: str, *, now: float) -> None:
        """The worker is dead and its files are read to their ends: what it opened and did not end, it never will."""
        for case in self._cases.values():
            if case.state == "open" and case.worker == worker:
                self._wait(case, now)

    def journal(self, entries: Iterable[UsageEntry]) -> None:
        """What engines produced, for requests that wait for it.

        Of a request without an end nobody knows where it was at last: its router may have tried again elsewhere. So
        what one replica says of it settles nothing before it is known that no other will speak (`concluded`).
        """
        found: dict[str, list[UsageEntry]] = defaultdict(list)
        for entry in entries:
            if entry.request_id in self._waiting:
                found[entry.request_id].append(entry)
        for event_id, of_request in found.items():
            case = self._cases[event_id]
            case.engine = best(case.end, of_request)
            if case.engine is not None and case.end is not None:
                self._settle(case)

    def to_look_up(self, most: int) -> list[str]:
        """Up to so many that wait, those first that were looked up longest ago."""
        asked = list(islice(self._waiting, most))
        for event_id in asked:
            self._waiting.move_to_end(event_id)
        return asked

    def whereabouts(self, asked: Iterable[str]) -> tuple[list[str], list[str]]:
        """(the replicas these were at, the endpoints of those of which nobody knows where they were)."""
        replicas, endpoints = set[str](), set[str]()
        for case in self._still_waiting(asked):
            if case.end is not None:
                replicas.add(case.end.replica_id)
            elif case.open is not None:
                endpoints.add(case.open.endpoint_id)
        return sorted(replicas), sorted(endpoints)

    def concluded(self, word: Word, *, asked: Iterable[str]) -> None:
        """Behind this word the journal was looked up for these, which waited when it was asked for: who cannot get
        another line is ready.
        """
        for case in self._still_waiting(asked):
            if case.open is not None and not word.may_come(case.open, case.end):
                self._settle(case)

    def expire(self, *, asked: Iterable[str], before: float) -> None:
        """The last resort: the journal had nothing for these now, and those that have waited since `before` wait no
        longer.
        """
        for case in self._still_waiting(asked):
            if self._waiting[case.event_id] <= before:
                self._settle(case)

    def _still_waiting(self, asked: Iterable[str]) -> list[PendingUsage]:
        return [self._cases[event_id] for event_id in asked if event_id in self._waiting]

    def next_batch(self, limit: int) -> list[PendingUsage]:
        """Up to `limit` requests to settle; each must come back through `settled` or `give_back`."""
        cases = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        self._taken += len(cases)
        return cases

    def settled(self, cases: Iterable[PendingUsage]) -> None:
        """Postgres has them."""
        for case in cases:
            case.state = "settled"
            case.open = None
            case.end = None
            case.engine = None
            self._taken -= 1
            for name in case.files:
                self._unsettled[name] -= 1

    def give_back(self, cases: Iterable[PendingUsage]) -> None:
        """Postgres does not have them, or may not: first in the queue again."""
        for case in reversed(list(cases)):
            self._taken -= 1
            self._ready.appendleft(case)

    def is_clear(self, file: str) -> bool:
        """Whether every request with a line in the file is settled."""
        return not self._unsettled.get(file)

    def forget(self, file: str) -> None:
        """The file is gone."""
        self._unsettled.pop(file, None)
        for event_id in self._events.pop(file, ()):
            case = self._cases[event_id]
            case.files = tuple(name for name in case.files if name != file)
            if not case.files:
                del self._cases[event_id]

    def _wait(self, case: PendingUsage, now: float) -> None:
        case.state = "waiting"
        self._waiting[case.event_id] = now

    def _settle(self, case: PendingUsage) -> None:
        self._waiting.pop(case.event_id, None)
        case.state = "ready"
        self._ready.append(case)


def best(end: EndRecord | None, entries: Iterable[UsageEntry]) -> UsageEntry | None:
    """The entry that counts for a request: of the replica it was at last, where that is known; whole rather than
    partial.
    """
    of_it = [entry for entry in entries if end is None or not end.replica_id or entry.replica_id == end.replica_id]
    return max(of_it, key=lambda entry: (not entry.partial, entry.output_tokens), default=None)
