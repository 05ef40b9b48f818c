"""The nodes: who is connected, what their standbys are like, and how commands to them are fenced. Step 7."""

from __future__ import annotations

from dataclasses import dataclass, field

from activator.placement import NodeView
from runtime.wire import EngineEnvironment, NodeReport, StandbyReport

EPOCH_BITS = 32  # sequences per epoch


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
    standby_bytes: int = 0
    standby_reason: str = ""
    committed_bytes: int = 0  # needed by its replicas

    def view(self) -> NodeView:
        return NodeView(
            node_id=self.node_id,
            connected=self.connection is not None,
            environment=self.environment,
            memory_bytes=self.memory_bytes,
            committed_bytes=self.committed_bytes + self.standby_bytes,
            standbys_ready=self.standbys_ready,
        )


@dataclass(slots=True)
class Nodes:
    """Every node seen since the start. `nodeless_since`: when the last connected one left; None while one is connected."""

    nodeless_since: float | None
    known: dict[str, Node] = field(default_factory=dict)

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
            committed_bytes=before.committed_bytes if before else 0,
        )
        self.nodeless_since = None
        return before.connection if before else None

    def at(self, node_id: str, connection: int) -> Node | None:
        """The node, if this is its connection now."""
        node = self.known.get(node_id)
        return node if node and node.connection == connection else None

    def leave(self, node_id: str, connection: int, now: float) -> bool:
        """Its connection is gone. False for one that was replaced before."""
        if (node := self.at(node_id, connection)) is None:
            return False
        node.connection = None
        if all(other.connection is None for other in self.known.values()):
            self.nodeless_since = now
        return True

    def standby(self, node: Node, report: StandbyReport) -> None:
        node.standbys_ready, node.standby_bytes, node.standby_reason = report.ready, report.private_bytes, report.reason

    def commit(self, node_id: str, nbytes: int) -> None:
        """A replica that needs so much came (or, negative, went)."""
        if node := self.known.get(node_id):
            node.committed_bytes += nbytes

    def views(self) -> list[NodeView]:
        return [node.view() for node in self.known.values()]


@dataclass(slots=True)
class Fence:
    """Numbers for commands, growing for ever; an agent obeys no lower one than it has seen."""

    epoch: int
    sequence: int = 0

    def next(self) -> tuple[int, int]:
        self.sequence += 1
        return self.epoch, self.sequence
