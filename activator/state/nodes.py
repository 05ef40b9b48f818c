"""The nodes: which agents are connected, what their standbys are like, and how commands to them are fenced. Step 7.

What must survive is an agent that falls silent: its link is cut after `SILENT_SECONDS`, and made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from activator.policy.placement import NodeView
from runtime.wire import EngineEnvironment, NodeReport, StandbyReport

SILENT_SECONDS = 15.0  # an agent that says nothing for so long is connected to anew

log = structlog.get_logger()


@dataclass(slots=True)
class Node:
    """One node, by what its agent said last. `connection` is None while its agent cannot be reached."""

    node_id: str
    environment: EngineEnvironment
    memory_bytes: int
    connection: int | None
    heard_at: float  # monotonic seconds
    devices: tuple[str, ...] = ()
    standbys_ready: int = 0
    standby_bytes: int = 0  # private, of one
    standby_reason: str = ""
    replica_bytes: int = 0  # needed by its replicas
    standbys_at_most: int | None = None  # how many it was told to keep; None: as many as it is configured to

    @property
    def committed_bytes(self) -> int:
        """By its replicas and the standbys it keeps; one that starts anew is counted as if it were there."""
        kept = 0 if self.standbys_at_most == 0 else 1
        return self.replica_bytes + self.standby_bytes * max(kept, self.standbys_ready)

    @property
    def taken_bytes(self) -> int:
        """What a replica that starts finds taken: a standby in any case, for where none is kept one is made to fork
        it.
        """
        return self.replica_bytes + self.standby_bytes * max(1, self.standbys_ready)


@dataclass(slots=True)
class Nodes:
    """Every node seen since the start."""

    memory_fraction: float = 1.0  # of a node's memory that is for standbys and replicas
    known: dict[str, Node] = field(default_factory=dict)

    def silent(self, now: float) -> list[int]:
        """The connections of agents that have said nothing for too long. Each is named once; its end is on its
        way.
        """
        found = []
        for node in self.known.values():
            if node.connection is not None and now - node.heard_at > SILENT_SECONDS:
                log.warning("an agent has gone silent; connecting anew", action="node_silent", node_id=node.node_id)
                found.append(node.connection)
                node.heard_at = now
        return found

    def forgive(self, seconds: float, now: float) -> None:
        """So long nobody could have been heard."""
        for node in self.known.values():
            node.heard_at = min(now, node.heard_at + seconds)

    def join(self, report: NodeReport, connection: int, now: float) -> int | None:
        """An agent connected. Returns the connection this one replaces."""
        before = self.known.get(report.node_id)
        self.known[report.node_id] = Node(
            report.node_id,
            report.environment,
            report.memory_bytes,
            connection,
            now,
            report.devices,
            report.standbys_ready,
            report.standby_bytes or (before.standby_bytes if before else 0),
            standbys_at_most=report.standbys_at_most,
        )
        return before.connection if before else None

    def reaches(self, node_id: str) -> bool:
        """Is its agent connected?"""
        node = self.known.get(node_id)
        return node is not None and node.connection is not None

    def connections(self) -> list[int]:
        """The links to agents there are now."""
        return [node.connection for node in self.known.values() if node.connection is not None]

    def at(self, node_id: str, connection: int) -> Node | None:
        """The node, if this is its connection now."""
        node = self.known.get(node_id)
        return node if node and node.connection == connection else None

    def leave(self, node_id: str, connection: int) -> bool:
        """Its connection is gone. False for one that was replaced before."""
        if (node := self.at(node_id, connection)) is None:
            return False
        node.connection = None
        return True

    def standby(self, node: Node, report: StandbyReport) -> None:
        node.standbys_ready, node.standby_reason = report.ready, report.reason
        node.standby_bytes = report.private_bytes or node.standby_bytes

    def commit(self, node_id: str, nbytes: int) -> None:
        """A replica that needs so much came (or, negative, went)."""
        if node := self.known.get(node_id):
            node.replica_bytes += nbytes

    def budget(self, node: Node) -> int:
        return int(node.memory_bytes * self.memory_fraction)

    def views(self, *, draining: Mapping[str, int], promised: Mapping[str, int]) -> list[NodeView]:
        """Bytes that are about to come free, and that are promised to starts that wait for them, by node."""
        return [
            NodeView(
                node_id=node.node_id,
                connected=node.connection is not None,
                environment=node.environment,
                budget_bytes=self.budget(node),
                committed_bytes=node.taken_bytes,
                standby_bytes=node.taken_bytes - node.replica_bytes,
                beside_bytes=node.standby_bytes,
                draining_bytes=draining.get(node.node_id, 0),
                promised_bytes=promised.get(node.node_id, 0),
                standbys_ready=node.standbys_ready,
            )
            for node in self.known.values()
        ]


@dataclass(slots=True)
class Fence:
    """Numbers for commands, growing for ever; an agent obeys no lower one than it has seen."""

    epoch: int
    sequence: int = 0

    def next(self) -> tuple[int, int]:
        self.sequence += 1
        return self.epoch, self.sequence
