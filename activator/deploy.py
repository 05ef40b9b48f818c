"""What a `Deploy` or `Remove` means for the endpoint as it is stored. Step 6. Pure: plan here, execute in `commands.py`.

A deploy that changes nothing makes no revision, so that it may be repeated for ever, by people and by robots.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from activator.catalogue import Endpoint, Revision
from activator.errors import CommandRefused
from activator.wire import Configuration, Deploy, Remove

NAME = re.compile(r"[a-z0-9-]{1,63}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
OF_THE_ENDPOINT = ("max_held", "hold_seconds")  # the rest of a configuration is its revision's


@dataclass(frozen=True, slots=True)
class Plan:
    """The endpoint as it is to be, and the revision that is new in it, if any.

    `ends`: a life of its name ends, or has ended before it comes back: the keys and prices of that life are worth nothing from now on.
    """

    endpoint: Endpoint
    new_revision: Revision | None
    changed: bool
    ends: bool = False


def check(frame: Deploy) -> None:
    """Raises CommandRefused with the field, what was given, and what is allowed."""
    rules: tuple[tuple[bool, str], ...] = (
        (bool(NAME.fullmatch(frame.name)), f"the name {frame.name!r} is not allowed: use 1 to 63 of a-z, 0-9 and -"),
        (
            bool(DIGEST.fullmatch(frame.digest)),
            f"digest {frame.digest!r} is none: give sha256: and 64 hexadecimal digits (`pilotlight snapshot ls`)",
        ),
        (frame.weight_bytes >= 0, f"weight_bytes is {frame.weight_bytes}: it must not be negative"),
    )
    for holds, otherwise in rules:
        if not holds:
            raise CommandRefused(otherwise)


def plan_deploy(frame: Deploy, stored: Endpoint | None, *, new_id: Callable[[str], str], created: int) -> Plan:
    """The whole route on a revision of this configuration.

    1. A name is one organisation's for ever, for its keys and its history hang on it.
    2. An unknown name is a new endpoint; a removed one comes back under its id, with nothing else.
    3. What the deploy does not say stays as it is; a new endpoint, and one that comes back, has the defaults.
    4. The configuration that has the whole route already stays; else a new revision, numbered on.
    """
    check(frame)
    if stored and stored.org_id != frame.org_id:  # 1
        raise CommandRefused(f"the name {frame.name!r} is taken by another organisation: choose another")
    base = stored or Endpoint(  # 2
        endpoint_id=new_id("ep_"), org_id=frame.org_id, name=frame.name, created=created, route=(), max_held=0, hold_seconds=0.0
    )
    newest, wanted = base.newest, configuration(frame, base)  # 3
    revision = Revision(  # 4
        revision_id=new_id("rev_"),
        endpoint_id=base.endpoint_id,
        org_id=frame.org_id,
        number=newest.number + 1 if newest else 1,
        digest=frame.digest,
        weight_bytes=frame.weight_bytes,
        **wanted.model_dump(exclude=set(OF_THE_ENDPOINT)),
    )
    current = base.revision(base.route[0][0]) if len(base.route) == 1 else None
    same = current is not None and _same(revision, current)
    route = base.route if same else ((revision.revision_id, 100),)
    revisions = base.revisions if same else (*base.revisions, revision)
    after = replace(base, route=route, revisions=revisions, max_held=wanted.max_held, hold_seconds=wanted.hold_seconds, removed=False)
    return Plan(after, None if same else revision, changed=after != stored, ends=base.removed)


def configuration(frame: Deploy, base: Endpoint) -> Configuration:
    """What the endpoint is to be. Raises CommandRefused with every field that is wrong, what it is, and what is allowed."""
    given = {field: value for field in Configuration.model_fields if (value := getattr(frame, field)) is not None}
    try:
        return Configuration.model_validate(_as_it_is(base) | given)
    except ValidationError as error:
        raise CommandRefused("; ".join(_explain(item) for item in error.errors())) from None


def _as_it_is(base: Endpoint) -> dict[str, Any]:
    """The configuration most of its route leads to; nothing for one that has none."""
    routed = max(base.route, key=lambda part: part[1], default=None)
    current = base.revision(routed[0]) if routed else None
    if current is None:
        return {}
    return {field: getattr(base if field in OF_THE_ENDPOINT else current, field) for field in Configuration.model_fields}


def _explain(item: Any) -> str:
    what = item["msg"].removeprefix("Value error, ")
    field = ".".join(map(str, item["loc"]))
    return f"{field} is {item['input']!r}: {what}" if field else str(what)


def plan_remove(frame: Remove, stored: Endpoint | None) -> Plan:
    """No route, no replicas, no keys, no prices; what it was stays stored."""
    if stored is None or stored.removed or stored.org_id != frame.org_id:
        raise CommandRefused(f"there is no endpoint {frame.name!r}: `pilotlight ls` lists those there are")
    return Plan(replace(stored, route=(), removed=True), None, changed=True, ends=True)


def _same(revision: Revision, current: Revision) -> bool:
    """Would it serve just as the current one? Names and numbers aside, and what is merely known of its weights."""
    known = {"revision_id": current.revision_id, "number": current.number, "weight_bytes": current.weight_bytes}
    spelt = {"target_concurrency": current.target_concurrency} if revision.concurrency == current.concurrency else {}
    return replace(revision, **known, **spelt) == current  # type: ignore[arg-type]
