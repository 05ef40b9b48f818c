"""`pilotlight restore`: an installation from a file of `pilotlight backup`, in a state folder that holds none.

All of it is made beside the place, under another name, and takes its name in the last step. So a kill -9 half-way
leaves the place as it was, and the next try begins anew. What must survive is an installation that is there: nothing is
ever restored over one. The file is not trusted: it may write only what a backup has, and only below the new folder.
"""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pilotlight.cli.backup.backup import DUMP, FORMAT, MANIFEST, client, served
from pilotlight.cli.drawn import line
from pilotlight.cli.options import explain_os_error, print_json, say, stop
from pilotlight.database.errors import DatabaseError
from pilotlight.database.migrate import newest
from pilotlight.parsed import json_of
from pilotlight.settings import Paths, Settings
from snapshots.store.disk import remove_folder

ALLOWED = re.compile(
    r"secrets/(admin\.key|key\.pepper|ca\.key)|ca\.pem|database\.dump|(spool|journal|audit)/[A-Za-z0-9_:][A-Za-z0-9_.:-]*|staged/sha256-[0-9a-f]{64}\.pin"
    r"|snapshots/lineage/sha256-[0-9a-f]{64}\.json|snapshots/sha256-[0-9a-f]{64}(/[A-Za-z0-9_][A-Za-z0-9_. +-]*){1,4}"
)
LARGEST_MANIFEST = 1 << 16


def restore(settings: Settings, source: Path, *, as_json: bool) -> None:
    paths = settings.paths
    if paths.state.exists() and any(paths.state.iterdir()):
        stop(f"{paths.state} is not empty: restore into a new folder with --state, or move that one away")
    if paths.too_long:
        stop(f"{paths.state} is too long for the engines' sockets: choose a shorter --state")
    beside = paths.state.with_name(f"{paths.state.name}.new")
    try:
        manifest = _restored(settings, source, beside)
        if paths.state.exists():
            paths.state.rmdir()
        beside.rename(paths.state)
    except tarfile.TarError as error:
        stop(f"{source} is not a backup of ours: {error}")
    except DatabaseError as error:
        stop(f"cannot restore the database: {error}")
    except OSError as error:
        stop(f"cannot restore {source}: {explain_os_error(error)}")
    finally:
        _away(beside)
    if as_json:
        print_json(manifest | {"state": str(paths.state)})
        return
    say(f"restored in {paths.state}, as of {manifest['made_at'][:19].replace('T', ' ')} UTC; next: pilotlight up")
    if not manifest["database"]:
        say("Its database is a Postgres of your own: restore that from your own backup, and name it in DATABASE_URL.")
    if not manifest["models"]:
        say(
            "Its models are not in the backup: `pilotlight snapshot pack` or `pull` them, or let snapshots.origin provide them."
        )


def _restored(settings: Settings, source: Path, beside: Path) -> dict[str, Any]:
    """Raises TarError, DatabaseError, OSError."""
    _away(beside)  # of a try that was killed
    there = settings.model_copy(update={"state_dir": beside, "database_url": ""})
    with tarfile.open(source, mode="r:") as archive, line() as draw:
        manifest = unpack(archive, there.paths, draw)
        if manifest["database"]:
            draw("restoring the database")
            _restore_database(there)
    _make_read_only(there.paths)
    return manifest


def unpack(archive: tarfile.TarFile, paths: Paths, draw: Callable[[str], None]) -> dict[str, Any]:
    """Every file of a backup, below the new folder, and what its manifest says. Raises TarError, OSError."""
    manifest = _manifest(archive)
    paths.make()
    for entry in _entries(archive):
        draw(f"restoring {entry.name.partition('/')[0]}")
        _extract(archive, entry, paths)
    return manifest


def _manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    """The first entry. Raises TarError; stops where it is of another format, or a later release."""
    first = archive.next()
    if first is None or first.name != MANIFEST or not _is_plain(first) or first.size > LARGEST_MANIFEST:
        raise tarfile.ReadError(f"it does not begin with {MANIFEST}")
    stream = archive.extractfile(first)
    assert stream is not None  # a regular file
    try:
        manifest: dict[str, Any] = json_of(stream.read())
        form, schema, said = (
            int(manifest["format"]),
            str(manifest["schema"]),
            (bool(manifest["database"]), bool(manifest["models"]), str(manifest["made_at"])),
        )
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise tarfile.ReadError(f"its {MANIFEST} is damaged: {type(error).__name__}: {error}") from None
    if form != FORMAT or schema > newest():
        stop(f"a later release made this backup (format {form}, tables {schema}): restore it with that release")
    return manifest | dict(zip(("database", "models", "made_at"), said, strict=True))


def _entries(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """All after the manifest. Raises TarError for what no backup has, and where the file ends too early."""
    while (entry := archive.next()) is not None:
        if not _is_plain(entry) or not ALLOWED.fullmatch(entry.name) or ".." in entry.name.split("/"):
            raise tarfile.ReadError(f"{entry.name[:100]!r} is not a file that a backup has")
        yield entry


def _is_plain(entry: tarfile.TarInfo) -> bool:
    """A file whose bytes are all there: one with holes would write more than the backup has."""
    return entry.isreg() and not entry.issparse()


def _extract(archive: tarfile.TarFile, entry: tarfile.TarInfo, paths: Paths) -> None:
    target = paths.state / entry.name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # in folders that only their owner enters
    stream = archive.extractfile(entry)
    assert stream is not None  # a regular file
    with target.open("xb") as file:
        target.chmod(0o600)
        shutil.copyfileobj(stream, file, 1 << 20)
        if file.tell() != entry.size:
            raise tarfile.ReadError(f"it ends in the middle of {entry.name}")
    if entry.name == "ca.pem":
        target.chmod(0o644)


def _restore_database(there: Settings) -> None:
    """Raises DatabaseError, OSError."""
    dump = there.paths.state / DUMP
    if not dump.exists():
        raise DatabaseError(f"{DUMP} is missing from the backup")
    with served(there) as dsn:
        client(
            there.paths,
            dsn,
            "pg_restore",
            "--no-owner",
            "--no-privileges",
            "--exit-on-error",
            "--single-transaction",
            "--dbname=postgres",
            str(dump),
        )
    dump.unlink()
    there.paths.database_dsn.unlink(missing_ok=True)  # it names this place


def _away(beside: Path) -> None:
    if beside.exists():
        remove_folder(beside)


def _make_read_only(paths: Paths) -> None:
    """Snapshots are as packing leaves them; the node verifies each before it is used."""
    for folder in paths.snapshots.glob("sha256-*"):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.chmod(0o555 if path.is_dir() else 0o444)
        folder.chmod(0o555)
