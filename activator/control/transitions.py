"""Carries out what `lifecycle.next_step` says of each replica that starts, drains or parks. Steps 6 and 10. Part of the
reconciler's one task.

Time and the routers' acknowledgements make these steps due. A command goes out only when no router could still send to
the replica. What must survive is an agent that is away: drain and park wait for it, a stop is repeated.
"""

from __future__ import annotations

import structlog

from activator.control.node_commands import NodeCommands
from activator.control.scale_up import ScaleUp
from activator.effects import Effects
from activator.policy import lifecycle
from activator.policy.lifecycle import Action, Patience, Replica
from activator.state.cluster import ClusterState

log = structlog.get_logger()


class Transitions:
    """Drains, parks, stops and gives up replicas."""

    def __init__(
        self, state: ClusterState, *, effects: Effects, commands: NodeCommands, scale_up: ScaleUp, patience: Patience
    ) -> None:
        self._state = state
        self._effects = effects
        self._commands = commands
        self._scale_up = scale_up
        self._patience = patience

    def advance(self, *, now: float, acknowledged: float) -> None:
        """Do what time and acknowledgements allow. `acknowledged`: the table sequence every router has applied."""
        settled = self._state.tenure.is_settled(now)
        for replica in self._state.replicas.moving():
            patience = Patience(self._patience.start_deadline, self._seconds_to_end(replica))
            action = lifecycle.next_step(
                replica, now=now, acknowledged=acknowledged, settled=settled, patience=patience
            )
            match action:
                case Action.GIVE_UP:
                    self._give_up(replica, now)
                case Action.STOP:
                    self.stop(replica, now)
                case Action.DRAIN if self._state.nodes.reaches(replica.node_id):
                    self._drain(replica, patience.drain, now)
                case Action.PARK if self._state.nodes.reaches(replica.node_id):
                    self._park(replica, now)

    def stop(self, replica: Replica, now: float) -> None:
        """End it now. While its node is away this is repeated when it is back."""
        lifecycle.drain(replica)
        self._commands.stop(replica.node_id, replica.replica_id)
        replica.stop_sent = now
        self._state.replicas.moved(replica)
        log.info("replica told to stop", action="stop", replica_id=replica.replica_id, revision_id=replica.revision_id)

    def _seconds_to_end(self, replica: Replica) -> float:
        """How long it may take to end what it runs: its endpoint's own time, or the installation's short one."""
        if replica.hurried_at is not None or replica.state != "draining":
            return self._patience.drain
        return self._state.catalogue.finish_seconds(replica.revision_id)

    def _drain(self, replica: Replica, seconds: float, now: float) -> None:
        self._commands.drain(replica, seconds)
        replica.drain_sent = now
        self._effects.save_replica(replica)
        log.info("replica draining", action="drain", replica_id=replica.replica_id, revision_id=replica.revision_id)

    def _park(self, replica: Replica, now: float) -> None:
        self._commands.park(replica, self._patience.drain)
        replica.park_sent = now
        log.info("replica parking", action="park", replica_id=replica.replica_id, revision_id=replica.revision_id)
        if replica.wanted_back and (revision := self._state.catalogue.revision(replica.revision_id)):
            self._scale_up.unpark(replica, revision, now, now)
        self._effects.save_replica(replica)

    def _give_up(self, replica: Replica, now: float) -> None:
        """A start takes too long. One that comes from `parked` fails nobody: the next rung down is tried."""
        if replica.rung == "parked":
            replica.reason = f"not ready after {lifecycle.UNPARK_SECONDS:g} s, on its way up from parked"
        else:
            replica.reason = f"not ready after {self._patience.start_deadline:g} s"
            self._state.failures.start_failed(
                replica.revision_id, replica.reason, started_at=replica.started_at, now=now
            )
        self._effects.save_cold_start(replica, now)
        self.stop(replica, now)
