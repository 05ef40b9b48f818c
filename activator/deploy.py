"""What a `Deploy` or `Remove` means for the endpoint as it is stored. Step 6. Pure: plan here, execute in `commands.py`.

A deploy that changes nothing makes no revision, so that it may be repeated for ever, by people and by robots.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from activator.catalogue import Endpoint, Revision
from activator.errors import CommandRefused
from activator.wire import Deploy, Remove

NAME = re.compile(r"[a-z0-9-]{1,63}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MOST_REPLICAS = 1000
MOST_SLOTS = 4096
MOST_HELD = 1_000_000
LONGEST_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The endpoint as it is to be, and the revision that is new in it, if any."""

    endpoint: Endpoint
    new_revision: Revision | None
    changed: bool


def check(frame: Deploy) -> None:
    """Raises CommandRefused with the field, what was given, and what is allowed."""
    rules: tuple[tuple[bool, str], ...] = (
        (bool(NAME.fullmatch(frame.name)), f"the name {frame.name!r} is not allowed: use 1 to 63 of a-z, 0-9 and -"),
        (
            bool(DIGEST.fullmatch(frame.digest)),
            f"digest {frame.digest!r} is none: give sha256: and 64 hexadecimal digits (`pilotlight snapshot ls`)",
        ),
        (1 <= frame.max_replicas <= MOST_REPLICAS, f"max_replicas is {frame.max_replicas}: it must be 1 to {MOST_REPLICAS}"),
        (
            0 <= frame.min_replicas <= frame.max_replicas,
            f"min_replicas is {frame.min_replicas}: it must be 0 to max_replicas ({frame.max_replicas})",
        ),
        (1 <= frame.slots <= MOST_SLOTS, f"slots is {frame.slots}: it must be 1 to {MOST_SLOTS}"),
        (
            0 <= frame.target_concurrency <= frame.slots,
            f"target_concurrency is {frame.target_concurrency}: it must be 1 to slots ({frame.slots}), or 0 for as many as there are slots",
        ),
        (
            frame.zero != "parked" or frame.task == "generate",
            f'zero is "parked" and the task is {frame.task}: what comes up from parked must pass the canary, which only generate has; '
            'use "standby"',
        ),
        (frame.weight_bytes >= 0, f"weight_bytes is {frame.weight_bytes}: it must not be negative"),
        (0 <= frame.max_held <= MOST_HELD, f"max_held is {frame.max_held}: it must be 0 to {MOST_HELD}"),
        (
            _is_duration(frame.idle_timeout_seconds),
            f"idle_timeout_seconds is {frame.idle_timeout_seconds}: it must be 0 to {LONGEST_SECONDS:.0f}",
        ),
        (_is_duration(frame.hold_seconds), f"hold_seconds is {frame.hold_seconds}: it must be 0 to {LONGEST_SECONDS:.0f}"),
        (all(map(_is_finite, frame.engine_args.values())), "engine_args has a number that is not finite"),
    )
    for holds, otherwise in rules:
        if not holds:
            raise CommandRefused(otherwise)


def plan_deploy(frame: Deploy, stored: Endpoint | None, *, new_id: Callable[[str], str], created: int) -> Plan:
    """The whole route on a revision of this configuration.

    1. A name is one organisation's for ever, for its keys and its history hang on it.
    2. An unknown name is a new endpoint; a removed one comes back as it was.
    3. The configuration that has the whole route already stays; else a new revision, numbered on.
    """
    check(frame)
    if stored and stored.org_id != frame.org_id:  # 1
        raise CommandRefused(f"the name {frame.name!r} is taken by another organisation: choose another")
    base = stored or Endpoint(  # 2
        endpoint_id=new_id("ep_"), org_id=frame.org_id, name=frame.name, created=created, route=(), max_held=0, hold_seconds=0.0
    )
    newest = base.newest
    revision = Revision(  # 3
        revision_id=new_id("rev_"),
        endpoint_id=base.endpoint_id,
        org_id=frame.org_id,
        number=newest.number + 1 if newest else 1,
        digest=frame.digest,
        task=frame.task,
        engine_args=dict(frame.engine_args),
        min_replicas=frame.min_replicas,
        max_replicas=frame.max_replicas,
        idle_timeout_seconds=frame.idle_timeout_seconds,
        slots=frame.slots,
        target_concurrency=frame.target_concurrency,
        weight_bytes=frame.weight_bytes,
        zero=frame.zero,
    )
    current = base.revision(base.route[0][0]) if len(base.route) == 1 else None
    same = current is not None and _same(revision, current)
    route = base.route if same else ((revision.revision_id, 100),)
    revisions = base.revisions if same else (*base.revisions, revision)
    after = replace(base, route=route, revisions=revisions, max_held=frame.max_held, hold_seconds=frame.hold_seconds, removed=False)
    return Plan(after, None if same else revision, changed=after != stored)


def plan_remove(frame: Remove, stored: Endpoint | None) -> Plan:
    """No route, no replicas; what it was stays stored."""
    if stored is None or stored.removed or stored.org_id != frame.org_id:
        raise CommandRefused(f"there is no endpoint {frame.name!r}: `pilotlight ls` lists those there are")
    return Plan(replace(stored, route=(), removed=True), None, changed=True)


def _same(revision: Revision, current: Revision) -> bool:
    """Would it serve just as the current one? Names and numbers aside, and what is merely known of its weights."""
    known = {"revision_id": current.revision_id, "number": current.number, "weight_bytes": current.weight_bytes}
    spelt = {"target_concurrency": current.target_concurrency} if revision.concurrency == current.concurrency else {}
    return replace(revision, **known, **spelt) == current  # type: ignore[arg-type]


def _is_duration(seconds: float) -> bool:
    return math.isfinite(seconds) and 0 <= seconds <= LONGEST_SECONDS


def _is_finite(value: str | int | float | bool) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
