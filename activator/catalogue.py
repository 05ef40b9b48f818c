"""What is to be served: endpoints, their routes and their revisions, as Postgres has them. Step 6.

All values are immutable. The reconciler replaces an endpoint as one value when a command has been stored, so no
half-applied deploy is ever seen. What must survive is a crash: Postgres is the authority, and the catalogue is read
again from there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from runtime.argument_names import plain_name
from runtime.tasks import Task
from runtime.wire import Zero

EngineArgs = Mapping[str, str | int | float | bool]
RevisionOutcome = Literal["", "proved", "failed"]  # "": not tried yet
Route = tuple[tuple[str, int], ...]  # (revision id, weight), weights sum to 100; empty for a removed endpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """One immutable configuration of an endpoint."""

    revision_id: str
    endpoint_id: str
    org_id: str
    number: int
    digest: str
    task: Task
    engine_args: EngineArgs
    min_replicas: int
    max_replicas: int
    idle_timeout_seconds: float
    slots: int
    target_concurrency: int = 0  # requests a replica is meant to have at once, at most its slots; 0: its slots
    weight_bytes: int = 0  # of the snapshot's safetensors; 0: not known
    zero: Zero = "standby"  # where it rests without a call
    allow: tuple[str, ...] = ()  # what its callers may ask for beyond what every endpoint serves
    media_hosts: tuple[str, ...] = ()
    created_by: str = ""
    outcome: RevisionOutcome = ""  # what became of it; the rest never changes
    failure: str = ""  # why it failed

    @property
    def concurrency(self) -> int:
        return self.target_concurrency or self.slots

    @property
    def engine(self) -> Hashable:
        """All that decides what its engine is like, and so how much memory it takes: equal for revisions that differ in
        scaling only.
        """
        arguments = frozenset((plain_name(name), value) for name, value in self.engine_args.items())
        return self.digest, self.task, self.slots, arguments, self.allow, self.media_hosts


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A public name and where its requests go."""

    endpoint_id: str
    org_id: str
    name: str
    created: int  # Unix seconds
    route: Route
    max_held: int
    hold_seconds: float
    revisions: tuple[Revision, ...] = ()  # routed, next, newest, or with replicas; oldest first
    removed: bool = False
    next: str = ""  # the revision that gets the whole route once it is ready
    finish_seconds: float = 3600.0  # how long running answers of a replica that is not wanted any more may go on
    cors_origins: tuple[str, ...] = ()  # web pages that may call it
    paused: bool = False  # nothing of it runs, and its callers are told so

    def revision(self, revision_id: str) -> Revision | None:
        return next((revision for revision in self.revisions if revision.revision_id == revision_id), None)

    def routes_to(self, revision_id: str) -> bool:
        for routed, weight in self.route:  # noqa: SIM110 (half the time of `any`, and it is asked in every decision)
            if routed == revision_id and weight > 0:
                return True
        return False

    @property
    def routed(self) -> Revision | None:
        """The revision most of its route leads to."""
        most = max(self.route, key=lambda part: part[1], default=None)
        return self.revision(most[0]) if most else None

    @property
    def newest(self) -> Revision | None:
        return max(self.revisions, key=lambda revision: revision.number, default=None)


@dataclass(slots=True)
class Catalogue:
    """Every endpoint, found by its id, its name, or one of its revisions."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    on_put: Callable[[Endpoint], None] = lambda endpoint: None  # hears of each endpoint as it is from now on
    on_gone: Callable[[str], None] = lambda endpoint_id: None  # and of each that is forgotten
    _of_revision: dict[str, str] = field(default_factory=dict)
    # endpoints with a route → do all its revisions rest on `staged`?
    _routed: dict[str, bool] = field(default_factory=dict)
    _not_staged: int = 0  # of those, how many do not

    def put(self, endpoint: Endpoint) -> None:
        """Take the endpoint as stored now; revisions known before are kept, for replicas of theirs may still run."""
        before = self.endpoints.get(endpoint.endpoint_id)
        known = {
            revision.revision_id: revision for revision in (*(before.revisions if before else ()), *endpoint.revisions)
        }
        revisions = tuple(sorted(known.values(), key=lambda revision: revision.number))
        self.endpoints[endpoint.endpoint_id] = replace(endpoint, revisions=revisions)
        for revision in revisions:
            self._of_revision[revision.revision_id] = endpoint.endpoint_id
        self._count(self.endpoints[endpoint.endpoint_id])
        self.on_put(self.endpoints[endpoint.endpoint_id])

    @property
    def all_staged(self) -> bool:
        """Is there an endpoint with a route, and does every such rest on `staged`? Then no standby is kept for their
        sake.
        """
        return bool(self._routed) and not self._not_staged

    def _count(self, endpoint: Endpoint) -> None:
        before = self._routed.pop(endpoint.endpoint_id, True)
        routed = [revision for revision in endpoint.revisions if endpoint.routes_to(revision.revision_id)]
        staged = all(revision.zero == "staged" for revision in routed)
        if routed:
            self._routed[endpoint.endpoint_id] = staged
        self._not_staged += int(not staged) - int(not before)

    def named(self, name: str, org_id: str) -> Endpoint | None:
        """The endpoint that has the name now."""
        return next(
            (
                each
                for each in self.endpoints.values()
                if each.name == name and each.org_id == org_id and not each.removed
            ),
            None,
        )

    def find(self, revision_id: str) -> tuple[Endpoint, Revision] | None:
        """The revision and its endpoint; None for a revision never heard of."""
        endpoint = self.endpoints.get(self._of_revision.get(revision_id, ""))
        revision = endpoint.revision(revision_id) if endpoint else None
        return (endpoint, revision) if endpoint and revision else None

    def revision(self, revision_id: str) -> Revision | None:
        found = self.find(revision_id)
        return found[1] if found else None

    def finish_seconds(self, revision_id: str) -> float:
        """How long running answers of a revision may take to end where it is not wanted any more; 0 for one never heard
        of.
        """
        found = self.find(revision_id)
        return found[0].finish_seconds if found else 0.0

    def forget(self, revision_id: str) -> None:
        """Let go of a revision that has nothing running, unless it is routed, next or newest.

        Of a removed endpoint any may go, and the endpoint goes with the last of them. Postgres has it, should it come
        back.
        """
        found = self.find(revision_id)
        if found is None:
            return
        endpoint, gone = found
        if (
            endpoint.routes_to(revision_id)
            or endpoint.next == revision_id
            or (endpoint.newest is gone and not endpoint.removed)
        ):
            return
        left = tuple(revision for revision in endpoint.revisions if revision is not gone)
        del self._of_revision[revision_id]
        self.endpoints[endpoint.endpoint_id] = replace(endpoint, revisions=left)
        if not left:
            del self.endpoints[endpoint.endpoint_id]
            self.on_gone(endpoint.endpoint_id)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self.endpoints.values())
