"""`pilotlight snapshot rm` and `prune`: snapshots nobody needs leave the disk, with their baked copies.

What must survive is everything that serves, or could serve again. A snapshot that an endpoint leads to is never
removed, nor is one that is pinned. One that only an earlier revision has is what `rollback` would need, so it goes only
where that is asked for. While the installation cannot be asked, nobody knows what is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pilotlight.cli.api import Api, ApiError, Unreachable
from pilotlight.cli.digests import find_digest
from pilotlight.cli.options import UNREACHABLE, print_json, say, stop
from pilotlight.cli.refusals import refusals
from pilotlight.settings import Settings
from pilotlight.sizes import human
from runtime.node.disk import Disk
from snapshots.pins import pinned
from snapshots.store.disk import digests

MOST_REVISIONS = 1000


@dataclass
class Needs:
    """Who needs which snapshot. `now`: digest → endpoints that lead there, or are about to; `earlier`: digest →
    revisions, as people name them; `unread`: endpoints with more revisions than are told.
    """

    now: dict[str, list[str]] = field(default_factory=dict)
    earlier: dict[str, list[str]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def needs(api: Api) -> Needs:
    """Raises ApiError."""
    found = Needs()
    for row in api.call("GET", "/endpoints")["data"]:
        name = row["name"]
        for digest in {row.get("digest"), (row.get("next") or {}).get("digest")} - {None, ""}:
            found.now.setdefault(str(digest), []).append(name)
        revisions = api.call("GET", f"/endpoints/{name}/revisions", params={"limit": MOST_REVISIONS})["data"]
        if len(revisions) == MOST_REVISIONS and revisions[-1]["number"] > 1:
            found.unread.append(name)
        for revision in revisions:
            found.earlier.setdefault(revision["digest"], []).append(f"revision {revision['number']} of {name}")
    return found


def why_not(digest: str, known: Needs, stay: Collection[str], *, force: bool) -> str:
    """Why a snapshot must not go; "" where it may. Pure."""
    if users := known.now.get(digest):
        return f"{digest[:19]}… serves {', '.join(users)}: remove or redeploy that first"
    if digest in stay:
        return f"{digest[:19]}… is pinned: `pilotlight snapshot unpin {digest[:19]}` first"
    if (revisions := known.earlier.get(digest)) and not force:
        return f"{digest[:19]}… is what {', '.join(revisions[:3])} was: a rollback to that would need it; --force removes it all the same"
    if known.unread and not force:
        return (
            f"{digest[:19]}… may be what an old revision of {known.unread[0]} was, which has more than {MOST_REVISIONS}: --force removes it "
            "all the same"
        )
    return ""


def remove(settings: Settings, texts: list[str], *, force: bool, as_json: bool) -> None:
    """All of them, or none where one must not go."""
    store = settings.paths.snapshots
    with refusals("cannot remove"):
        found = [find_digest(store, text) for text in texts]
        known = _asked(settings, force=force)
        stay = pinned(settings.paths.staged)
        for digest in found:
            if reason := why_not(digest, known, stay, force=force):
                stop(reason)
        _gone(settings, found, as_json=as_json, dry_run=False)


def prune(settings: Settings, *, history: bool, dry_run: bool, as_json: bool) -> None:
    """`history`: also what only earlier revisions have."""
    with refusals("cannot prune"):
        known, stay = _asked(settings, force=False), pinned(settings.paths.staged)
        unused = [each for each in digests(settings.paths.snapshots) if not why_not(each, known, stay, force=history)]
        _gone(settings, unused, as_json=as_json, dry_run=dry_run)


def _asked(settings: Settings, *, force: bool) -> Needs:
    try:
        return needs(Api(settings.paths))
    except Unreachable as error:
        if force:
            say(f"the installation was not asked who needs it: {error}")
            return Needs()
        stop(
            f"cannot know what endpoints need: {error}; or remove one with `pilotlight snapshot rm --force DIGEST`",
            UNREACHABLE,
        )
    except ApiError as error:
        stop(f"cannot know what endpoints need: {error}")


def _gone(settings: Settings, found: Iterable[str], *, as_json: bool, dry_run: bool) -> None:
    paths, going = settings.paths, set(found)
    disk = Disk(store=paths.snapshots, node_dir=paths.staged, baked=paths.baked)
    freed = dict.fromkeys(sorted(going), 0)
    for item in disk.items():
        if item.digest in going:
            freed[item.digest] += item.size
            if not dry_run:
                disk.remove(item)
    if as_json:
        print_json([{"digest": digest, "bytes": taken, "removed": not dry_run} for digest, taken in freed.items()])
        return
    for digest in freed:
        print(digest)
    verb = "would be freed; nothing has been removed" if dry_run else "freed"
    say(
        f"{human(sum(freed.values()))} {verb}"
        if freed
        else "nothing to remove: every snapshot here is needed or pinned"
    )
