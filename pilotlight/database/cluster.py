"""The data folder of the embedded Postgres: made once, under another name until it is complete.

    postgres-new-…/      an `initdb` at work, or one that was killed: removed by the next
    postgres/            owned by the server's account, 0700
      data/              the database cluster
      .s.PGSQL.5432      the socket

The failure to survive: somebody else who runs as that account (`nobody` often has others) and puts a link in the place
of a folder. So what root makes for that account, it makes in a folder of root's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path

from pilotlight.database.account import REMEDY, Account, shut_out
from pilotlight.database.binaries import MAJOR
from pilotlight.database.errors import EmbeddedError
from pilotlight.files import sync_folder, write_once
from pilotlight.settings import Paths

USER = "pilotlight"
NEW = "postgres-new-"


def make_home(home: Path, account: Account) -> None:
    """The folder of data and socket, where `account` can reach it. Raises EmbeddedError, OSError."""
    if os.geteuid() == 0 and (closed := shut_out(home.parent, account)):
        another = "choose another state folder (--state)"
        raise EmbeddedError(
            f"user {account.name}, who runs Postgres, cannot enter {closed}: `chmod o+x {closed}`, {another}, {REMEDY}"
        )
    if not home.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=NEW, dir=home.parent))
        os.chown(unfinished, account.uid, account.gid)
        unfinished.rename(home)


def ensure_password(paths: Paths) -> str:
    """The superuser's password, made on first use. Raises EmbeddedError, OSError."""
    file = paths.secrets / "database.password"
    if file.exists():
        return file.read_text()
    if (paths.postgres / "data").exists():
        raise EmbeddedError(
            f"{file} is missing, and the database in {paths.postgres} cannot be opened without it: restore it from a backup"
        )
    return write_once(file, secrets.token_urlsafe(24).encode()).decode()


def check_version(data: Path) -> None:
    """Raises EmbeddedError where another major version made `data`."""
    made_by = (data / "PG_VERSION").read_text().strip()
    if made_by != MAJOR:
        raise EmbeddedError(
            f"{data} was made by Postgres {made_by}, this Pilotlight brings {MAJOR}: dump it with the old version, {REMEDY}"
        )


def make_data(programs: Path, home: Path, account: Account, password: str) -> None:
    """`initdb`, synced, then renamed to `data`; takes about half a second. Raises EmbeddedError, OSError."""
    for leftover in (
        *home.parent.glob(f"{NEW}*"),
        *home.glob("new-*"),
    ):  # the second as releases before 2026-11-27 made them
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=NEW, dir=home.parent))
    try:
        password_file = work / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        for path in (password_file, work):  # the folder last: until then nobody else changes what is in it
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
        target: list[str | Path] = [
            programs / "initdb",
            "-D",
            work / "data",
            "-U",
            USER,
            "--auth=scram-sha-256",
            f"--pwfile={password_file}",
        ]
        # One sync of the file system, not one a file: beside other writers a thousand of those take seconds.
        done = account.run(
            [*target, "--locale=C", "--encoding=UTF8", "--wal-segsize=4", "--sync-method=syncfs", "--no-instructions"]
        )
        if done.returncode != 0:
            raise EmbeddedError(
                f"the database could not be made in {home}: {done.stderr.strip()}; correct that, {REMEDY}"
            )
        (work / "data").rename(home / "data")
        sync_folder(home)
    finally:
        shutil.rmtree(work, ignore_errors=True)
