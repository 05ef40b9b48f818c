"""Plans what a command changes in the stored endpoint. Step 6. Pure: `edges/commands.py` executes the plan.

A deploy that changes nothing makes no revision, so people and robots may repeat it for ever. What must survive is a new
configuration that does not work. The route stays where it is until the reconciler has seen the new revision serve
(`plan_settled`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from activator.catalogue import Endpoint, EngineArgs, Revision, RevisionOutcome
from activator.errors import CommandRefused
from activator.wire import Configuration, Deploy, Remove, Rollback
from pilotlight import endpoint_names
from runtime.argument_names import one_spelling, plain_name

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
OF_THE_ENDPOINT = (
    "max_held",
    "hold_seconds",
    "finish_seconds",
    "cors_origins",
    "paused",
)  # the rest of a configuration is its revision's


@dataclass(frozen=True, slots=True)
class Plan:
    """The endpoint as it is to be, and the revision that is new in it, if any.

    `wanted`: the revision that is to serve. `settled`: what became of a revision. `ends`: the endpoint is removed, or
    was before it comes back: its keys and prices are worth nothing from now on.
    """

    endpoint: Endpoint
    new_revision: Revision | None
    changed: bool
    wanted: Revision | None = None
    ends: bool = False
    settled: tuple[str, RevisionOutcome, str] | None = None


def check(frame: Deploy, base: Endpoint | None) -> None:
    """Raises CommandRefused with the field, what was given, and what is allowed."""
    new = base is None or base.removed
    rules: tuple[tuple[bool, str], ...] = (
        (endpoint_names.is_name(frame.name), f"the name {frame.name!r} is not allowed: use {endpoint_names.SAID}"),
        (
            bool(DIGEST.fullmatch(frame.digest)) or not frame.digest,
            f"digest {frame.digest!r} is not a digest: give sha256: and 64 hexadecimal digits "
            "(`pilotlight snapshot ls`)",
        ),
        (
            bool(frame.digest) or not new,
            f"there is no endpoint {frame.name!r} to change: deploy it with a model or a digest (`pilotlight ls` "
            "lists those there are)",
        ),
        (frame.weight_bytes >= 0, f"weight_bytes is {frame.weight_bytes}: it must not be negative"),
    )
    for holds, otherwise in rules:
        if not holds:
            raise CommandRefused(otherwise)


def plan_deploy(frame: Deploy, stored: Endpoint | None, *, new_id: Callable[[str], str], created: int) -> Plan:
    """A revision of this configuration, and all of the route on it, now or once it serves.

    1. A name is one organisation's for ever, for its keys and its history hang on it.
    2. An unknown name is a new endpoint; a removed one comes back under its id, with nothing else.
    3. What the deploy does not say stays as it is, or is about to be. A new endpoint has the defaults, and so has one
       that comes back.
    4. A configuration that serves already, or is about to, stays; else a new revision, numbered on.
    5. It gets the route at once where that is wished, or nothing would be lost by it; else it is the next one.
    """
    check(frame, stored)
    if stored and stored.org_id != frame.org_id:  # 1
        raise CommandRefused(f"the name {frame.name!r} is taken by another organisation: choose another")
    base = stored or Endpoint(  # 2
        endpoint_id=new_id("ep_"),
        org_id=frame.org_id,
        name=frame.name,
        created=created,
        route=(),
        max_held=0,
        hold_seconds=0.0,
    )
    before, wanted = aim(base), configuration(frame, base)  # 3
    revision = Revision(  # 4
        revision_id=new_id("rev_"),
        endpoint_id=base.endpoint_id,
        org_id=frame.org_id,
        number=base.newest.number + 1 if base.newest else 1,
        digest=frame.digest or (before.digest if before else ""),
        weight_bytes=frame.weight_bytes
        or (before.weight_bytes if before and frame.digest in ("", before.digest) else 0),
        created_by=frame.by,
        **wanted.model_dump(exclude=set(OF_THE_ENDPOINT)),
    )
    limits = {field: getattr(wanted, field) for field in OF_THE_ENDPOINT}
    return _put(stored, replace(base, **limits, removed=False), revision, at_once=frame.at_once, ends=base.removed)


def plan_rollback(frame: Rollback, stored: Endpoint | None, *, new_id: Callable[[str], str]) -> Plan:
    """As a deploy of what an earlier revision was.

    1. Without a number and with a way back under way already, this is the same command once more.
    2. Without a number a deploy on its way is dropped: nothing has changed yet.
    3. Nor has anything where the newest one failed before it served: a script's `deploy || rollback` must not lose what
       serves.
    4. Else the earlier revision's configuration is a new revision, numbered on: revisions are never taken up again.
    """
    stored = there(frame.name, frame.org_id, stored)
    serves, coming = stored.routed, stored.revision(stored.next)
    if frame.to is None and coming and _goes_back(stored, coming):  # 1
        return _put(stored, stored, coming, at_once=frame.at_once, ends=False)
    if frame.to is None and stored.next:  # 2
        return Plan(replace(stored, next=""), None, changed=True, wanted=serves)
    if frame.to is None and serves and stored.newest is not serves and _never_served(stored.newest):  # 3
        return Plan(stored, None, changed=False, wanted=serves)
    number = frame.to if frame.to is not None else _before(stored)  # 4
    earlier = next((revision for revision in stored.revisions if revision.number == number), None)
    if earlier is None:
        raise CommandRefused(f"{frame.name!r} has no revision {number}: `pilotlight revisions {frame.name}` lists them")
    assert stored.newest is not None
    again: dict[str, Any] = {"revision_id": new_id("rev_"), "number": stored.newest.number + 1, "created_by": frame.by}
    again["engine_args"] = _plain(earlier.engine_args)
    return _put(stored, stored, replace(earlier, **again, outcome="", failure=""), at_once=frame.at_once, ends=False)


def _never_served(revision: Revision | None) -> bool:
    return revision is not None and revision.outcome == "failed"


def _goes_back(stored: Endpoint, coming: Revision) -> bool:
    """Is the one on its way what a revision before the one that serves was?"""
    serves = stored.routed
    return any(serves and revision.number < serves.number and _same(coming, revision) for revision in stored.revisions)


def _before(stored: Endpoint) -> int:
    """The revision before the one that serves: of those that have served, or else of those that were never tried."""
    serves = stored.routed
    earlier = [revision for revision in stored.revisions if serves and revision.number < serves.number]
    for known in ([r for r in earlier if r.outcome == "proved"], [r for r in earlier if r.outcome != "failed"]):
        way = _way(known, serves) if serves else []
        if len(way) > 1:
            return way[-2].number
    raise CommandRefused(
        f"{stored.name!r} has no earlier revision that has not failed or been rolled back from: "
        f"`pilotlight revisions {stored.name}` lists all, --to takes one"
    )


def _way(earlier: list[Revision], serves: Revision) -> list[Revision]:
    """The way to the one that serves, without what was rolled back. A revision that equals an earlier one is a rollback
    to that one.
    """
    way: list[Revision] = []
    for revision in (*sorted(earlier, key=lambda each: each.number), serves):
        again = next((at for at, known in enumerate(way) if _same(revision, known)), len(way))
        way[again:] = [revision]
    return way


def _put(stored: Endpoint | None, base: Endpoint, revision: Revision, *, at_once: bool, ends: bool) -> Plan:
    """The revision is to have all of the route. `base`: the endpoint, with its limits as they are to be."""
    serves, coming = _alone(base), base.revision(base.next)
    same = coming if coming and _same(revision, coming) else serves if serves and _same(revision, serves) else None  # 4
    wanted = same or revision
    all_of_it = ((wanted.revision_id, 100),)
    if wanted is serves:
        after = replace(base, next="")  # what was to come instead is not wanted any more
    elif at_once or not base.route or nothing_to_lose(base):  # 5
        after = replace(base, route=all_of_it, next="")
    else:
        after = replace(base, next=wanted.revision_id)
    if same is None:
        after = replace(after, revisions=(*base.revisions, revision))
    return Plan(after, None if same else revision, changed=after != stored, wanted=wanted, ends=ends)


def nothing_to_lose(endpoint: Endpoint) -> bool:
    """Is all that its route leads to known not to serve?"""
    routed = [endpoint.revision(revision_id) for revision_id, weight in endpoint.route if weight]
    return all(revision is not None and revision.outcome == "failed" for revision in routed)


def _alone(endpoint: Endpoint) -> Revision | None:
    """The revision that has all of the route."""
    return endpoint.routed if len(endpoint.route) == 1 else None


def aim(endpoint: Endpoint) -> Revision | None:
    """What it is, or is about to be."""
    return endpoint.revision(endpoint.next) or endpoint.routed


def plan_settled(revision_id: str, failure: str, stored: Endpoint | None) -> Plan | None:
    """What the reconciler has seen become of a revision: it serves, or it has failed. None: nobody waits for that any
    more.

    1. The next one that serves gets the route; one that failed does not, and what serves goes on.
    2. Of one that has the route it is only kept in mind.
    """
    revision = stored.revision(revision_id) if stored else None
    if stored is None or stored.removed or revision is None:
        return None
    outcome: RevisionOutcome = "failed" if failure else "proved"
    settled = (revision_id, outcome, failure)
    known = tuple(replace(r, outcome=outcome, failure=failure) if r is revision else r for r in stored.revisions)
    after = replace(stored, revisions=known)
    if stored.next == revision_id:  # 1
        after = replace(after, next="", route=stored.route if failure else ((revision_id, 100),))
    elif not stored.routes_to(revision_id) or revision.outcome in (outcome, "proved"):
        return None
    return Plan(after, None, changed=after != stored, wanted=revision, settled=settled)  # 2


def configuration(frame: Deploy, base: Endpoint) -> Configuration:
    """What the endpoint is to be. Raises CommandRefused with every field that is wrong, what it is, and what is
    allowed.
    """
    given = {field: value for field in Configuration.model_fields if (value := getattr(frame, field)) is not None}
    now = _as_it_is(base)
    had = now.get("engine_args", {})
    unset = {plain_name(name) for name in frame.unset_engine_args}
    unknown = [name for name in frame.unset_engine_args if plain_name(name) not in had]
    if unknown:
        raise CommandRefused(
            f"engine_args has no {', '.join(map(repr, unknown))} to unset: it has {', '.join(sorted(had)) or 'none'}"
        )
    if frame.merge_engine_args or frame.engine_args is None:
        kept = {name: value for name, value in had.items() if name not in unset}
        given["engine_args"] = kept | _one_spelling(frame.engine_args or {})
    try:
        return Configuration.model_validate(now | given)
    except ValidationError as error:
        raise CommandRefused("; ".join(_explain(item) for item in error.errors())) from None


def _as_it_is(base: Endpoint) -> dict[str, Any]:
    """The configuration it has, or is about to have; nothing for one that has no route."""
    current = aim(base)
    if current is None:
        return {}
    is_now = {
        field: getattr(base if field in OF_THE_ENDPOINT else current, field) for field in Configuration.model_fields
    }
    return is_now | {"engine_args": _plain(current.engine_args)}


def _plain(engine_args: EngineArgs) -> dict[str, str | int | float | bool]:
    """As they are spelt today; those of older releases are stored as they were given, and of two spellings the last one
    counts.
    """
    return {plain_name(name): value for name, value in engine_args.items()}


def _one_spelling(engine_args: EngineArgs) -> dict[str, str | int | float | bool]:
    try:
        return one_spelling(engine_args)
    except ValueError as error:
        raise CommandRefused(f"engine_args: {error}") from None


def _explain(item: Any) -> str:
    what = item["msg"].removeprefix("Value error, ")
    field = ".".join(map(str, item["loc"]))
    return f"{field} is {item['input']!r}: {what}" if field else str(what)


def there(name: str, org_id: str, stored: Endpoint | None) -> Endpoint:
    """Raises CommandRefused where no such endpoint serves."""
    if stored is None or stored.removed or stored.org_id != org_id:
        raise CommandRefused(f"there is no endpoint {name!r}: `pilotlight ls` lists those there are")
    return stored


def plan_remove(frame: Remove, stored: Endpoint | None) -> Plan:
    """No route, no replicas, no keys, no prices; what it was stays stored."""
    stored = there(frame.name, frame.org_id, stored)
    return Plan(replace(stored, route=(), next="", removed=True), None, changed=True, ends=True)


def _same(revision: Revision, current: Revision) -> bool:
    """Would it serve just as the current one? Names and numbers aside, and what is merely known of it."""
    known: dict[str, Any] = {
        field: getattr(current, field)
        for field in ("revision_id", "number", "weight_bytes", "created_by", "outcome", "failure")
    }
    if revision.concurrency == current.concurrency:
        known["target_concurrency"] = current.target_concurrency
    known["engine_args"] = _plain(revision.engine_args)
    return replace(revision, **known) == replace(current, engine_args=_plain(current.engine_args))
