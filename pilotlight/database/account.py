"""As whom the embedded Postgres runs: Postgres refuses root, so root starts it as an unprivileged account.

It must survive installations whose folders that account cannot enter: `shut_out` names the folder, and no mode is
changed.
"""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pilotlight.database.errors import EmbeddedError
from pilotlight.process_death import die_with_parent

REMEDY = "or name a Postgres of your own in DATABASE_URL"


@dataclass(frozen=True)
class Account:
    """Runs programs with nothing of our environment, that die when we are killed."""

    name: str
    uid: int
    gid: int

    def run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, its output captured. Raises OSError when it cannot be executed."""
        plumbing = self._arguments(signal.SIGKILL)
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **plumbing
        )

    def start(self, command: Sequence[str | Path], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a server; if we are killed it gets SIGINT. Raises OSError when it cannot be executed.

        It has a session of its own: Ctrl-C in the terminal reaches `up`, which stops the others first.
        """
        plumbing = self._arguments(signal.SIGINT)
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **plumbing
        )

    def _arguments(self, death_signal: signal.Signals) -> dict[str, Any]:
        environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
        arguments: dict[str, Any] = {
            "cwd": "/",
            "env": environment,
            "umask": 0o077,
            "preexec_fn": die_with_parent(death_signal),
        }
        if os.geteuid() == 0:
            arguments |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return arguments


def server_account(home: Path) -> Account:
    """Whose `home` is, where it is there; else who we are, or for root `postgres`, or `nobody`. Raises
    EmbeddedError.
    """
    if os.geteuid() != 0:
        if home.exists() and home.stat().st_uid != os.geteuid():
            raise EmbeddedError(
                f"{home} belongs to another user: start as that user, choose another state folder (--state), {REMEDY}"
            )
        return Account(_name(os.geteuid()), os.geteuid(), os.getegid())
    if home.exists():
        owner = home.stat()
        if owner.st_uid == 0:
            raise EmbeddedError(
                f"{home} belongs to root, as whom Postgres refuses to run: `chown -R postgres {home}`, {REMEDY}"
            )
        return Account(_name(owner.st_uid), owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        f"Postgres refuses to run as root, and there is no user `postgres` or `nobody`: add one, start as another, {REMEDY}"
    )


def shut_out(path: Path, account: Account) -> Path | None:
    """The first folder on the way to `path` (or `path` itself) that does not let `account` in; None when all do. Raises
    OSError.
    """
    path = path.resolve()
    for step in (*reversed(path.parents), path):
        state = step.stat()
        shift = 6 if state.st_uid == account.uid else 3 if state.st_gid == account.gid else 0
        if not stat.S_IMODE(state.st_mode) >> shift & 1:
            return step
    return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
