"""What the engine really produced, written down before the caller sees the last byte. Step 12.

One line a request in an append-only file: it survives kill -9 of every process of the replica. The agent ships the
lines to Postgres, where the ledger joins them with the router's records. The engine's side calls `opened` and `closed`
for each sequence it works on (a request with n > 1 has several). The gate calls `begun` and `ended` around the HTTP
exchange. The line is written when all of them are over, or by `settle`, just before the last byte of a complete answer.

A prompt counts once, however many sequences answer it, as in the answer's own `usage`. The failures to survive: an
engine may say the end of a sequence twice, and each is closed once. It may work for nobody we know, which is an error,
under a reserved id. On a disk without room, lines are kept here in order, `MOST_KEPT` of them, and written when there
is room; no answer breaks by it. Of a line that could be written only in part, the rest comes first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from runtime.journal_line import encode
from runtime.wire import RequestCount, UsageEntry

CANARY = "0" * 32  # the canary's request id: counted, compared, and never written
NOBODY = "f" * 32  # what the engine did for no request of ours
MOST_KEPT = 4096  # lines that found no room on the disk; then the gate admits nothing more
RETRY_SECONDS = 1.0

_ID = re.compile(r"[0-9a-f]{32}")

log = structlog.get_logger()


class Counts(NamedTuple):
    """Tokens; `cached` is part of `input`."""

    input: int = 0
    cached: int = 0
    output: int = 0


class Sequence(NamedTuple):
    """One the engine works on. `prompt`: its engine id, which all sequences of one prompt share."""

    request_id: str
    prompt: str
    counts: Callable[[], Counts]  # as it would be billed if it ended now


@dataclass
class Tally:
    """One request. `exchanges` are under way, `open` are the sequences the engine still works on, by the engine's own
    ids.
    """

    exchanges: int = 0
    open: dict[str, Sequence] = field(default_factory=dict)
    prompts: dict[str, Counts] = field(default_factory=dict)  # of closed sequences, by prompt
    output: int = 0
    finish: str = ""  # "": none was closed
    written: bool = False  # or will never be

    def close(self, sequence: Sequence, finish: str) -> None:
        counts = sequence.counts()
        _once(self.prompts, sequence.prompt, counts)
        self.output += counts.output
        if self.finish in ("", "stop", "length"):  # of several, what went wrong is told
            self.finish = finish

    def counts(self) -> Counts:
        """Up to now, sequences that still run included."""
        prompts, output = dict(self.prompts), self.output
        for sequence in self.open.values():
            counts = sequence.counts()
            _once(prompts, sequence.prompt, counts)
            output += counts.output
        return Counts(
            sum(found.input for found in prompts.values()), sum(found.cached for found in prompts.values()), output
        )


def request_of(engine_id: str) -> str | None:
    """The router's request id, wherever it stands in the engine's: "cmpl-<id>-0", "embd-<id>-prompt-0-chunk-1". None:
    there is none.
    """
    match = _ID.search(engine_id)
    return match[0] if match else None


class Journal:
    """One replica's usage journal. Single-threaded: called from the API process's event loop only. Nothing here raises
    on a full disk.
    """

    def __init__(
        self,
        path: str,
        replica_id: str,
        *,
        grown: Callable[[], None],
        later: Callable[[float, Callable[[], None]], object],
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        """`grown` hears of every line that is in the file; `later` calls back after so many seconds."""
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._replica_id = replica_id
        self._grown = grown
        self._later = later
        self._os_write = write
        self._tallies: dict[str, Tally] = {}
        self._sequences: dict[str, str] = {}  # engine's own id → request id
        self._kept: list[tuple[UsageEntry, bytes]] = []  # lines not yet written; of the first, `_torn` bytes are
        self._torn = 0
        self._retrying = self._over = False

    @property
    def full(self) -> bool:
        """As much is kept in memory as may be: begin nothing that would have to be written down."""
        return len(self._kept) >= MOST_KEPT

    # The engine's side

    def opened(self, sequence_id: str, engine_id: str, counts: Callable[[], Counts]) -> None:
        """The engine begins on a sequence, `sequence_id` to itself; `engine_id` is what it was asked under."""
        request_id = request_of(engine_id)
        if request_id is None:
            log.error("the engine works for a request that is nobody's", action="usage_of_nobody", engine_id=engine_id)
            request_id = NOBODY
        tally = self._tallies.setdefault(request_id, Tally())
        tally.open[sequence_id] = Sequence(request_id, engine_id, counts)
        self._sequences[sequence_id] = request_id

    def closed(self, sequence_id: str, finish: str) -> None:
        """A sequence is over. Saying it twice changes nothing."""
        request_id = self._sequences.pop(sequence_id, None)
        if request_id is None:
            return
        tally = self._tallies[request_id]
        tally.close(tally.open.pop(sequence_id), finish)
        self._finish(request_id, tally)

    # The gate's side

    def begun(self, request_id: str) -> None:
        """Its HTTP exchange begins."""
        self._tallies.setdefault(request_id, Tally()).exchanges += 1

    def settle(self, request_id: str) -> Counts | None:
        """The answer is complete: write the line now, before its last byte is sent, and return its counts. None: nobody
        counted it.
        """
        tally = self._tallies.get(request_id)
        if tally is None or tally.open or not tally.finish:
            return None
        self._write(request_id, tally)
        return tally.counts()

    def so_far(self, request_id: str) -> Counts:
        """Of an answer that breaks off."""
        tally = self._tallies.get(request_id)
        return tally.counts() if tally else Counts()

    def void(self, request_id: str) -> None:
        """The answer is an error, whole: the caller gets nothing of what the engine may have made, and pays for
        nothing.
        """
        if tally := self._tallies.get(request_id):
            tally.written = True

    def ended(self, request_id: str) -> list[str]:
        """The exchange is over, complete or not. Returns the sequences that the engine still works on: their ends are
        written when they come.
        """
        tally = self._tallies.get(request_id)
        if tally is None:
            return []
        tally.exchanges -= 1
        self._finish(request_id, tally)
        return [] if tally.exchanges > 0 else list(tally.open)

    def is_open(self, sequence_id: str) -> bool:
        return sequence_id in self._sequences

    # What it has in hand

    def running(self) -> list[RequestCount]:
        """What each request in work has so far, counted as it would be billed if it ended now; and what found no room
        on the disk yet.
        """
        return [
            RequestCount(
                request_id=request_id, input_tokens=now.input, cached_tokens=now.cached, output_tokens=now.output
            )
            for request_id, now in self._running()
            if request_id not in (CANARY, NOBODY)
        ]

    def _running(self) -> Iterator[tuple[str, Counts]]:
        for entry, _ in self._kept:
            yield entry.request_id, Counts(entry.input_tokens, entry.cached_tokens, entry.output_tokens)
        for request_id, tally in self._tallies.items():
            if not tally.written and (tally.open or tally.finish):
                yield request_id, tally.counts()

    def discard(self, request_id: str) -> Counts | None:
        """What was counted for a request that is to leave no line. None: nothing whole. Nothing of it is left
        afterwards.
        """
        tally = self._tallies.pop(request_id, None)
        if tally is None:
            return None
        for sequence_id in tally.open:
            del self._sequences[sequence_id]
        return tally.counts() if tally.finish and not tally.open else None

    def end(self, finish: str) -> None:
        """The replica ends now: what runs is written down as far as it has come. Nothing is written later."""
        for sequence_id in list(self._sequences):
            self.closed(sequence_id, finish)
        for request_id, tally in list(self._tallies.items()):
            if tally.finish:
                self._write(request_id, tally)
        self._flush()
        self._over = True

    # Lines

    def _finish(self, request_id: str, tally: Tally) -> None:
        if tally.exchanges > 0 or tally.open:
            return
        if tally.finish:
            self._write(request_id, tally)
        self._tallies.pop(request_id, None)

    def _write(self, request_id: str, tally: Tally) -> None:
        if tally.written or self._over or request_id == CANARY:
            return
        tally.written = True
        counts = tally.counts()
        entry = UsageEntry(
            request_id=request_id,
            replica_id=self._replica_id,
            input_tokens=counts.input,
            cached_tokens=counts.cached,
            output_tokens=counts.output,
            finish=tally.finish,
        )
        self._kept.append((entry, encode(entry)))
        if not self._retrying:
            self._flush()

    def _flush(self) -> None:
        """Write what is kept, in order, each line whole before the next; what finds no room waits for another try."""
        self._retrying = False
        while self._kept:
            line = self._kept[0][1]
            try:
                written = self._os_write(self._fd, line[self._torn :])
            except OSError as error:
                log.error(
                    "the usage journal cannot be written; kept in memory",
                    action="journal_kept",
                    lines=len(self._kept),
                    reason=str(error),
                )
                self._retrying = True
                self._later(RETRY_SECONDS, self._flush)
                return
            self._torn += written
            if self._torn == len(line):
                del self._kept[0]
                self._torn = 0
                self._grown()


def _once(prompts: dict[str, Counts], prompt: str, counts: Counts) -> None:
    """A prompt is counted by the first of its sequences that has read it."""
    if prompt not in prompts or not prompts[prompt].input:
        prompts[prompt] = counts
