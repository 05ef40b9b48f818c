"""Who has what of the installation's disk: what each part takes, what it may take, and its reserve. For `ps` and
`doctor`.

It looks at the state folder on this machine, so it also tells while nothing of the installation answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotlight.cli.findings import Finding
from pilotlight.cli.tables import Table
from pilotlight.room import blocks, free_bytes, look, shortage, taken
from pilotlight.settings import Paths, Settings
from pilotlight.sizes import human


@dataclass(frozen=True)
class Share:
    """What one part of an installation has of the disk."""

    name: str
    used: int  # bytes
    bound: int
    setting: str  # which says the bound
    kept: int = 0  # bytes of its reserve that are held
    reserve: int = 0  # bytes it has when all is well


def shares(settings: Settings) -> list[Share]:
    """Of an installation that ran here. Raises OSError."""
    paths, disk = settings.paths, settings.disk
    wal = taken(paths.postgres / "data" / "pg_wal")
    found = [
        Share("spool", taken(paths.spool), disk.spool_bytes, "disk.spool_bytes"),
        Share("journal", taken(paths.journal), disk.journal_bytes, "disk.journal_bytes"),
        Share("logs", taken(paths.logs), settings.logs.total_bytes, "logs.total_bytes"),
        Share("these three", 0, 0, "disk.reserve_bytes", blocks(paths.reserve), disk.reserve_bytes),
    ]
    if not settings.database_url:
        kept = blocks(paths.postgres_reserve)
        tables = taken(paths.postgres) - wal
        found.append(
            Share("Postgres", tables, disk.postgres_bytes, "disk.postgres_bytes", kept, disk.postgres_reserve_bytes)
        )
        found.append(Share("Postgres' log", wal, disk.wal_bytes, "disk.wal_bytes"))
    return found


def shares_table(found: list[Share], paths: Paths) -> Table:
    rows = Table("disk", "used", "bound", "reserve", "free")
    free = human(free_bytes(paths.state))
    for number, share in enumerate(found):
        bound = human(share.bound) if share.bound else ""
        kept = f"{human(min(share.kept, share.reserve))} of {human(share.reserve)}" if share.reserve else ""
        rows.add_row(share.name, human(share.used) if share.bound else "", bound, kept, "" if number else free)
    return rows


def bounds(settings: Settings) -> Finding:
    """What `doctor` finds: everything within its bound, the reserve held, and new calls taken."""
    if not settings.paths.run.is_dir():
        return Finding(True, "nothing there yet")
    found = shares(settings)
    if reason := shortage(look(settings.paths), settings.disk):
        return Finding(False, f"new calls are refused: {reason}", "free some space, or let Postgres answer again")
    over = [
        share for share in found if share.bound and share.used > share.bound * 1.1
    ]  # Postgres' log may pass its bound for a moment
    if over:
        text = ", ".join(
            f"{share.name} has {human(share.used)} of {human(share.bound)} ({share.setting})" for share in over
        )
        return Finding(
            False,
            text,
            "raise that bound, or free some space. Usage rows are never deleted: export and remove old ones by hand",
        )
    given = [share for share in found if share.kept < share.reserve]
    text = ", ".join(f"{share.name} {human(share.used)} of {human(share.bound)}" for share in found if share.bound)
    if given:
        text += f"; of the reserve {human(sum(share.kept for share in given))} of {human(sum(share.reserve for share in given))} are held"
    return Finding(True, text)
