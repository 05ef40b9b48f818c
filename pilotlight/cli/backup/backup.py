"""`pilotlight backup`: everything of an installation that cannot be made anew, in one file that is complete or absent.

    manifest.json      what this is, of which release, whether the database and the models are in it
    secrets/…, ca.pem  without the key pepper no API key ever works again; without the authority clients must trust anew
    spool/…, journal/…, audit/…   usage and notes of acts on their way to Postgres; taken before the database, for what
                       is settled twice is one row
    database.dump      by pg_dump: endpoints, revisions, keys' hashes, prices, usage
    staged/*.pin       which snapshots are kept
    snapshots/…        only with --models: they can be packed or pulled again

It works while everything runs, and while nothing does. A Postgres of the operator's own (DATABASE_URL) is theirs to
back up. The file opens everything, so only its owner may read it. What must survive is a full disk or a Ctrl-C
half-way: then there is no file.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from pilotlight.cli.drawn import line
from pilotlight.cli.options import UNREACHABLE, explain_os_error, print_json, say, stop
from pilotlight.cli.running import is_running
from pilotlight.database import embedded
from pilotlight.database.account import server_account
from pilotlight.database.binaries import program_folder
from pilotlight.database.errors import DatabaseError
from pilotlight.database.migrate import newest
from pilotlight.settings import Paths, Settings
from pilotlight.sizes import human

FORMAT = 1
MANIFEST, DUMP = "manifest.json", "database.dump"
KEPT = ("secrets/admin.key", "secrets/key.pepper", "secrets/ca.key", "ca.pem")
ON_THEIR_WAY = ("spool", "journal", "audit")


def back_up(settings: Settings, target: Path, *, models: bool, as_json: bool) -> None:
    paths = settings.paths
    if not paths.key_pepper.exists():
        stop(f"no installation has run in {paths.state}: there is nothing to back up", UNREACHABLE)
    if target.is_dir():
        stop(f"{target} is a folder: give the file to write, such as {target / 'pilotlight.tar'}")
    try:
        manifest = _write(settings, target, models=models)
    except DatabaseError as error:
        stop(f"cannot back up the database: {error}")
    except OSError as error:
        stop(f"cannot write {target}: {explain_os_error(error)}")
    if as_json:
        print_json(manifest | {"file": str(target), "bytes": target.stat().st_size})
        return
    print(target)
    say(
        f"{human(target.stat().st_size)}; keep it where nobody else reads it: it opens everything. `pilotlight restore {target}` makes an installation from it."
    )
    if not manifest["database"]:
        say("The database is a Postgres of your own (DATABASE_URL): back it up with pg_dump, at about this time.")
    if not manifest["models"]:
        say("It has no models (--models adds them): packed or pulled again, they have the same digests.")


def _write(settings: Settings, target: Path, *, models: bool) -> dict[str, Any]:
    """Raises DatabaseError, OSError; then there is no file, or the one that was there before."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # 0600 from the first moment
    temporary = Path(name)
    try:
        with (
            os.fdopen(descriptor, "wb") as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
            line() as draw,
        ):
            manifest = {
                "format": FORMAT, "schema": newest(), "made_at": datetime.now(UTC).isoformat(), "database": not settings.database_url, "models": models,
            }  # fmt: skip
            _add_bytes(archive, MANIFEST, json.dumps(manifest).encode())
            for file in _files(settings.paths, models=models):
                draw(f"backing up {file.partition('/')[0]}")
                _add_file(archive, settings.paths.state, file)
            if not settings.database_url:
                draw("backing up the database")
                _add_database(archive, settings)
            archive.close()
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return manifest


def _files(paths: Paths, *, models: bool) -> Iterator[str]:
    """Relative to the state folder. What is on its way comes before the database: settled meanwhile, it is the same row
    twice.
    """
    yield from (name for name in KEPT if (paths.state / name).exists())
    folders = [*ON_THEIR_WAY, *(["snapshots"] if models else [])]
    for folder in folders:
        for file in sorted((paths.state / folder).rglob("*")):
            name = file.relative_to(paths.state)
            if file.is_file() and not file.is_symlink() and not any(part.startswith(".") for part in name.parts[1:]):
                yield str(name)
    yield from (f"staged/{mark.name}" for mark in sorted(paths.staged.glob("*.pin")))


def _add_file(archive: tarfile.TarFile, state: Path, name: str) -> None:
    """As long as it was when it was opened: a spool file grows. One that has been settled meanwhile is in the
    database.
    """
    try:
        with (state / name).open("rb") as file:
            _add_open_file(archive, name, file)
    except FileNotFoundError:
        return


def _add_open_file(archive: tarfile.TarFile, name: str, file: BinaryIO) -> None:
    """For its owner alone to read, and of nobody's in particular."""
    entry = archive.gettarinfo(arcname=name, fileobj=file)
    entry.mode = 0o600
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    archive.addfile(entry, file)


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    archive.addfile(entry, io.BytesIO(content))


def _add_database(archive: tarfile.TarFile, settings: Settings) -> None:
    """Raises DatabaseError, OSError."""
    paths = settings.paths
    with tempfile.TemporaryDirectory(dir=paths.state, prefix=".backup-") as folder, served(settings) as dsn:
        dump = Path(folder) / DUMP
        client(paths, dsn, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={dump}")
        with dump.open("rb") as file:
            _add_open_file(archive, DUMP, file)


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The embedded Postgres' DSN: of the one that runs, else of one started for this. Raises DatabaseError, OSError."""
    if is_running(settings.paths):
        yield settings.paths.database_dsn.read_text()
        return
    with asyncio.Runner() as runner:
        server = runner.run(embedded.start(settings.paths, wal_bytes=settings.disk.wal_bytes))
        try:
            yield server.dsn
        finally:
            runner.run(server.stop())


def client(paths: Paths, dsn: str, program: str, *arguments: str) -> None:
    """One of Postgres' own programs, of the embedded one's release; the password is in no list of processes. Raises
    DatabaseError, OSError.
    """
    parts = urlsplit(dsn)
    where = dict(parse_qsl(parts.query))
    named = {
        "PGHOST": where["host"],
        "PGPORT": where["port"],
        "PGUSER": unquote(parts.username or ""),
        "PGDATABASE": parts.path.strip("/"),
    }
    environ = {"PATH": os.environ.get("PATH", ""), "PGPASSWORD": unquote(parts.password or ""), **named}
    command = [str(program_folder(paths, server_account(paths.postgres)) / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environ)
    if done.returncode:
        raise DatabaseError(f"{program} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
