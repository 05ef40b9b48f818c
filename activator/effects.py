"""The interface through which the reconciler acts: frames to routers and agents, rows to Postgres. Steps 6, 7 and 10.

Nothing behind it waits. A start command is on its way before anything of it is in Postgres. A crash in between leaves
nothing stranded: the agent's `NodeReport` names the replica, and the next activator adopts it. Sending to a link that
is gone does nothing; its end comes to the reconciler as an event. `edges/real_effects.py` has the real one.
"""

from __future__ import annotations

from typing import Protocol

from activator.policy.lifecycle import Replica
from activator.policy.quarantine import QuarantinedRung
from activator.store.events import EventRecord
from pilotlight.frames import Encoded, Frame
from runtime.wire import Shipped, UsageBatch


class Effects(Protocol):
    """All that the reconciler can do to the world. Every method returns at once and raises nothing."""

    def send(self, connection: int, *frames: Frame | Encoded) -> None:
        """Frames to a router or an agent."""

    def hang_up(self, connection: int) -> None:
        """Close a link; its end follows as an event."""

    def save_replica(self, replica: Replica) -> None:
        """The replica's row, as it is now."""

    def save_cold_start(self, replica: Replica, now: float) -> None:
        """The start of this replica has just ended: it is ready, or has failed."""

    def save_event(self, event: EventRecord) -> None:
        """Something an operator should hear of."""

    def save_bad_rung(self, mark: QuarantinedRung) -> None:
        """A rung has gone bad, or is good again."""

    def settle(self, name: str, revision_id: str, failure: str) -> None:
        """A revision of this endpoint serves, or has failed: store what follows. The endpoint as it is then comes as an
        event.
        """

    def save_usage(self, connection: int, batch: UsageBatch | Shipped) -> None:
        """What engines produced; the agent hears `UsageStored` once it is durable. `Shipped` is passed on once all
        before it is.
        """

    def raise_epoch(self, above: int) -> None:
        """An agent obeys only epochs above this one: take such a one, or end if leadership is lost."""
