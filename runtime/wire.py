"""What the node agent (`runtime/node/agent.py`) says and hears: the contract between activator and runtime.

The agent serves it on an address of its own and outlives its caller. An activator that comes back after kill -9 reads
`NodeReport` and adopts what runs. Commands are fenced: each carries (epoch, sequence), the agent keeps the highest it
has seen in a file, and answers a lower one with `Refused`.

Times: `at` is seconds on the host's monotonic clock (CLOCK_MONOTONIC, one clock for all processes of a host).
Everything else is a duration in seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pilotlight.frames import PROTOCOL, Frame
from runtime.tasks import DEFAULT, Task

PhaseName = Literal["hold", "place", "spawn", "fetch", "load", "init", "canary", "first_token"]
ReplicaState = Literal["starting", "ready", "draining", "parking", "parked", "stopped"]
Rung = Literal["parked", "standby", "staged", "stored"]  # where a climb to `ready` begins
Zero = Literal["parked", "standby", "staged"]  # where a revision rests without a call
DeviceKind = Literal["cpu", "cuda"]  # what an engine computes on

MOST_STOPS = (
    32  # texts an answer may stop at. OpenAI's API and vLLM by itself have 4; evaluation harnesses send half a dozen
)


class Phase(Frame):
    """One named, timed step of a cold start."""

    name: PhaseName
    at: float  # monotonic seconds of its begin
    seconds: float
    note: str = ""  # how it was done, where there is more than one way


class EngineEnvironment(Frame):
    """Which engine a standby has imported: a replica of one environment never starts in another."""

    engine: str  # "vllm"
    version: str
    device: DeviceKind


class ReplicaReport(Frame):
    """All that is known of one replica, sent on every change; `phases` holds those finished so far."""

    kind: Literal["replica"] = "replica"
    replica_id: str
    revision_id: str
    state: ReplicaState
    address: str = ""  # "unix:/…" once ready
    devices: tuple[str, ...] = ()
    slots: int = 1  # requests the gate admits at once
    in_flight: int = 0
    private_bytes: int = 0  # pages no other session shares, all its processes together, as measured last; 0: not yet
    kv_cache_bytes: int = 0  # of the node's memory, touched or not; 0 where the cache is in a device
    memory_bytes: int = 0  # what it needs of the node's memory: both, each page counted once; 0: not measured yet
    pid: int = 0
    start_time: int = 0  # of the pid, clock ticks since boot: identity is the pair
    phases: tuple[Phase, ...] = ()
    reason: str = ""  # why it stopped, in the engine's own words where it failed
    failed: bool = False  # stopped without having been told to
    rung: Rung | None = None  # where its climb began, where the agent knows; None: as the activator saw it
    climb: int = 0  # how often it has been un-parked: what is told of an earlier climb is old
    mismatch: bool = False  # stopped because it answered its canary otherwise than recorded
    fetched: float | None = None  # the part of its snapshot that is on the node, 0 to 1, while the rest is on its way
    hung: bool = False  # stopped because it said nothing any more, or its work did not move


class UsageEntry(Frame):
    """What the engine really produced for one request: written at finish and at abort, before the last byte goes
    out.
    """

    request_id: str  # the router's x-request-id
    replica_id: str
    input_tokens: int
    cached_tokens: int  # part of input_tokens
    output_tokens: int
    finish: str  # stop, length, abort, error as the engine has it; "lost": its replica ended before it did
    partial: bool = False  # the last durable count of a request whose replica ended before it was whole


class RequestCount(Frame):
    """What one request in work has so far, counted as it would be billed if it ended now."""

    request_id: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int


# Activator → agent


class Start(Frame):
    """Start a replica of this revision; nothing happens where it is there already."""

    kind: Literal["start"] = "start"
    epoch: int
    sequence: int
    replica_id: str
    revision_id: str
    endpoint: str  # the served model's name
    digest: str  # snapshot, "sha256:…"
    task: Task = DEFAULT
    engine_args: dict[str, str | int | float | bool] = {}
    slots: int = 64
    deadline_seconds: float = 300.0
    parks: bool = False  # it may be told to park: on a GPU its engine must know from the start
    plain: bool = False  # trust nothing kept: a fresh standby, bytes verified anew, vLLM's own loader, no baked copy
    allow: tuple[str, ...] = ()  # what its callers may ask for beyond what every endpoint serves
    media_hosts: tuple[str, ...] = ()


class Drain(Frame):
    """Admit nothing more, finish what runs (at most `seconds`), stop."""

    kind: Literal["drain"] = "drain"
    epoch: int
    sequence: int
    replica_id: str
    seconds: float = 30.0


class Stop(Frame):
    """Stop now."""

    kind: Literal["stop"] = "stop"
    epoch: int
    sequence: int
    replica_id: str


class Park(Frame):
    """Admit nothing more, finish what runs (at most `seconds`), give the memory back, and wait for `Unpark`."""

    kind: Literal["park"] = "park"
    epoch: int
    sequence: int
    replica_id: str
    seconds: float = 30.0


class Unpark(Frame):
    """Serve again. May follow a `Park` that is not carried out yet: then that is taken back."""

    kind: Literal["unpark"] = "unpark"
    epoch: int
    sequence: int
    replica_id: str
    climb: int  # counts a replica's un-parkings, from 1
    deadline_seconds: float = 30.0


class KeepStandbys(Frame):
    """How many standbys to keep, never above what the node is configured to; None: that many."""

    kind: Literal["keep_standbys"] = "keep_standbys"
    epoch: int
    sequence: int
    replica_id: str = ""  # of none
    at_most: int | None = None


class CheckArguments(Frame):
    """Would the engine take these arguments? Changes nothing, so it is not fenced; answered with `ArgumentsChecked`."""

    kind: Literal["check_arguments"] = "check_arguments"
    check_id: str
    task: Task = DEFAULT
    engine_args: dict[str, str | int | float | bool] = {}
    digest: str = ""  # of the snapshot they are for; "", or one the node does not have: the arguments are only parsed
    slots: int = 0  # of the revision they are for; 0: from an activator that does not ask what is cut


class UsageStored(Frame):
    """Usage up to this batch number is durable in Postgres; the agent may forget it."""

    kind: Literal["usage_stored"] = "usage_stored"
    batch: int


class Ship(Frame):
    """Send what the journals have, and say once it is sent which requests are still in work."""

    kind: Literal["ship"] = "ship"
    token: int  # comes back in `Shipped`


# Agent → activator


class NodeReport(Frame):
    """Whole state, the first frame on every connection."""

    kind: Literal["node"] = "node"
    protocol: int = PROTOCOL
    node_id: str
    boot_id: str  # of the kernel: equal ids share a monotonic clock
    environment: EngineEnvironment
    memory_bytes: int  # what the machine, or the container's limit, gives to all of this node
    devices: tuple[str, ...] = ()
    standbys_ready: int = 0
    standby_bytes: int = 0  # private, of one standby
    standbys_at_most: int | None = None  # how many it was told to keep; None: as many as configured
    highest: tuple[int, int] = (0, 0)  # (epoch, sequence) seen
    replicas: tuple[ReplicaReport, ...] = ()


class StandbyReport(Frame):
    """The node's standbys, sent on every change."""

    kind: Literal["standby"] = "standby"
    ready: int
    private_bytes: int = 0  # of one standby
    reason: str = ""


class UsageBatch(Frame):
    """Lines of a journal, numbered; sent again until `UsageStored` has the number."""

    kind: Literal["usage"] = "usage"
    batch: int
    entries: tuple[UsageEntry, ...]
    complete: tuple[str, ...] = ()  # replicas that are gone and whose journals end before this batch


class Shipped(Frame):
    """The answer to `Ship`, behind the batches it speaks of: whatever these replicas had been given when it was asked
    is in those, or in work.
    """

    kind: Literal["shipped"] = "shipped"
    token: int
    replicas: tuple[str, ...] = ()
    in_work: tuple[str, ...] = ()  # requests that will still get a line in a journal


class ArgumentsChecked(Frame):
    """The answer to `CheckArguments`."""

    kind: Literal["arguments_checked"] = "arguments_checked"
    check_id: str
    reason: str = ""  # why it would not, naming the argument; "": it would
    checked: bool = True  # False: nobody was there to ask
    notes: tuple[str, ...] = ()  # what of the model a replica would not serve, and how to have it


class Refused(Frame):
    """A command that was older than one already seen."""

    kind: Literal["refused"] = "refused"
    replica_id: str
    reason: str


class Alive(Frame):
    """Heartbeat, a second apart, both ways."""

    kind: Literal["alive"] = "alive"


ToAgent = Annotated[
    Start | Drain | Stop | Park | Unpark | KeepStandbys | CheckArguments | UsageStored | Ship | Alive,
    Field(discriminator="kind"),
]
FromAgent = Annotated[
    NodeReport | ReplicaReport | StandbyReport | UsageBatch | Shipped | ArgumentsChecked | Refused | Alive,
    Field(discriminator="kind"),
]

# Router → the gate of a replica, over HTTP: a turn, and the request that comes in it. The gate answers when a slot is
# free.

TURN_PATH = "/turn"
TURN_HEADER = "x-pilotlight-turn"  # of the answer, and of the request
WAITED_HEADER = "x-pilotlight-waited"  # seconds that the oldest request has waited
SEQUENCES_HEADER = "x-pilotlight-sequences"  # how many slots a request takes: its prompts times choices; without it one
ROUTER_HEADER = "x-pilotlight-router"  # who asks for a turn: one name for a router's whole life
