"""What the activator says and hears: the contract between router and activator (and, for commands, the admin API).

A router connects, sends `RouterHello`, gets a whole `Table` and from then on deltas; it sends `Demand` the moment a
request has to wait, then whenever the number changes (at most every 0.1 s), and once a second in any case. Demand is
absolute: held + in flight now, per revision. Frames carry (epoch, sequence); a router refuses lower ones. What others have in
a replica is no part of the table, for it changes with every request: `Depths` tells it, gathered, to those it makes a difference to.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pilotlight.frames import Frame
from runtime.wire import Phase, PhaseName, Rung, Task, Zero

# Activator → router


class ReplicaRow(Frame):
    """A replica a router may dispatch to."""

    replica_id: str
    address: str
    slots: int  # this router worker's share of the gate's slots, at least 1
    draining: bool = False
    cold_start_id: str = ""  # of its last start: a replica that was parked has several
    rung: Rung | None = None  # where that began
    phases: tuple[Phase, ...] = ()  # of that start; the router adds hold and first_token


class RevisionRow(Frame):
    revision_id: str
    task: Task
    replicas: tuple[ReplicaRow, ...] = ()
    starting: bool = False
    phase: PhaseName | None = None  # of the start that is on its way, once it has lasted a second
    phase_began_seconds: float = 0.0  # how long that start had lasted when the phase began
    fetched: float | None = None  # of a fetch: the part that is done, 0 to 1
    failure: str = ""  # set: no start can succeed for now; what is held fails with it
    retry_after_seconds: float = 0.0
    expected_seconds: float = 0.0  # of the cold start that is on its way, or of the next one, learned from past ones


class EndpointRow(Frame):
    name: str
    org_id: str
    endpoint_id: str
    created: int  # Unix seconds
    task: Task
    max_held: int
    hold_seconds: float
    route: tuple[tuple[str, int], ...]  # (revision id, weight), weights sum to 100
    revisions: tuple[RevisionRow, ...]


class Table(Frame):
    """Whole (first frame of a connection) or a delta: each endpoint given replaces the one of its name."""

    kind: Literal["table"] = "table"
    epoch: int
    sequence: int
    whole: bool
    endpoints: tuple[EndpointRow, ...] = ()
    removed: tuple[str, ...] = ()


class Depths(Frame):
    """Requests that replicas have from others than this router, by replica id: what has changed since the connection began."""

    kind: Literal["depths"] = "depths"
    others: dict[str, int]
    routers: int  # connected, this one counted


class Alive(Frame):
    kind: Literal["alive"] = "alive"


# Router → activator


class RouterHello(Frame):
    kind: Literal["router"] = "router"
    router_id: str  # one a worker process, unique for ever
    boot_id: str


class Demand(Frame):
    """Held + in-flight requests per revision id, now. A revision not named has none."""

    kind: Literal["demand"] = "demand"
    sequence: int
    requests: dict[str, int]
    table_sequence: int  # the highest table this router has applied: the acknowledgement a drain waits for
    in_flight: dict[str, int] = {}  # by replica id, where a revision has several replicas: what of their depth is this router's own


# Admin → activator: one command a connection, one `Done` back


class Deploy(Frame):
    """Make a revision and put the whole route on it."""

    kind: Literal["deploy"] = "deploy"
    org_id: str
    name: str
    digest: str
    task: Task = "generate"
    engine_args: dict[str, str | int | float | bool] = {}
    min_replicas: int = 0
    max_replicas: int = 1
    idle_timeout_seconds: float = 60.0
    slots: int = 64
    target_concurrency: int = 0  # requests a replica is meant to have at once; above it another starts. 0: its slots
    hold_seconds: float = 300.0
    max_held: int = 1000
    weight_bytes: int = 0  # of the snapshot's safetensors, for the first estimate of its memory; 0: not known
    zero: Zero = "standby"  # where it rests without a call


class Remove(Frame):
    kind: Literal["remove"] = "remove"
    org_id: str
    name: str


class Status(Frame):
    """Ask for every endpoint, revision, replica and node, as the reconciler sees them now."""

    kind: Literal["status"] = "status"


class Done(Frame):
    kind: Literal["done"] = "done"
    ok: bool
    message: str = ""  # what was wrong and what to do, where not ok
    result: dict[str, Any] = {}


ToActivator = Annotated[RouterHello | Demand | Deploy | Remove | Status | Alive, Field(discriminator="kind")]
FromActivator = Annotated[Table | Depths | Done | Alive, Field(discriminator="kind")]
