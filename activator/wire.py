"""The contract between router and activator, and, for commands, the admin API: frames and their fields. Steps 5 to 10.

A router connects, sends `RouterHello`, gets a full `Table`, and from then on deltas. It sends `Demand` the moment a
request has to wait, whenever the number changes (at most every 0.1 s), and at least once a second. Demand is
absolute: held + in flight now, per revision. Frames carry (epoch, sequence); a router refuses lower ones. What others
have in a replica changes with every request, so the table does not have it. `Depths` says it, gathered, to the routers
it matters to.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pilotlight.frames import PROTOCOL, Frame
from pilotlight.origins import Origins
from runtime.argument_names import one_spelling
from runtime.tasks import DEFAULT, KINDS, Task, deployable
from runtime.wire import Phase, PhaseName, Rung, Zero

SHARED_CACHE = "shared_prefix_cache"
PARKING = " or ".join(task for task, kind in KINDS.items() if kind.parks)
MOST_HOSTS = 64
_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
HOST = re.compile(rf"({_LABEL}\.)+[a-z]([a-z0-9-]*[a-z0-9])?")
Allowance = Literal["prompt_logprobs", "echo_logprobs", "media", "chat_template", "shared_prefix_cache"]

# Activator → router


class ReplicaRow(Frame):
    """A replica a router may dispatch to."""

    replica_id: str
    address: str
    slots: int  # of its gate, for all routers: the gate has the last word
    draining: bool = False
    cold_start_id: str = ""  # of its last start: a replica that was parked has several
    rung: Rung | None = None  # where that began
    phases: tuple[Phase, ...] = ()  # of that start; the router adds hold and first_token


class RevisionRow(Frame):
    """One revision of an endpoint: its replicas, and how its next start stands."""

    revision_id: str
    task: Task
    replicas: tuple[ReplicaRow, ...] = ()
    starting: bool = False
    phase: PhaseName | None = None  # of the start that is on its way, once it has lasted a second
    phase_began_seconds: float = 0.0  # how long that start had lasted when the phase began
    fetched: float | None = None  # of a fetch: the part that is done, 0 to 1
    failure: str = ""  # set: no start can succeed for now; what is held fails with it
    waits_for: str = ""  # why its start waits, where it fits on no node now; what is held stays held
    retry_after_seconds: float = 0.0
    expected_seconds: float = 0.0  # of the cold start that is on its way, or of the next one, learned from past ones
    allow: tuple[str, ...] = ()  # what callers may ask for beyond what every endpoint serves: `Allowance`
    media_hosts: tuple[str, ...] = ()  # from which media may be fetched
    slots: int = 0  # of each of its replicas; 0: not known


class EndpointRow(Frame):
    """One endpoint as routers serve it: limits, route, revisions."""

    name: str
    org_id: str
    endpoint_id: str
    created: int  # Unix seconds
    task: Task
    max_held: int
    hold_seconds: float
    route: tuple[tuple[str, int], ...]  # (revision id, weight), weights sum to 100
    revisions: tuple[RevisionRow, ...]
    cors_origins: tuple[str, ...] = ()  # web pages that may call it
    paused: bool = False  # nothing of it runs: whoever calls is refused at once, and so is who waits


class Table(Frame):
    """Whole (first frame of a connection) or a delta: each endpoint given replaces the one of its name."""

    kind: Literal["table"] = "table"
    epoch: int
    sequence: int
    whole: bool
    more: bool = False  # the rest of this full table comes in the next frames, to a router that takes parts
    takes_partial: bool = False  # the sender takes partial demand
    endpoints: tuple[EndpointRow, ...] = ()
    removed: tuple[str, ...] = ()


class Depths(Frame):
    """Requests that replicas have from others than this router, by replica id: what has changed since the connection
    began.
    """

    kind: Literal["depths"] = "depths"
    others: dict[str, int]
    routers: int  # connected, this one counted


class Alive(Frame):
    """A heartbeat, either way."""

    kind: Literal["alive"] = "alive"


# Router → activator


class RouterHello(Frame):
    """The first frame of a router: who it is, and what it can read."""

    kind: Literal["router"] = "router"
    router_id: str  # one a worker process, unique for ever
    boot_id: str
    takes_parts: bool = False  # a full table may come in several frames
    protocol: int = PROTOCOL


class Demand(Frame):
    """Held + in-flight requests per revision id, now. A revision not named has none; where it is `partial`, as many as
    before.
    """

    kind: Literal["demand"] = "demand"
    sequence: int
    requests: dict[str, int]
    table_sequence: int  # the highest table this router has applied: the acknowledgement a drain waits for
    partial: bool = False
    in_flight: dict[
        str, int
    ] = {}  # by replica id, where a revision has several replicas: what of their depth is this router's own


# What an endpoint may be configured to be


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float | bool):
        raise ValueError("must be text, a number, true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if isinstance(value, str) and any(
        unicodedata.category(each) in ("Cc", "Cs") and each not in LAYOUT for each in value
    ):
        raise ValueError("must not have control characters in it, but for tabs and line breaks")
    return value


def _named(value: object) -> object:
    return one_spelling(value) if isinstance(value, dict) and all(isinstance(name, str) for name in value) else value


LAYOUT = "\t\n\r"  # as a chat template may have
Scalar = Annotated[str | int | float | bool, BeforeValidator(_scalar)]
EngineArguments = Annotated[dict[str, Scalar], BeforeValidator(_named)]


def _several(value: object) -> object:
    """As one types it: words with commas between them. Any order, and no word twice."""
    words = [word for word in re.split(r"[,\s]+", value) if word] if isinstance(value, str) else value
    if isinstance(words, list | tuple) and all(isinstance(word, str) for word in words):
        return tuple(sorted({word.strip().lower() for word in words}))
    return words


def _host(name: str) -> str:
    if len(name) > 253 or not HOST.fullmatch(name):
        raise ValueError(
            "must be the name of a host, such as images.example.com, without scheme, port or path, and no address"
        )
    return name


Allowances = Annotated[tuple[Allowance, ...], BeforeValidator(_several)]
HostName = Annotated[str, AfterValidator(_host)]
HostNames = Annotated[tuple[HostName, ...], BeforeValidator(_several), Field(max_length=MOST_HOSTS)]


class Configuration(BaseModel):
    """Its defaults and bounds, for manifest, admin API, command line and activator alike: what one takes, no other
    refuses.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: Annotated[Task, AfterValidator(deployable)] = Field(DEFAULT, description="What the model does.")
    engine_args: EngineArguments = Field(
        {},
        description='Arguments of vLLM\'s serve command, such as "max-model-len" = 2048; underscores are hyphens. One '
        'is ours: "graphs-when-idle" = true, on a GPU, '
        "answers before CUDA graphs are captured.",
    )
    min_replicas: int = Field(
        0, ge=0, le=1000, description="Replicas kept running without a call; 0: the endpoint goes to zero."
    )
    max_replicas: int = Field(1, ge=1, le=1000, description="Most replicas at once.")
    idle_timeout_seconds: float = Field(
        60.0, ge=0, le=7 * 86400, description="Without a call for so many seconds, it goes to zero."
    )
    slots: int = Field(64, ge=1, le=4096, description="Requests a replica works on at once.")
    target_concurrency: int = Field(
        0,
        ge=0,
        le=4096,
        description="Requests a replica is meant to have at once; with more, another starts. 0: as many as slots.",
    )
    zero: Zero = Field(
        "standby",
        description='Where it rests without a call: "parked" (one replica stays built, its memory given back; wakes '
        'soonest), "standby" '
        '(nothing of it runs), "staged" (where every endpoint says so, not even a standby is kept ready for its '
        "start).",
    )
    # clients wait 600 s
    hold_seconds: float = Field(300.0, gt=0, lt=600, description="Longest wait of a request for a slot, in seconds.")
    finish_seconds: float = Field(
        3600.0,
        ge=0,
        le=7 * 86400,
        description="Longest time that running answers may take to end at a replica that is not wanted any more, "
        "after a deploy or with less "
        "demand, in seconds.",
    )
    max_held: int = Field(
        1000, ge=0, le=1_000_000, description="Most requests waiting at once; one more is answered 503."
    )
    cors_origins: Origins = Field(
        (),
        description="Origins of web pages that may call it from a browser, such as https://app.example.org, or * for "
        "all; as a list, or "
        "between commas. Besides those of router.cors_origins.",
    )
    allow: Allowances = Field(
        (),
        description='What callers may ask for beyond what every endpoint serves: "prompt_logprobs" and '
        '"echo_logprobs" (log-probabilities of '
        'prompts; each takes memory for the whole vocabulary), "media" (images, audio and video, in data: URLs or '
        "from media_hosts), "
        '"chat_template" (a template of the caller\'s own), "shared_prefix_cache" (prompts of all keys share one '
        "prefix cache: for an endpoint "
        "whose keys are one customer's).",
    )
    media_hosts: HostNames = Field(
        (),
        description='Host names from which the engine may fetch media, such as "images.example.com"; none: data: URLs '
        "only.",
    )
    paused: bool = Field(
        False,
        description="Nothing of it runs and calls are answered 503 until it is resumed; in a manifest without it this "
        "stays as it is.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for fields, said in self._misfits():
            if self._decides(*fields):
                raise PydanticCustomError("misfit", "{said}", {"said": said, "field": fields[0]})
        return self

    def _misfits(self) -> Iterator[tuple[tuple[str, str], str]]:
        """Fields that do not go together, and why."""
        if self.max_replicas < self.min_replicas:
            yield (
                ("max_replicas", "min_replicas"),
                f"max_replicas ({self.max_replicas}) must not be less than min_replicas ({self.min_replicas})",
            )
        if self.target_concurrency > self.slots:
            yield (
                ("target_concurrency", "slots"),
                f"target_concurrency ({self.target_concurrency}) must not be more than slots ({self.slots}); 0: as "
                "many as slots",
            )
        if self.media_hosts and "media" not in self.allow:
            yield (
                ("media_hosts", "allow"),
                'media_hosts names hosts, and allow has no "media": add it, or leave the hosts out',
            )
        if self.zero == "parked" and not KINDS[self.task].parks:
            yield (
                ("zero", "task"),
                f'zero is "parked" and the task is {self.task}: only a replica with the task {PARKING} can be parked; '
                'use "standby"',
            )

    def _decides(self, *fields: str) -> bool:
        """Are these what it says, whatever else is known?"""
        return True


class Changes(Configuration):
    """What a deploy names of it. The rest stays as it is, or takes its default where the endpoint is new."""

    def _decides(self, *fields: str) -> bool:
        return self.model_fields_set.issuperset(fields)


# Admin → activator: one command a connection, one `Done` back


class Deploy(Frame):
    """Make a revision that gets all of the route once it has shown that it serves. None, or no digest: as it is, or by
    default where the endpoint is new (`Configuration`).
    """

    kind: Literal["deploy"] = "deploy"
    org_id: str
    name: str
    digest: str = ""
    task: Task | None = None
    engine_args: dict[str, str | int | float | bool] | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    idle_timeout_seconds: float | None = None
    slots: int | None = None
    target_concurrency: int | None = None
    hold_seconds: float | None = None
    max_held: int | None = None
    zero: Zero | None = None
    weight_bytes: int = 0  # of the snapshot's safetensors, for the first estimate of its memory; 0: not known
    finish_seconds: float | None = None
    cors_origins: tuple[str, ...] | None = None
    paused: bool | None = None
    merge_engine_args: bool = False  # those given are added to what it has; else they are all it has
    unset_engine_args: tuple[str, ...] = ()
    at_once: bool = False  # the route changes now, whatever becomes of the new revision
    by: str = ""  # who asks, as `revisions` tells it
    allow: tuple[str, ...] | None = None
    media_hosts: tuple[str, ...] | None = None


class Rollback(Frame):
    """A new revision with the configuration of an earlier one, deployed as any other."""

    kind: Literal["rollback"] = "rollback"
    org_id: str
    name: str
    to: int | None = (
        None  # number of a revision; None: the one before what serves that has served, or an end to a deploy on its way
    )
    at_once: bool = False
    by: str = ""


class Remove(Frame):
    """End an endpoint: no route, no replicas, no keys, no prices."""

    kind: Literal["remove"] = "remove"
    org_id: str
    name: str


class Status(Frame):
    """Ask for every endpoint, revision, replica and node, as the reconciler sees them now."""

    kind: Literal["status"] = "status"


class Wake(Frame):
    """Start a replica of what the endpoint's route leads to, though nobody calls; where one is ready, nothing."""

    kind: Literal["wake"] = "wake"
    org_id: str
    name: str


class ShipJournals(Frame):
    """The ledger's: answer once what replicas had journalled when this was asked is in Postgres, and say what is still
    in work.
    """

    kind: Literal["ship_journals"] = "ship_journals"


class Done(Frame):
    """The outcome of a command."""

    kind: Literal["done"] = "done"
    ok: bool
    message: str = ""  # what was wrong and what to do, where not ok
    again: bool = False  # nobody has refused it: the same command may succeed in a moment
    result: dict[str, Any] = {}


ToActivator = Annotated[
    RouterHello | Demand | Deploy | Rollback | Remove | Status | Wake | ShipJournals | Alive,
    Field(discriminator="kind"),
]
FromActivator = Annotated[Table | Depths | Done | Alive, Field(discriminator="kind")]
