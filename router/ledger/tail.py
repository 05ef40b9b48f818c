"""The spool as the ledger reads it: `<worker_id>.<n>.jsonl` files, from their starts, as far as complete lines go.

Step 12. A worker's files are read in the order of their numbers. Three failures to survive. A crash tears a line: it is
kept until it is completed, or its worker has begun another file or is dead. A line was changed on the disk (its
checksum tells), or is no record at all. Both are kept aside in `rejected.jsonl` with file and byte, for a person. We
are killed: progress is only in memory, so a restart reads again from the start, and the unique `event_id` makes that
harmless.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pilotlight.sealed import is_intact, is_sealed, pieces
from router.spool.record import UNNAMED, EndRecord, OpenRecord, SpoolLine

CHUNK_BYTES = 256 << 10  # read at once: about 3 ms of parsing; also the longest line there may be
START = b'{"kind":'
UNNAMED_SECONDS = 60.0  # a file that has no name after so long never gets one: its worker died between two calls
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
    sealed: bool = False  # lines with a checksum have been seen: all of this file have one
    complete: bool = False  # it grows no more, and all of it has been read


@dataclass(slots=True)
class Chunk:
    records: list[OpenRecord | EndRecord] = field(default_factory=list)
    rejected: list[tuple[bytes, str]] = field(default_factory=list)  # (line, why, with the byte it begins at)
    more: bool = False  # whether the file has more to read


class Tail:
    """All spool files of this machine. Synchronous; whoever calls it reads a chunk at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, SpoolFile] = {}
        self.rejected = 0  # lines kept aside since this process began

    def scan(self) -> list[SpoolFile]:
        """Look at the folder: files that are new or have grown. The named fallback for notices that never came."""
        grown = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if (file := self.file(entry.name)) is not None:
                    if entry.stat().st_size > file.size:
                        grown.append(file)
                elif entry.name.endswith(UNNAMED) and time.time() - entry.stat().st_mtime > UNNAMED_SECONDS:
                    Path(entry.path).unlink(missing_ok=True)
        return grown

    def is_locked(self, worker: str) -> bool:
        """Does a process hold the lock of one of its files? Each is locked before it has its name and until the next
        one has, so where none of those we know is, the folder is looked at once more.
        """
        known: list[str] = []
        while known != (names := [file.name for file in reversed(self.of_worker(worker))]):
            if any(map(self._holds, names)):
                return True
            known = names
            self.scan()
        return False

    def keeps_locks(self, worker: str) -> bool:
        """Is it of a release whose workers lock their files? Its lines have checksums."""
        return any(file.sealed for file in self.of_worker(worker))

    def _holds(self, name: str) -> bool:
        try:
            with open(self._folder / name, "rb", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

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
            self._parse(data[:end].removesuffix(b"\n").split(b"\n"), file, chunk)
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
        return size == file.size and not self.has_complete_line(file)

    def has_complete_line(self, file: SpoolFile) -> bool:
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
                print(
                    json.dumps({"file": source, "why": why, "line": line.decode(errors="backslashreplace")}), file=kept
                )
            kept.flush()
            os.fsync(kept.fileno())
        self.rejected += len(lines)

    def _parse(self, lines: list[bytes], file: SpoolFile, chunk: Chunk) -> None:
        """All at once, a third cheaper than line by line, where nothing is wrong."""
        if all(map(is_intact, lines)) or (not file.sealed and not any(map(is_sealed, lines))):
            try:
                records = _lines.validate_json(b"[" + b",".join(lines) + b"]", extra="ignore")
            except ValidationError:
                records = []
            if len(records) == len(lines) and all(map(is_sound, records)):
                file.sealed = file.sealed or is_sealed(lines[0])
                chunk.records = records
                return
        offset = file.offset
        for line in lines:
            self._parse_one(line, offset, file, chunk)
            offset += len(line) + 1

    def _parse_one(self, line: bytes, offset: int, file: SpoolFile, chunk: Chunk) -> None:
        record = _record(line, file)
        if not isinstance(record, str):
            chunk.records.append(record)
            return
        found: list[tuple[int, bytes, OpenRecord | EndRecord | str]] = [
            (at, part, _record(part, file)) for at, part in pieces(line, START)
        ]
        for at, part, said in found if len(found) > 1 else [(0, line, record)]:
            if isinstance(said, str):
                chunk.rejected.append((part, f"at byte {offset + at}: {said}"))
            else:
                chunk.records.append(said)


def _record(line: bytes, file: SpoolFile) -> OpenRecord | EndRecord | str:
    """What a line says, or what is wrong with it.

    1. Its checksum does not fit. 2. It has none, though its file's lines have. 3. No record, or one no bill can be made
       of.
    Lines without checksums are the release before's.
    """
    if is_sealed(line):
        if not is_intact(line):
            return "its checksum does not fit: it was changed after it was written"  # 1
        file.sealed = True
    elif file.sealed:
        return "it has no checksum: it is torn, or was changed after it was written"  # 2
    try:
        record = _line.validate_json(line, extra="ignore")
    except ValidationError as error:
        return f"no spool record: {error.errors(include_input=False, include_url=False)[0]['msg']}"  # 3
    return record if is_sound(record) else "a count below zero"


def is_sound(record: OpenRecord | EndRecord) -> bool:
    """Whether a bill can be made of it."""
    return isinstance(record, OpenRecord) or min(record.input_tokens, record.cached_tokens, record.output_tokens) >= 0
