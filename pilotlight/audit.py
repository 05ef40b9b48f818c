"""Who changed what: a note of each act of an operator, on this disk until Postgres has it. Beside the way of a request.

A note is a small file in STATE/audit, made before the act begins and written anew when it has ended. The admin process
takes ended notes into Postgres, where no row can be changed. So an act leaves its row whether Postgres is there or not,
by the admin API or by a command on files.

The failures to survive: kill -9 amid an act, a note that is written twice into Postgres, and a full disk. Whoever acts
holds a lock on its note, so a note that nobody holds tells of an act whose outcome is unknown. A note's id is its row's
key. On a full disk the act goes on, for a leaked key must be revoked all the same; `begin` says that the note is
missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pilotlight.files import write_atomic
from pilotlight.parsed import json_of

Outcome = Literal["done", "refused", "failed", "unknown"]  # unknown: whoever acted was killed amid it

LONGEST_TEXT = 200  # characters of one value
LARGEST = 4096  # bytes of what was asked, and of what changed, each
DEEPEST = 4  # values within values
MOST_PARTS = 50  # fields, or items of a list
READABLE = (
    0o644  # root may act in a state folder of another user, whose admin process has to read it; nothing in it is secret
)
# names of what is never noted
SECRET = re.compile(r"secret|passw|token$|api.?key|credential|authorization", re.IGNORECASE)
USERINFO = re.compile(r"://[^/@\s]+@")
ID = re.compile(r"act_[0-9a-f]{12}_[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Note:
    """One act. `at` in Unix seconds; `who` is proved (a key, a user of this machine), `said_by` is what the caller says
    of himself.
    """

    act: str
    object: str
    who: str
    said_by: str = ""
    origin: str
    at: float
    act_id: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = "unknown"
    reason: str = ""

    def bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def noted(**given: Any) -> Note:
    """A note whose texts are short, without secrets, and such that Postgres takes them. Pure but for its id."""
    note = Note(**given)
    act_id = note.act_id or f"act_{int(note.at * 1000):012x}_{secrets.token_hex(6)}"
    texts = {name: plain(str(getattr(note, name))) for name in ("act", "object", "who", "said_by", "origin", "reason")}
    return Note(
        **{**vars(note), **texts, "act_id": act_id, "asked": bounded(note.asked), "changed": bounded(note.changed)}
    )


def bounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """As much of it as a row may hold: of what is too large only the names of its fields. Pure."""
    kept: dict[str, Any] = _bounded(dict(values))
    if len(json.dumps(kept)) > LARGEST:
        kept = {"fields": [plain(str(name))[:40] for name in values][:MOST_PARTS]}
    return kept


def _bounded(value: Any, name: str = "", depth: int = 0) -> Any:
    if SECRET.search(name):
        return "(not noted)"
    if depth > DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {plain(str(key)): _bounded(item, str(key), depth + 1) for key, item in list(value.items())[:MOST_PARTS]}
    if isinstance(value, list | tuple):
        return [_bounded(item, "", depth + 1) for item in value[:MOST_PARTS]]
    if value is None or isinstance(value, bool | int | float):
        return value if not isinstance(value, float) or value - value == 0 else str(value)  # neither NaN nor infinite
    return plain(str(value))


def plain(text: str) -> str:
    """One short line that Postgres takes, without the password of an address. Pure."""
    line = "".join(each if each.isprintable() else " " for each in USERINFO.sub("://…@", text[: 4 * LONGEST_TEXT]))
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"


class Begun:
    """An act on its way: its note is held until `end`."""

    def __init__(self, folder: Path, note: Note) -> None:
        self.note, self.error = note, ""
        self._path = folder / f"{note.act_id}.json"
        self._descriptor = -1
        try:
            self._descriptor = _held(self._path, note.bytes())
        except OSError as error:
            self.error = f"{type(error).__name__}: {error}"

    def end(self, outcome: Outcome, *, reason: str = "", changed: Mapping[str, Any] | None = None) -> Note:
        """The whole note. Whether it is on the disk is in `error`; an earlier failure is made good where there is room
        by now.
        """
        ending = {"outcome": outcome, "reason": reason, "changed": changed or {}}
        note = self.note = noted(**(vars(self.note) | ending))
        try:
            write_atomic(self._path, note.bytes(), mode=READABLE)
            self.error = ""
        except OSError as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            if self._descriptor >= 0:
                os.close(self._descriptor)
        return note


def _held(path: Path, content: bytes) -> int:
    """A new file under a lock that is ours as long as the descriptor is open. Raises OSError."""
    beside = path.with_name(f".{path.name}")
    descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, content)
        os.fchmod(descriptor, READABLE)
        os.fsync(descriptor)
        beside.rename(path)
    except OSError:
        os.close(descriptor)
        beside.unlink(missing_ok=True)
        raise
    return descriptor


def waiting(folder: Path, *, most: int = 1000) -> Iterator[tuple[Path, Note | None]]:
    """Notes of acts that have ended, or whose actor is gone, oldest first; None: what is there is not a note. Raises
    OSError.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith("."))
    for path in [folder / name for name in names[:most]]:
        with contextlib.suppress(FileNotFoundError):
            content = _left(path)
            if content is not None:
                yield path, _understood(content)


def _left(path: Path) -> bytes | None:
    """What a note says that nobody holds; None: somebody does. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino != path.stat().st_ino:
            return None  # written anew meanwhile: the next look has it
        return os.read(descriptor, 8 * LARGEST)
    except BlockingIOError:
        return None
    finally:
        os.close(descriptor)


def _understood(content: bytes) -> Note | None:
    try:
        note = noted(**json_of(content))
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None
    known = note.outcome in ("done", "refused", "failed", "unknown") and ID.fullmatch(note.act_id)
    return note if known and 0 <= note.at < 253402300800 else None
