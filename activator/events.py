"""The events of the reconciler: everything that can change its mind, in order, through one inbox. Steps 6, 7 and 10.

A connection is a number that names one link for ever, so what a replaced link still has to say can be told apart. `at`
is when the news arrived, in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from activator.catalogue import Endpoint, Revision
from activator.wire import Demand, Done
from runtime.wire import ArgumentsChecked, NodeReport, Refused, ReplicaReport, Shipped, StandbyReport, UsageBatch

Reply = Callable[[Done], None]


@dataclass(frozen=True, slots=True)
class RouterJoined:
    """A router connected."""

    router_id: str
    connection: int
    takes_parts: bool = False  # a router of the release before takes a full table in one frame only


@dataclass(frozen=True, slots=True)
class DemandHeard:
    """A router's demand, and the table it has applied."""

    router_id: str
    connection: int
    frame: Demand
    at: float


@dataclass(frozen=True, slots=True)
class RouterHeard:
    """A heartbeat."""

    router_id: str
    connection: int


@dataclass(frozen=True, slots=True)
class RouterLeft:
    """The link to a router broke."""

    router_id: str
    connection: int


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """An agent connected, with its node's complete state."""

    connection: int
    report: NodeReport


@dataclass(frozen=True, slots=True)
class NodeHeard:
    """Anything an agent says after its report; None is a heartbeat."""

    node_id: str
    connection: int
    frame: ReplicaReport | ArgumentsChecked | StandbyReport | UsageBatch | Shipped | Refused | None


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """The link to an agent broke. `dead`: so did the agent, and its replicas with it."""

    node_id: str
    connection: int
    dead: bool


@dataclass(frozen=True, slots=True)
class EndpointStored:
    """A command is durable: this is the endpoint from now on. `reply` once the routers know it."""

    endpoint: Endpoint
    reply: Reply
    done: Done


@dataclass(frozen=True, slots=True)
class ArgumentsAsked:
    """Would the engine take the arguments of this revision? `reply`: ok, or not and why; `unchecked` where nobody could
    say.
    """

    revision: Revision
    reply: Reply


@dataclass(frozen=True, slots=True)
class StatusAsked:
    """`reply`: all there is, as `state/status.py` has it."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class WakeAsked:
    """Start a replica of what the endpoint's route leads to, though nobody calls. `reply`: what is there already, or
    why it cannot be.
    """

    org_id: str
    name: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class EpochTaken:
    """Leadership was renewed under a higher epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class ShutDown:
    """End every replica, then the reconciler. `hastily`: without letting them finish."""

    hastily: bool = False


Event = (
    RouterJoined
    | DemandHeard
    | RouterHeard
    | RouterLeft
    | NodeJoined
    | NodeHeard
    | NodeLeft
    | EndpointStored
    | ArgumentsAsked
    | StatusAsked
    | WakeAsked
    | EpochTaken
    | Tick
    | ShutDown
)
