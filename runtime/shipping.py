"""From the replicas' journals to the activator, at least once. Step 12.

Reads the lines that were added, sends them in numbered batches, and forgets a file when its replica is gone and all of it
is stored. A connection that breaks, or an agent killed by -9, sends again from the last stored byte or from the start:
the rows' key makes that harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError

from runtime.wire import UsageBatch, UsageEntry

log = structlog.get_logger()

LARGEST_BATCH = 500  # entries


@dataclass
class JournalFile:
    path: Path
    sent: int = 0  # bytes
    stored: int = 0
    complete: int = 0  # end of the last whole line
    finished: bool = False  # its replica is gone


class Shipping:
    def __init__(self, folder: Path, send: Callable[[UsageBatch], bool]) -> None:
        """`send` gives a batch to the activator, or says False when there is no connection."""
        self._folder, self._send = folder, send
        self._files = {path.stem: JournalFile(path, finished=True) for path in folder.glob("*.jsonl")}
        self._batches: dict[int, tuple[JournalFile, int]] = {}
        self._last = 0

    def path_of(self, replica_id: str) -> Path:
        return self._folder / f"{replica_id}.jsonl"

    def opened(self, replica_id: str) -> None:
        self._files[replica_id] = JournalFile(self.path_of(replica_id))

    def grown(self, replica_id: str) -> None:
        """Send what this replica's journal has gained."""
        if file := self._files.get(replica_id):
            self._ship(file)

    def finished(self, replica_id: str) -> None:
        """The replica is gone: send the rest, then forget the file once it is stored."""
        if file := self._files.get(replica_id):
            file.finished = True
            self._ship(file)
            self._forget(file)

    def again(self) -> None:
        """A new connection: whatever is not known to be stored goes out once more."""
        self._batches.clear()
        for file in list(self._files.values()):
            file.sent = file.stored
            self._ship(file)
            self._forget(file)

    def sweep(self) -> None:
        """The named fallback for a lost notice: look at every file."""
        for file in list(self._files.values()):
            self._ship(file)

    def stored(self, batch: int) -> None:
        if batch in self._batches:
            file, end = self._batches.pop(batch)
            file.stored = max(file.stored, end)
            self._forget(file)

    def _ship(self, file: JournalFile) -> None:
        try:
            with file.path.open("rb") as journal:
                journal.seek(file.sent)
                data = journal.read()
        except FileNotFoundError:
            return
        end = file.sent
        file.complete = file.sent + data.rfind(b"\n") + 1
        entries: list[UsageEntry] = []
        for line in data.split(b"\n")[:-1]:
            end += len(line) + 1
            try:
                entries.append(UsageEntry.model_validate_json(line, extra="ignore"))
            except ValidationError:
                log.error("a line of a usage journal cannot be read", action="journal_line_lost", file=file.path.name, offset=end)
            if len(entries) == LARGEST_BATCH and not self._post(file, entries, end):
                return
        if entries:
            self._post(file, entries, end)
        elif file.stored == file.sent:
            file.stored = file.sent = end  # nothing but lines that cannot be read

    def _post(self, file: JournalFile, entries: list[UsageEntry], end: int) -> bool:
        if not self._send(UsageBatch(batch=self._last + 1, entries=tuple(entries))):
            return False
        self._last += 1
        self._batches[self._last] = (file, end)
        file.sent = end
        entries.clear()
        return True

    def _forget(self, file: JournalFile) -> None:
        if file.finished and file.stored >= file.complete:
            file.path.unlink(missing_ok=True)
            self._files.pop(file.path.stem, None)
