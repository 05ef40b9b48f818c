"""Chooses the node that a replica starts on, and what must go to make room for it. Steps 6 and 7. Pure.

Memory is private pages and KV cache, never RSS: what replicas share with their standby costs once. A start fits, or
waits, or is refused with a reason a person can act on. What must survive is a start that can never succeed. Only one
that asks for more than the budget of every node is refused. So nobody is held for what will not happen, nor refused
for what will.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from activator.catalogue import EngineArgs
from runtime.wire import EngineEnvironment

GIB = 1 << 30
WEIGHT_FACTOR = 1.2  # a replica that was never measured takes its weights and a fifth more


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a replica asks of its node."""

    engine: str = "vllm"
    device: str = ""  # "cpu" or "cuda"; "": any
    measured_bytes: int = 0  # what the last one of its revision took; 0: none was measured
    weight_bytes: int = 0  # of its snapshot; 0: not known
    kv_cache_bytes: int = 0  # as its engine arguments say; 0: they do not
    beside: bool = False  # and a standby of its own until it is forked

    def on(self, device: str) -> int:
        """Bytes of a node's memory: measured, else estimated where weights and cache lie in it. 0: not known."""
        if self.measured_bytes or device != "cpu":
            return self.measured_bytes
        return int(self.weight_bytes * WEIGHT_FACTOR) + self.kv_cache_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node as placement sees it. Bytes of its memory."""

    node_id: str
    connected: bool
    environment: EngineEnvironment
    budget_bytes: int  # what standbys and replicas may have
    committed_bytes: int = (
        0  # needed by the replicas that run or start there, and by its standbys, the one included that a start makes
    )
    draining_bytes: int = 0  # the part of it that is about to be given back
    promised_bytes: int = 0  # to starts that wait for that
    standby_bytes: int = 0  # the part of it that its standbys need, whatever replicas come and go
    beside_bytes: int = 0  # what one more standby would need
    standbys_ready: int = 0

    @property
    def most_bytes(self) -> int:
        """What one replica may have that has the node to itself."""
        return self.budget_bytes - self.standby_bytes

    @property
    def soon_left(self) -> int:
        """Once all that drains has ended and all that waits has started."""
        return self.budget_bytes - self.committed_bytes + self.draining_bytes - self.promised_bytes

    @property
    def left(self) -> int:
        """For a start that takes nothing from those that wait."""
        return max(0, min(self.budget_bytes - self.committed_bytes, self.soon_left))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A replica whose memory others could have: its revision can do without it, or, if it is `busy`, has to take
    turns.
    """

    replica_id: str
    node_id: str
    nbytes: int
    since: float  # monotonic seconds of the end of its revision's last request; of a busy one, of its own beginning
    endpoint: str = ""
    parked: bool = False
    restart_seconds: float = 0.0  # of a parked one: what the next start of its revision takes once it is gone
    busy: bool = False  # somebody asks for it
    coming: bool = False  # of a revision that has not taken its route yet: it gives way to a turn only
    alone: bool = False  # busy, and without it none of its revision is left
    free_at: float = 0.0  # its least stay is over

    def is_free(self, now: float) -> bool:
        """May anybody have it, whoever's turn it is?"""
        return not self.busy and not self.coming and now >= self.free_at


@dataclass(frozen=True, slots=True)
class Room:
    """There will be room on this node once what drains there has ended, and these have. `reserved`: their least stays
    are not over yet.
    """

    node_id: str
    nbytes: int
    evicted: tuple[str, ...] = ()
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """No node will do now. `never`: nor later, as things are; `short`: all that is missing is memory."""

    reason: str
    never: bool = False
    short: bool = False


def needs_of(engine_args: EngineArgs, *, measured_bytes: int = 0, weight_bytes: int = 0) -> Needs:
    """What is known of a replica's needs. Engine arguments may be spelt with hyphens."""
    given = {name.replace("-", "_"): value for name, value in engine_args.items()}
    kv_cache = given.get("kv_cache_memory_bytes", 0)
    kv_cache_bytes = kv_cache if isinstance(kv_cache, int) else 0
    return Needs(measured_bytes=measured_bytes, weight_bytes=weight_bytes, kv_cache_bytes=kv_cache_bytes)


def choose(nodes: Iterable[NodeView], needs: Needs) -> NodeView | Refusal:
    """The node to start on.

    1. Some node is connected.
    2. It has the engine, and the device, asked for; if no node has, away or not, none ever will.
    3. It could have the memory, with all others gone; if no node could, away or not, none ever will.
    4. It is connected, and has the memory left.
    5. Of several: one whose standby is ready, then the one with the most memory left.
    """
    known = list(nodes)
    connected = [node for node in known if node.connected]
    if not connected:  # 1
        away = ", ".join(node.node_id for node in known) or "none was ever seen"
        return Refusal(f"no node is connected ({away}): `pilotlight logs agent` says why")
    fitting = [node for node in known if fits(node.environment, needs)]
    if not fitting:  # 2
        have = ", ".join(sorted({f"{n.environment.engine} on {n.environment.device}" for n in known}))
        return Refusal(
            f"no node runs {needs.engine} on {needs.device or 'any device'}; those known run {have}", never=True
        )
    able = [node for node in fitting if node.most_bytes >= asked(node, needs)]
    if not able:  # 3
        return Refusal(
            _too_much(max(fitting, key=lambda node: node.most_bytes - asked(node, needs)), needs), never=True
        )
    there = [node for node in able if node.connected]
    if not there:  # 4
        return Refusal(f"no node that could run it is connected ({', '.join(node.node_id for node in able)} would do)")
    roomy = [node for node in there if node.left >= asked(node, needs)]
    if not roomy:
        return Refusal(_too_little(max(there, key=lambda node: node.left - asked(node, needs)), needs), short=True)
    return max(roomy, key=lambda node: (node.standbys_ready > 0, node.left, node.node_id))  # 5


def make_room(nodes: Iterable[NodeView], needs: Needs, idle: Iterable[Place]) -> Room | None:
    """How a start that fits nowhere now will fit soon. None: it will not.

    1. What drains is enough.
    2. With the fewest evicted: parked ones first, of those the cheapest to start again, then the longest idle. Those
       that are not needed after all stay.
    """
    spare = sorted(
        idle,
        key=lambda replica: (
            not replica.parked,
            replica.parked and replica.restart_seconds,
            replica.since,
            replica.replica_id,
        ),
    )
    serving = {replica.replica_id for replica in spare if not replica.parked}
    rooms = []
    for node in nodes:
        if node.connected and fits(node.environment, needs):
            missing = asked(node, needs) - node.soon_left
            taken = _enough(
                [replica for replica in spare if replica.node_id == node.node_id and replica.nbytes > 0], missing
            )
            if taken is not None:
                rooms.append(Room(node.node_id, asked(node, needs), tuple(replica.replica_id for replica in taken)))
    return min(
        rooms, key=lambda room: (len(serving.intersection(room.evicted)), len(room.evicted), room.node_id), default=None
    )


def _enough(spare: list[Place], missing: int) -> list[Place] | None:
    """Those to end so that `missing` bytes come free; None where all would not do."""
    taken: list[Place] = []
    for replica in spare:
        if missing <= 0:
            break
        taken.append(replica)
        missing -= replica.nbytes
    if missing > 0:
        return None
    # a larger one may have made an earlier one needless, serving ones first
    for replica in sorted(taken, key=lambda replica: replica.parked):
        if missing + replica.nbytes <= 0:
            taken.remove(replica)
            missing += replica.nbytes
    return taken


def _too_much(node: NodeView, needs: Needs) -> str:
    return (
        f"a replica needs {asked(node, needs) / GIB:.1f} GiB of memory ({_how(needs)}) and node {node.node_id} has at "
        "most "
        f"{node.most_bytes / GIB:.1f} GiB for one: lower kv_cache_memory_bytes, raise activator.memory_fraction, or "
        "add memory"
    )


def _too_little(node: NodeView, needs: Needs) -> str:
    return (
        f"memory: {asked(node, needs) / GIB:.1f} GiB needed ({_how(needs)}), {node.left / GIB:.1f} GiB of "
        f"{node.most_bytes / GIB:.1f} GiB free on node {node.node_id}"
    )


def _how(needs: Needs) -> str:
    return "as the last one was measured" if needs.measured_bytes else "estimated from its weights and KV cache"


def asked(node: NodeView, needs: Needs) -> int:
    return needs.on(node.environment.device) + (node.beside_bytes if needs.beside else 0)


def fits(environment: EngineEnvironment, needs: Needs) -> bool:
    return environment.engine == needs.engine and needs.device in ("", environment.device)
