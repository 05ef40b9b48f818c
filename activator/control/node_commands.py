"""Commands to the nodes' agents, each stamped with the leader's epoch and a growing sequence. Steps 7 and 10.

An agent that is away hears nothing, and nothing is kept for it. Its next report shows what it did not hear, and the
command is given again. What must survive is a second leader: an agent obeys no lower stamp than it has seen.
"""

from __future__ import annotations

from activator.catalogue import Revision
from activator.effects import Effects
from activator.policy.lifecycle import UNPARK_SECONDS, Replica
from activator.state.nodes import Fence, Nodes
from runtime.wire import Drain, KeepStandbys, Park, Start, Stop, Unpark

Command = Start | Drain | Stop | Park | Unpark | KeepStandbys


class NodeCommands:
    """One method a command. Each returns at once."""

    def __init__(self, *, nodes: Nodes, fence: Fence, effects: Effects) -> None:
        self._nodes = nodes
        self._fence = fence
        self._effects = effects

    def start(self, replica: Replica, revision: Revision, *, endpoint: str, deadline_seconds: float) -> None:
        epoch, sequence = self._fence.next()
        command = Start(
            epoch=epoch,
            sequence=sequence,
            replica_id=replica.replica_id,
            revision_id=revision.revision_id,
            endpoint=endpoint,
            digest=revision.digest,
            task=revision.task,
            engine_args=dict(revision.engine_args),
            slots=revision.slots,
            deadline_seconds=deadline_seconds,
            parks=revision.zero == "parked",
            plain=replica.plain,
            allow=revision.allow,
            media_hosts=revision.media_hosts,
        )
        self._send(replica.node_id, command)

    def unpark(self, replica: Replica) -> None:
        epoch, sequence = self._fence.next()
        command = Unpark(
            epoch=epoch,
            sequence=sequence,
            replica_id=replica.replica_id,
            climb=replica.unparks,
            deadline_seconds=UNPARK_SECONDS,
        )
        self._send(replica.node_id, command)

    def park(self, replica: Replica, seconds: float) -> None:
        epoch, sequence = self._fence.next()
        command = Park(epoch=epoch, sequence=sequence, replica_id=replica.replica_id, seconds=seconds)
        self._send(replica.node_id, command)

    def drain(self, replica: Replica, seconds: float) -> None:
        epoch, sequence = self._fence.next()
        command = Drain(epoch=epoch, sequence=sequence, replica_id=replica.replica_id, seconds=seconds)
        self._send(replica.node_id, command)

    def stop(self, node_id: str, replica_id: str) -> None:
        """`replica_id` may be one that is not known here."""
        epoch, sequence = self._fence.next()
        self._send(node_id, Stop(epoch=epoch, sequence=sequence, replica_id=replica_id))

    def keep_standbys(self, node_id: str, at_most: int | None) -> None:
        """None: as many as the node is configured to keep."""
        epoch, sequence = self._fence.next()
        self._send(node_id, KeepStandbys(epoch=epoch, sequence=sequence, at_most=at_most))

    def _send(self, node_id: str, command: Command) -> None:
        node = self._nodes.known.get(node_id)
        if node is not None and node.connection is not None:
            self._effects.send(node.connection, command)
