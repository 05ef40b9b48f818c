"""What nodes report, taken into the state: replicas adopted, observed, ended or lost. Steps 7 and 10. Part of the
reconciler's one task.

Three failures must be survived: a link that breaks in the middle of a command, an agent that dies, and an activator
that begins anew. All three end in `_adopt_all`: the node's own report decides what runs, whatever was believed.
"""

from __future__ import annotations

import structlog

from activator.catalogue import Revision
from activator.control.argument_checks import Checks
from activator.control.node_commands import NodeCommands
from activator.effects import Effects
from activator.events import NodeHeard
from activator.policy import lifecycle
from activator.policy.estimates import PastStart
from activator.policy.lifecycle import Outcome, Patience, Replica
from activator.policy.quarantine import BAD_SECONDS, QuarantinedRung, RungStep
from activator.state.cluster import ClusterState
from activator.store.events import EventRecord, Kind
from runtime.wire import ArgumentsChecked, NodeReport, Refused, ReplicaReport, Shipped, StandbyReport, UsageBatch

log = structlog.get_logger()

START_ENDED = (Outcome.READY, Outcome.START_FAILED, Outcome.FELL, Outcome.MISMATCHED)
EXPECTED = (Outcome.NOTHING, Outcome.READY, Outcome.PARKED, Outcome.ENDED)  # no reason for a warning
LAST_RUNG = (
    "{reason}. This start used verified bytes and nothing that was kept, so there is nothing left to try. If the "
    "engine "
    "or the machine has changed on purpose, remove the record named: the next start makes a new one. Else check the "
    "machine's memory"
)


class Reports:
    """Takes in what agents say, and remembers what each report means for its revision."""

    def __init__(
        self, state: ClusterState, *, effects: Effects, commands: NodeCommands, checks: Checks, patience: Patience
    ) -> None:
        self._state = state
        self._effects = effects
        self._commands = commands
        self._checks = checks
        self._patience = patience

    def joined(self, report: NodeReport, connection: int, now: float) -> None:
        """An agent connected. One that has obeyed a higher epoch than ours obeys us only under a higher one still."""
        if report.highest[0] > self._state.fence.epoch:
            log.warning(
                "an agent has obeyed a higher epoch", action="epoch_low", node_id=report.node_id, highest=report.highest
            )
            self._effects.raise_epoch(report.highest[0])
            self._effects.hang_up(connection)
            return
        replaced = self._state.nodes.join(report, connection, now)
        if replaced is not None:
            self._effects.hang_up(replaced)
        self._adopt_all(report, now)
        log.info(
            "node joined",
            action="node_joined",
            node_id=report.node_id,
            replicas=len(report.replicas),
            standbys=report.standbys_ready,
        )

    def heard(self, event: NodeHeard, now: float) -> str | None:
        """Anything an agent says after its report. Returns the revision whose replica may have another depth."""
        node = self._state.nodes.at(event.node_id, event.connection)
        if node is None:
            return None
        node.heard_at = now
        match event.frame:
            case ReplicaReport():
                self._observe(node.node_id, event.frame, now)
                return event.frame.revision_id
            case StandbyReport():
                self._state.nodes.standby(node, event.frame)
            case UsageBatch() | Shipped():
                self._effects.save_usage(event.connection, event.frame)
            case ArgumentsChecked():
                self._checks.answered(event.frame)
            case Refused():
                self._refused(event.frame, now)
        return None

    def node_died(self, node_id: str, now: float) -> None:
        """Its agent is gone, and its replicas with it."""
        for replica in self._state.replicas.on(node_id):
            self._happened(replica, lifecycle.lost(replica, "the agent of its node died", now), now)

    def drop_strangers(self, now: float) -> None:
        """Replicas of nodes that were never seen since the start: machines that are gone, or have another name now."""
        known = self._state.nodes.known
        for replica in [each for each in self._state.replicas.by_id.values() if each.node_id not in known]:
            self._happened(replica, lifecycle.lost(replica, "its node did not come back", now), now)

    def _adopt_all(self, report: NodeReport, now: float) -> None:
        """A node's complete state: adopt what runs, stop what nobody knows, and drop what it does not have.

        1. Of a replica believed in, the report is the truth.
        2. One that was not known is adopted if its revision is, else stopped.
        3. One of this node that is not in the report runs no more.
        """
        replicas = self._state.replicas
        self._state.memory.count(report, replicas.by_id.values(), self._state.catalogue.revision)
        reported = {each.replica_id for each in report.replicas}
        for each in report.replicas:
            if replica := replicas.by_id.get(each.replica_id):  # 1
                lifecycle.rejoined(replica, each)
            self._observe(report.node_id, each, now)  # 1, 2
        for replica in replicas.on(report.node_id):
            if replica.replica_id not in reported:  # 3
                self._happened(replica, lifecycle.lost(replica, "its node does not have it any more", now), now)
        self._state.look_again_for_room()

    def _observe(self, node_id: str, report: ReplicaReport, now: float) -> None:
        replica = self._state.replicas.by_id.get(report.replica_id)
        revision = self._state.catalogue.revision(report.revision_id)
        if replica is None:
            if report.state == "stopped":
                return
            if revision is None:
                log.warning(
                    "a replica of an unknown revision",
                    action="stop_unknown",
                    replica_id=report.replica_id,
                    revision_id=report.revision_id,
                )
                self._commands.stop(node_id, report.replica_id)
                return
            replica = self._adopt(node_id, report, revision, now)
        before = (replica.state, replica.address)
        outcome = lifecycle.observe(replica, report, now)
        self._state.memory.weigh(replica, report, self._state.catalogue.revision(replica.revision_id))
        if outcome is not Outcome.NOTHING or (replica.state, replica.address) != before:
            self._happened(replica, outcome, now)

    def _adopt(self, node_id: str, report: ReplicaReport, revision: Revision, now: float) -> Replica:
        began = min((phase.at for phase in report.phases), default=now)
        replica = Replica(
            replica_id=report.replica_id,
            revision_id=report.revision_id,
            org_id=revision.org_id,
            node_id=node_id,
            started_at=began if 0 <= now - began <= self._patience.start_deadline else now,
            slots=revision.slots,
            weight_bytes=revision.weight_bytes,
            needs_bytes=self._state.memory.on(node_id, revision),
        )
        self._state.replicas.add(replica)
        self._state.replicas.moved(replica)
        log.info(
            "replica adopted",
            action="adopt",
            replica_id=replica.replica_id,
            revision_id=replica.revision_id,
            state=report.state,
        )
        return replica

    def _refused(self, frame: Refused, now: float) -> None:
        """An agent did not obey. A start that was refused has failed; anything else its reports will show."""
        replica = self._state.replicas.by_id.get(frame.replica_id)
        log.error("an agent refused a command", action="refused", replica_id=frame.replica_id, reason=frame.reason)
        if replica and replica.state == "starting" and not replica.pid:
            self._happened(replica, lifecycle.ended(replica, frame.reason, now), now)

    # What an outcome means

    def _happened(self, replica: Replica, outcome: Outcome, now: float) -> None:
        """1. Record it. 2. Learn from it. 3. Keep the register with it."""
        self._record(replica, outcome, now)  # 1
        self._learn(replica, outcome, now)  # 2
        if outcome is Outcome.PARKED:
            self._state.look_again_for_room()
        if replica.state == "stopped":  # 3
            self._state.replicas.remove(replica)
            self._state.look_again_for_room()
        self._state.replicas.moved(replica)
        write = log.info if outcome in EXPECTED else log.warning
        write(
            f"replica {outcome.value if outcome is not Outcome.NOTHING else replica.state}",
            action="replica",
            event_kind=outcome.name.lower(),
            replica_id=replica.replica_id,
            revision_id=replica.revision_id,
            reason=replica.reason,
        )

    def _learn(self, replica: Replica, outcome: Outcome, now: float) -> None:
        """What the next start of its revision is to know."""
        match outcome:
            case Outcome.READY:
                self._started(replica)
            case Outcome.START_FAILED:
                self._state.failures.start_failed(
                    replica.revision_id, replica.reason, started_at=replica.started_at, now=now
                )
            case Outcome.MISMATCHED:
                self._mismatched(replica, now)
            case Outcome.DIED:
                self._state.failures.died(replica, now)

    def _started(self, replica: Replica) -> None:
        revision_id = replica.revision_id
        if replica.phases:
            self._state.estimates.learn(
                PastStart(revision_id, replica.rung, replica.weight_bytes, replica.took_seconds)
            )
        self._state.failures.became_ready(revision_id)
        if replica.plain and (cleared := self._state.quarantine.clear(revision_id, replica.node_id)):
            self._effects.save_bad_rung(cleared)

    def _mismatched(self, replica: Replica, now: float) -> None:
        """Its answer was wrong: not from this rung again, and the next one down at once, for the same callers."""
        step: RungStep = "parked" if replica.rung == "parked" else "plain" if replica.plain else "standby"
        below = self._state.quarantine.add(replica.revision_id, replica.node_id, step, now)
        if below is None:
            self._state.failures.start_failed(
                replica.revision_id, LAST_RUNG.format(reason=replica.reason), started_at=replica.started_at, now=now
            )
        else:
            mark = QuarantinedRung(replica.revision_id, replica.node_id, step, now + BAD_SECONDS)
            self._effects.save_bad_rung(mark)
        then = f"{below} is next" if below else "nothing is left to try"
        text = f"{replica.reason}; replica {replica.replica_id} from {step} was discarded, {then}"
        self._save_event(replica, "canary_mismatch", text, now)
        log.error(
            "the canary differed: replica discarded",
            action="canary_mismatch",
            replica_id=replica.replica_id,
            revision_id=replica.revision_id,
            node_id=replica.node_id,
            rung=step,
            next_rung=below,
            reason=replica.reason,
        )

    def _record(self, replica: Replica, outcome: Outcome, now: float) -> None:
        """What Postgres keeps of it: the start that has ended, and what an operator should hear of."""
        if outcome in START_ENDED or (outcome is Outcome.DIED and replica.ready_at is None):
            self._effects.save_cold_start(replica, now)
        if replica.hung and outcome in (Outcome.DIED, Outcome.START_FAILED):
            text = f"{replica.reason}; replica {replica.replica_id} was killed"
            self._save_event(replica, "hung", text, now)
        elif outcome is Outcome.DIED:
            self._save_event(replica, "died", f"replica {replica.replica_id} died: {replica.reason}", now)

    def _save_event(self, replica: Replica, kind: Kind, text: str, now: float) -> None:
        self._effects.save_event(
            EventRecord(replica.org_id, replica.revision_id, replica.replica_id, replica.node_id, kind, text, now)
        )
