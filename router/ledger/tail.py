"""The spool as the ledger reads it: `<worker_id>.<n>.jsonl` files, from their starts, as far as whole lines go.

Step 12. Failures to survive: a line torn by a crash in the middle of a write (kept until it is completed, or its worker
is dead), a line that is no record at all (kept aside in `rejected.jsonl`, for a person), and our own kill -9: progress
is only in memory, so a restart reads again from the start, and the unique `event_id` makes that harmless.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from router.ledger.record import EndRecord, OpenRecord, SpoolLine

CHUNK_BYTES = 256 << 10  # read at once: about 3 ms of parsing; also the longest line there may be
NAME = re.compile(r"(?P<worker>[A-Za-z0-9_.:-]+)\.(?P<number>[0-9]+)\.jsonl")

_line: TypeAdapter[OpenRecord | EndRecord] = TypeAdapter(SpoolLine)
_lines: TypeAdapter[list[OpenRecord | EndRecord]] = TypeAdapter(list[SpoolLine])


@dataclass(slots=True)
class SpoolFile:
    name: str
    worker: str
    number: int
    offset: int = 0  # bytes of whole lines read
    size: int = 0  # bytes when last looked at; more than `offset` after a read to the end: a torn last line


@dataclass(slots=True)
class Chunk:
    records: list[OpenRecord | EndRecord] = field(default_factory=list)
    rejected: list[tuple[bytes, str]] = field(default_factory=list)  # (line, why)
    more: bool = False  # whether the file has more to read


class Tail:
    """All spool files of this machine. Synchronous; whoever calls it reads a chunk at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, SpoolFile] = {}

    def scan(self) -> list[SpoolFile]:
        """Look at the folder: files that are new or have grown. The named fallback for notices that never came."""
        with os.scandir(self._folder) as entries:
            files = [(self.file(entry.name), entry) for entry in entries]
        return [file for file, entry in files if file is not None and entry.stat().st_size > file.size]

    def file(self, name: str) -> SpoolFile | None:
        """The file of this name, known or not yet; None for what is no spool file's name."""
        if name not in self.files and (match := NAME.fullmatch(name)):
            self.files[name] = SpoolFile(name, match["worker"], int(match["number"]))
        return self.files.get(name)

    def read(self, file: SpoolFile) -> Chunk:
        """The next whole lines of the file. Nothing when it is not there (yet)."""
        chunk = Chunk()
        try:
            with open(self._folder / file.name, "rb", buffering=0) as source:
                file.size = os.fstat(source.fileno()).st_size
                source.seek(file.offset)
                data = source.read(CHUNK_BYTES)
        except FileNotFoundError:
            return chunk
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) == CHUNK_BYTES:
            end = CHUNK_BYTES  # a line longer than any of ours: no record, whatever it is
        if end:
            self._parse(data[:end], chunk)
            file.offset += end
        chunk.more = end > 0 and file.size > file.offset
        return chunk

    def torn(self, file: SpoolFile) -> bytes:
        """What follows the last whole line."""
        with open(self._folder / file.name, "rb") as source:
            source.seek(file.offset)
            return source.read(CHUNK_BYTES)

    def is_read(self, file: SpoolFile) -> bool:
        """Whether everything in the file now, a torn last line apart, has been read."""
        try:
            size = (self._folder / file.name).stat().st_size
        except FileNotFoundError:
            return True
        return size == file.size and not self.has_whole_line(file)

    def has_whole_line(self, file: SpoolFile) -> bool:
        return file.size > file.offset and b"\n" in self.torn(file)

    def of_worker(self, worker: str) -> list[SpoolFile]:
        """Its files, oldest first; the last is the one it writes."""
        return sorted((file for file in self.files.values() if file.worker == worker), key=lambda file: file.number)

    def workers(self) -> set[str]:
        return {file.worker for file in self.files.values()}

    def delete(self, file: SpoolFile) -> None:
        (self._folder / file.name).unlink(missing_ok=True)
        del self.files[file.name]

    def reject(self, lines: list[tuple[bytes, str]], *, source: str) -> None:
        """Keep lines that cannot be settled for a person to look at, durably, before their file is deleted."""
        with open(self._folder / "rejected.jsonl", "a", opener=lambda path, flags: os.open(path, flags, 0o600)) as kept:
            for line, why in lines:
                print(json.dumps({"file": source, "why": why, "line": line.decode(errors="backslashreplace")}), file=kept)
            kept.flush()
            os.fsync(kept.fileno())

    def _parse(self, data: bytes, chunk: Chunk) -> None:
        try:  # all at once is a third cheaper than line by line
            records = _lines.validate_json(b"[" + data[:-1].replace(b"\n", b",") + b"]", extra="ignore")
        except ValidationError:
            self._parse_each(data, chunk)
            return
        chunk.records = [record for record in records if is_sound(record)]
        if len(chunk.records) < len(records):
            chunk.records = []
            self._parse_each(data, chunk)

    def _parse_each(self, data: bytes, chunk: Chunk) -> None:
        for line in data.splitlines():
            try:
                record = _line.validate_json(line, extra="ignore")
            except ValidationError as error:
                chunk.rejected.append((line, f"no spool record: {error.errors()[0]['msg']}"))
                continue
            if is_sound(record):
                chunk.records.append(record)
            else:
                chunk.rejected.append((line, "a count below zero"))


def is_sound(record: OpenRecord | EndRecord) -> bool:
    """Whether a bill can be made of it."""
    return isinstance(record, OpenRecord) or min(record.input_tokens, record.cached_tokens, record.output_tokens) >= 0
