"""The replica supervisor: carries out the activator's orders for replicas, and ends those that hang. Step 8.

It joins the parts that share the register of `replicas.py`, each of which knows only those below it:

    bring_up        from the order to the birth
    replica_watch   what a replica says, from its birth on
    parking         park and unpark
    replica_end     drain, stop, give up, death
    pulse_watch, memory_watch   what is measured of it

What must survive is an order for a replica that is not known: it is not wanted any more, or will be reported.
"""

from __future__ import annotations

import asyncio
import socket

from pilotlight.settings import Paths, RuntimeSettings
from runtime.node.background import Background
from runtime.node.bring_up import BringUp
from runtime.node.memory_watch import MemoryWatch
from runtime.node.parking import Parking
from runtime.node.pulse_watch import PulseWatch
from runtime.node.replica_end import ReplicaEnd
from runtime.node.replica_watch import ReplicaWatch
from runtime.node.replicas import Replicas
from runtime.node.silence import Limits
from runtime.node.staging import Staging
from runtime.node.standby_orders import ForkOrders
from runtime.node.usage_shipper import UsageShipper
from runtime.node.watermark import Watermark
from runtime.wire import Drain, EngineEnvironment, Park, Start, Stop, Unpark

ALIVE_SECONDS = 0.01  # between two looks whether the last replicas are gone


class ReplicaSupervisor:
    """What the agent asks of its replicas, as one object."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        orders: ForkOrders,
        staging: Staging,
        shipper: UsageShipper,
        watermark: Watermark,
        environment: EngineEnvironment,
        paths: Paths,
        settings: RuntimeSettings,
        background: Background,
    ) -> None:
        self._replicas = replicas
        self._background = background
        self._memory = MemoryWatch(replicas, background)
        limits = Limits(silent=settings.silent_seconds, hang=settings.hang_seconds)
        self._pulses = PulseWatch(replicas, limits=limits, watermark=watermark)
        self._end = ReplicaEnd(replicas, orders=orders, watermark=watermark)
        self._parking = Parking(replicas, end=self._end, memory=self._memory)
        watch = ReplicaWatch(
            replicas,
            end=self._end,
            parking=self._parking,
            pulses=self._pulses,
            memory=self._memory,
            shipper=shipper,
            staging=staging,
            paths=paths,
        )
        self._bring_up = BringUp(
            replicas,
            end=self._end,
            watch=watch,
            orders=orders,
            staging=staging,
            shipper=shipper,
            environment=environment,
            paths=paths,
            settings=settings,
        )

    def obey(self, command: Start | Drain | Stop | Park | Unpark) -> None:
        """Carry out one order of the activator."""
        if isinstance(command, Start):
            self._start(command)
            return
        record = self._replicas.get(command.replica_id)
        if record is None:
            return
        match command:
            case Drain():
                self._end.drain(record, command.seconds)
            case Stop():
                self._end.stop(record)
            case Park():
                self._parking.park(record, command)
            case Unpark():
                self._parking.unpark(record, command)

    def _start(self, command: Start) -> None:
        if self._replicas.get(command.replica_id) is None:
            record = self._bring_up.order(command)
            self._background.spawn(self._bring_up.run(record))

    def order_again(self, replica_ids: list[str]) -> None:
        """Orders that a standby has read, and of which nothing was born: as where it died with the order in hand."""
        for replica_id in replica_ids:
            record = self._replicas.get(replica_id)
            if record is not None and record.control is not None and record.identity is None:
                record.control.sock.shutdown(socket.SHUT_RDWR)

    def end_hung(self, now: float) -> None:
        """Once a second, at `now` in the agent's attentive seconds: end those that hang."""
        for record, why in list(self._pulses.look(now)):
            self._end.hung(record, why)

    def weigh(self) -> None:
        """Measure what replicas take of the node's memory."""
        self._memory.weigh()

    def stop_all(self) -> None:
        """Stop every replica."""
        for record in self._replicas.all():
            self._end.stop(record)

    async def ended(self) -> None:
        """Returns when nothing of them is left."""
        while any(record.identity and record.identity.alive() for record in self._replicas.all()):
            await asyncio.sleep(ALIVE_SECONDS)
        for record in self._replicas.all():
            self._end.gone(record, "stopped")
