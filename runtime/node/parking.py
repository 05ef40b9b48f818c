"""Parking as the agent sees it: which word may follow which, and what is told of it. Step 8.

What must survive is that words cross: a replica's `Parked` may come after it was told to serve again, and a `Park` may
never come to an end. The first says nothing new; the second ends the replica, as a drain would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from runtime.control import ParkNow, UnparkNow
from runtime.node.replica_record import Running
from runtime.wire import Park, Unpark

log = structlog.get_logger()


class Resting:
    """`changed` tells of a replica; `end` and `give_up` end it, as told or as failed; `weigh` looks at what replicas
    take.
    """

    def __init__(
        self,
        *,
        changed: Callable[[Running], None],
        end: Callable[[Running], None],
        give_up: Callable[[Running, str], None],
        weigh: Callable[[], None],
    ) -> None:
        self._changed, self._end, self._give_up, self._weigh = changed, end, give_up, weigh

    def park(self, running: Running, command: Park) -> None:
        """Only one that serves; of any other its reports say enough."""
        if running.state == "ready" and running.control is not None and running.control.send(ParkNow()):
            running.state = "parking"
            running.timer = asyncio.get_running_loop().call_later(command.seconds, self._end, running)
            self._changed(running)

    def parked(self, running: Running) -> None:
        """It has given its memory back."""
        if running.state == "parking" and running.timer:
            running.timer.cancel()
            running.state = "parked"
            self._changed(running)
            self._weigh()
            log.info("replica parked", action="replica_parked", replica_id=running.start.replica_id)

    def unpark(self, running: Running, command: Unpark) -> None:
        if running.state not in ("parking", "parked") or running.control is None or running.timer is None:
            return
        running.timer.cancel()
        running.climbs(command.climb)
        reason = f"not ready {command.deadline_seconds:g} s after it was un-parked"
        running.timer = asyncio.get_running_loop().call_later(command.deadline_seconds, self._give_up, running, reason)
        running.control.send(UnparkNow(asked_at=running.begun))
        self._changed(running)
