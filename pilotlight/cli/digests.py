"""A snapshot as people name it: by its digest, or by as much of that as names one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pilotlight.cli.options import stop
from snapshots.store.disk import digests


def find_digest(store: Path, text: str) -> str:
    """A digest given whole or as a beginning that names one; stops where it names none or several."""
    return the_one(text, digests(store), "snapshot", store)


def the_one(text: str, among: Iterable[str], what: str, place: Path) -> str:
    """That of some digests which `text` names; stops where it names none or several. `what` and `place` are for the
    message.
    """
    wanted = text.lower().replace("sha256-", "sha256:")
    wanted = wanted if wanted.startswith("sha256:") else f"sha256:{wanted}"
    found = [digest for digest in among if digest.startswith(wanted)]
    if not found:
        stop(f"no {what} {text} in {place}: `pilotlight snapshot ls` shows what is there")
    if len(found) > 1:
        stop(f"{text} names {len(found)} snapshots: give more of the digest")
    return found[0]
