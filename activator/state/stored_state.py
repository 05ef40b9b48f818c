"""What Postgres knows when an activator takes over: where the last one stopped. Step 6."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from activator.catalogue import Endpoint
from activator.policy.estimates import PastStart
from activator.policy.lifecycle import Replica
from activator.policy.quarantine import QuarantinedRung


@dataclass(slots=True)
class StoredState:
    """What Postgres had when this activator took over."""

    endpoints: Iterable[Endpoint] = ()
    replicas: Iterable[Replica] = ()
    cold_starts: Iterable[PastStart] = ()
    memory: Mapping[str, int] = field(default_factory=dict)
    bad_rungs: Iterable[QuarantinedRung] = ()
