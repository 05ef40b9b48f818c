"""Commands that change this machine without the admin API leave a note of who did it, as the API's own acts do.

Every command stands in one of three tables, and a test holds it to its place. What goes through the admin API is noted
there; what changes files is noted here; the rest changes nothing that lasts. The failure to survive is a disk that
takes no note. Then the command goes on and says so: it may be the one that makes room.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from pilotlight.audit import Begun, Outcome, noted
from pilotlight.cli.exit_codes import say
from pilotlight.settings import Paths

BY_THE_API = frozenset(
    {
        "deploy",
        "apply",
        "set",
        "rm",
        "pause",
        "resume",
        "wake",
        "rollback",
        "keys create",
        "keys rotate",
        "keys revoke",
        "run",
        "chat",
    }
)  # run and chat make a key of a day
NOTED = {
    "snapshot pack": "snapshot.pack",
    "snapshot pin": "snapshot.pin",
    "snapshot unpin": "snapshot.unpin",
    "snapshot rm": "snapshot.rm",
    "snapshot prune": "snapshot.prune",
    "snapshot push": "snapshot.push",
    "snapshot pull": "snapshot.pull",
    "backup": "installation.backup",  # it takes every secret along
    "restore": "installation.restore",
    "down": "installation.down",
}
HERE = "this machine"


@contextmanager
def noting(paths: Paths, act: str, what: str, **asked: Any) -> Iterator[dict[str, Any]]:
    """The block is the act; what it puts into the dict is what changed. Before an installation has ever run nobody
    takes notes.
    """
    changed: dict[str, Any] = {}
    note = noted(
        act=act,
        object=what,
        who=user(),
        origin=HERE,
        at=time.time(),
        asked={name: value for name, value in asked.items() if value},
    )
    begun = Begun(paths.audit, note)
    outcome: Outcome = "failed"
    reason = ""
    try:
        yield changed
        outcome = "done"
    except typer.Exit as end:
        outcome = "refused" if end.exit_code else "done"
        reason = f"exit code {end.exit_code}" if end.exit_code else ""
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        settle(paths, begun, outcome, reason, changed)


def settle(paths: Paths, begun: Begun, outcome: Outcome, reason: str, changed: Mapping[str, Any]) -> None:
    begun.end(outcome, reason=reason, changed=changed)
    if begun.error and paths.audit.is_dir():
        say(f"pilotlight: this is not kept for `pilotlight audit`: {begun.error}")


def user() -> str:
    """Who this is, as the kernel and sudo have it."""
    import pwd

    uid = os.geteuid()
    try:
        name = f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        name = f"uid {uid}"
    before = os.environ.get("SUDO_USER", "")
    return f"{name}, by sudo of {before}" if before and uid == 0 else name


def who() -> str:
    """Who deploys, as `pilotlight revisions` tells it."""
    import getpass

    try:
        return f"{getpass.getuser()} (local)"
    except (KeyError, OSError):  # a user without a name
        return "local"
