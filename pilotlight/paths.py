"""Where things lie: the state folder, by default and as given, and everything in it. Before step 1.

The failures to survive: a user without a home or a name, a folder that is there, and a path too long for sockets. A
line says what to give; a folder's mode stays. A umask that would lock others out, or let them in, does not count: modes
are set.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path


class SettingsError(ValueError):
    """A setting is malformed; the text names it and says what is allowed."""


def absolute(path: Path) -> Path:
    """The path with `~` and the working folder put in. Raises SettingsError, which is a ValueError, where nobody knows
    that home.
    """
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise SettingsError(f"{path}: no such home folder is known here: give the whole path, from / on") from None
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: the working folder is gone: change to another, or give the whole path, from / on"
        ) from None


def make_folder(folder: Path, mode: int) -> None:
    """Create one folder with exactly this mode; a folder that is there keeps its own. Raises OSError."""
    try:
        folder.mkdir(mode=mode)
        folder.chmod(mode)  # what the umask took
    except FileExistsError:
        if not folder.is_dir():
            raise


def default_state_dir() -> Path:
    """/var/lib/pilotlight for root (an unprivileged Postgres can reach it), else the XDG data folder. Raises
    SettingsError.
    """
    return folder_of(os.environ, os.geteuid(), root=Path("/var/lib"), variable="XDG_DATA_HOME", below=".local/share")


def cache_dir() -> Path:
    """/var/cache/pilotlight for root, else the XDG cache folder: for what can be made again. Raises SettingsError."""
    return folder_of(os.environ, os.geteuid(), root=Path("/var/cache"), variable="XDG_CACHE_HOME", below=".cache")


def folder_of(environ: Mapping[str, str], uid: int, *, root: Path, variable: str, below: str) -> Path:
    """Where this user keeps such things. Raises SettingsError where nobody knows."""
    if uid == 0:
        return root / "pilotlight"
    given = Path(environ.get(variable, ""))
    if given.is_absolute():  # what is not, the specification says, is to be passed over
        return given / "pilotlight"
    home = environ.get("HOME", "")
    if not home:
        try:
            home = pwd.getpwuid(uid).pw_dir
        except KeyError:
            home = ""
    if not Path(home).is_absolute():
        raise SettingsError(
            "no home folder is known for this user (HOME is not set, or is not an absolute path): name a folder with --state"
        )
    return Path(home) / below / "pilotlight"


def short_folder(state: Path) -> Path:
    """Where sockets lie of a state folder with a long path: the same for every process, and of nobody else. It is made
    by `up`.
    """
    owner = state.stat().st_uid if state.exists() else os.geteuid()
    return Path(f"/tmp/pl-{owner}-{hashlib.sha256(os.fsencode(state)).hexdigest()[:10]}")


def private_folder(folder: Path) -> Path:
    """The folder, made where it is missing, if nobody else can have put anything into it. Raises SettingsError,
    OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    make_folder(folder, 0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError(
            f"{folder} is not ours alone, so its content cannot be trusted: remove it, or give it to us with mode 0700"
        )
    return folder


LONGEST_STATE = 107 - len("/postgres/.s.PGSQL.5432")  # bytes: the kernel holds 107 of a socket's path
# up to here sockets lie in it, also vLLM's, which are named by a UUID
SHORT_STATE = 107 - len("/run/r/r01234567/") - 36


class Paths:
    """Where things lie in a state folder. One place, so that no two processes disagree."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.too_long = len(os.fsencode(state)) > LONGEST_STATE
        self.run = state / "run"  # locks and identities; sockets too, where the path is short enough
        self.sockets = self.run if len(os.fsencode(state)) <= SHORT_STATE else short_folder(state)
        self.secrets = state / "secrets"  # 0700: CA key, admin key, key pepper, database password
        self.spool = state / "spool"  # the routers' usage records on their way to Postgres
        self.snapshots = state / "snapshots"  # directory store, content-addressed
        self.staged = state / "staged"  # which snapshots this node has verified, and in which state of their files
        self.replicas = self.sockets / "r"  # one short folder a replica: TMPDIR, sockets
        self.baked = state / "baked"  # engine-ready copies of snapshots, mapped by replicas
        self.canaries = state / "canaries"  # what a revision's engine answered at its first boot
        self.journal = state / "journal"  # what engines produced, until Postgres has it
        self.audit = state / "audit"  # notes of what operators did, until Postgres has them
        self.logs = state / "logs"  # of our processes, by name
        # of replicas, by endpoint: which may be called as a process is
        self.endpoint_logs = state / "logs" / "endpoints"
        self.postgres = state / "postgres"
        self.policy = state / "policy.json"  # keys, prices and limits, for routers that start without Postgres
        # endpoints and revisions, for an activator that starts without Postgres
        self.catalogue = state / "catalogue.json"
        self.epoch = state / "epoch"  # the highest under which this machine has led
        self.ca_cert = state / "ca.pem"
        self.ca_bundle = state / "ca-bundle.pem"  # the machine's authorities and ours, for clients
        self.admin_key = state / "secrets" / "admin.key"
        self.key_pepper = state / "secrets" / "key.pepper"
        self.database_dsn = state / "secrets" / "database.dsn"  # of the embedded Postgres, password included
        self.reserve = state / "reserve"  # room on the disk for what runs, given up when there is no other
        self.postgres_reserve = state / "postgres.reserve"  # and for Postgres to start again
        self.client = state / "client.json"  # URLs for the command line, written by `up`

    def address(self, name: str) -> str:
        """Frame address of a process's socket: "activator", "agent", "ledger", "admin"."""
        return f"unix:{self.sockets / name}.sock"

    def metrics(self, name: str) -> Path:
        """The socket at which a process other than the router tells its metrics."""
        return self.sockets / f"{name}.metrics"

    def make(self) -> None:
        """Create what is missing. Raises OSError, and SettingsError where the short folder for sockets is not ours
        alone.

        Folders an unprivileged Postgres must traverse are 0711, the rest 0700, whatever the umask; no mode of a folder
        that was there is changed.
        """
        for missing in [folder for folder in reversed(self.state.parents) if not folder.exists()]:
            make_folder(missing, 0o755)
        make_folder(self.state, 0o711)
        make_folder(self.run, 0o711)
        if self.sockets != self.run:
            private_folder(self.sockets)
        for folder in (
            self.secrets,
            self.spool,
            self.snapshots,
            self.staged,
            self.replicas,
            self.baked,
            self.canaries,
            self.journal,
            self.audit,
            self.logs,
            self.endpoint_logs,
        ):
            make_folder(folder, 0o700)
