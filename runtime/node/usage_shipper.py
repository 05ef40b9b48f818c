"""From the replicas' journals to the activator, at least once. Step 12.

It reads the lines that were added and sends them in numbered batches. When a replica is gone and all of its journal is
sent, a batch of its own says so. The file goes once that is stored. After a broken connection, or kill -9 of the agent,
it sends again from the last stored byte or from the start. The rows' key makes that harmless. At most MOST_UNSTORED
batches are on their way. So neither a socket nor the activator has to hold all there is after a long outage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

from pilotlight.sealed import Damaged
from runtime.journal_line import recover
from runtime.wire import UsageBatch, UsageEntry

log = structlog.get_logger()

LARGEST_BATCH = 500  # entries
MOST_UNSTORED = 40  # batches
READ_BYTES = 1 << 20


@dataclass
class JournalFile:
    """How far one replica's journal is sent, and stored."""

    replica_id: str
    path: Path
    sent: int = 0  # bytes, of whole lines
    stored: int = 0
    finished: bool = False  # its replica is gone
    closing: bool = False  # word that all of it was sent is on its way


class UsageShipper:
    """Sends what the journals gain, until it is stored."""

    def __init__(self, folder: Path, send: Callable[[UsageBatch], bool], *, unended: Collection[str] = ()) -> None:
        """`send` gives a batch to the activator, or says False when there is no connection. `unended`: replicas that
        are gone, and whose journals still lack lines; `finished` is called for each in time.
        """
        self._folder, self._send = folder, send
        self._files = {
            path.stem: JournalFile(path.stem, path, finished=path.stem not in unended)
            for path in folder.glob("*.jsonl")
        }
        self._batches: dict[int, tuple[JournalFile, int]] = {}
        self._last = 0

    def path_of(self, replica_id: str) -> Path:
        return self._folder / f"{replica_id}.jsonl"

    def opened(self, replica_id: str) -> None:
        self._files[replica_id] = JournalFile(replica_id, self.path_of(replica_id))

    def grown(self, replica_id: str) -> None:
        """Send what this replica's journal has gained."""
        if file := self._files.get(replica_id):
            self._ship(file)

    def finished(self, replica_id: str) -> None:
        """The replica is gone, whether it ever wrote a line or not: send the rest, and the word that it is the rest."""
        file = self._files.setdefault(replica_id, JournalFile(replica_id, self.path_of(replica_id)))
        file.finished = True
        self._ship(file)

    def again(self) -> None:
        """A new connection: whatever is not known to be stored goes out once more."""
        self._batches.clear()
        for file in list(self._files.values()):
            file.sent, file.closing = file.stored, False
            self._ship(file)

    def sweep(self) -> None:
        """The named fallback for a lost notice: look at every file."""
        for file in list(self._files.values()):
            self._ship(file)

    def sent(self) -> list[str]:
        """Replicas of whose journals all there is has been sent."""
        self.sweep()
        return [file.replica_id for file in self._files.values() if file.sent >= _complete_bytes(file)]

    def journals(self) -> list[Path]:
        """The files of replicas that still write."""
        return [file.path for file in self._files.values() if not file.finished]

    def stored(self, batch: int) -> None:
        if batch not in self._batches:
            return
        file, end = self._batches.pop(batch)
        file.stored = max(file.stored, end)
        if file.closing and file.stored >= file.sent and not any(other is file for other, _ in self._batches.values()):
            file.path.unlink(missing_ok=True)
            self._files.pop(file.replica_id, None)
        for waiting in list(self._files.values()):  # there is room again
            if len(self._batches) >= MOST_UNSTORED:
                return
            self._ship(waiting)

    def _ship(self, file: JournalFile) -> None:
        while len(self._batches) < MOST_UNSTORED and not file.closing:
            data = _read(file)
            if not data:
                if file.finished:
                    file.closing = self._post(file, (), file.sent, complete=True)
                return
            if not self._ship_lines(file, data):
                return

    def _ship_lines(self, file: JournalFile, data: bytes) -> bool:
        """Send what these lines say, up to LARGEST_BATCH entries a batch. False: no more goes out for now."""
        end, entries = file.sent, list[UsageEntry]()
        for line in data.removesuffix(b"\n").split(b"\n"):
            for offset, said in recover(line):
                if isinstance(said, Damaged):
                    log.error(
                        "a line of a usage journal is damaged",
                        action="journal_line_lost",
                        file=file.path.name,
                        offset=end + offset,
                        reason=str(said),
                    )
                else:
                    entries.append(said)
            end += len(line) + 1
            if len(entries) >= LARGEST_BATCH:
                if not self._post(file, tuple(entries), end) or len(self._batches) >= MOST_UNSTORED:
                    return False
                entries.clear()
        return end == file.sent or self._post(file, tuple(entries), end)

    def _post(self, file: JournalFile, entries: tuple[UsageEntry, ...], end: int, *, complete: bool = False) -> bool:
        """A batch without entries only moves on behind lines that cannot be read, or says that there are no more."""
        batch = UsageBatch(batch=self._last + 1, entries=entries, complete=(file.replica_id,) if complete else ())
        if not self._send(batch):
            return False
        self._last += 1
        self._batches[self._last] = (file, end)
        file.sent = end
        return True


def _read(file: JournalFile) -> bytes:
    """The next whole lines that were not sent; of a replica that is gone its torn last line, too."""
    try:
        with file.path.open("rb") as journal:
            journal.seek(file.sent)
            data = journal.read(READ_BYTES)
            last = file.finished and not journal.read(1)
    except FileNotFoundError:
        return b""
    if last and data and not data.endswith(b"\n"):
        return data + b"\n"
    return data[: data.rfind(b"\n") + 1]


def _complete_bytes(file: JournalFile) -> int:
    """Where what has not been sent yet would begin, if there were anything."""
    return file.sent + len(_read(file))
