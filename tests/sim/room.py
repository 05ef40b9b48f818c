"""A node with room for fewer than are called, in simulated time: who is served when, and what it costs.

The reconciler is the real one; its agent takes `start` seconds for a start, and `answer` seconds for what a replica
still runs when it is told to drain. Callers are constant (`busy`: each endpoint always has some) or take turns
(`alternating`: one caller, one call at a time).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from activator.policy.turns import STARTS_STAYED, bound
from runtime.wire import Drain, Phase, Start, Stop
from tests.activator_world import World
from tests.fakes_activator import endpoint, revision

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run came to. Seconds, but for what is named otherwise."""

    endpoints: int
    places: int
    seconds: float
    promised: float  # the longest wait that the law allows
    longest_wait: float
    starts: int
    cuts: int  # replicas stopped before they had drained
    least_served: float  # the shortest time from ready to its drain of any replica that gave way
    served: dict[str, float]  # by endpoint, with a replica that takes calls

    @property
    def use(self) -> float:
        """The part of what the places could have served at most."""
        return sum(self.served.values()) / (self.seconds * min(self.places, self.endpoints))

    @property
    def shares(self) -> tuple[float, float]:
        """The least and the largest share of an endpoint, where 1 is an equal one."""
        equal = sum(self.served.values()) / len(self.served)
        return min(self.served.values()) / equal, max(self.served.values()) / equal


@dataclass(slots=True)
class Node:
    """`sizes`: GiB of each endpoint's replica."""

    sizes: list[int]
    places: int
    start: float = 1.0
    answer: float = 1.0
    step: float = 0.25
    turn: float = 10.0
    broken: tuple[str, ...] = ()  # their starts fail
    least: list[int] = field(default_factory=list)  # min_replicas, where not 0
    world: World = field(init=False)
    ready_at: dict[str, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)  # told to start
    ended: dict[str, float] = field(default_factory=dict)  # told to drain
    wants_since: dict[str, float] = field(default_factory=dict)
    waits: dict[str, float] = field(default_factory=dict)  # the longest of each
    served: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    stays: list[float] = field(default_factory=list)
    cuts: int = 0

    def __post_init__(self) -> None:
        least = self.least or [0] * len(self.sizes)
        names = [f"e{number:03}" for number in range(len(self.sizes))]
        given = [
            revision(
                name, engine_args={"kv_cache_memory_bytes": size * GIB}, idle_timeout_seconds=1e6, min_replicas=count
            )
            for name, size, count in zip(names, self.sizes, least, strict=True)
        ]
        self.world = World(
            *(endpoint(name, each) for name, each in zip(names, given, strict=True)),
            memory_fraction=1.0,
            turn_seconds=self.turn,
        )
        self.world.agent.memory_bytes = self.places * GIB
        self.world.connect_agent()
        self.world.join().apply()

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.world.reconciler.state.catalogue]

    @property
    def cycle(self) -> float:
        """A place changes hands at least so often: two ticks and the routers' word beside what the law counts."""
        return (
            bound(0, 1, turn=0.0, stay=STARTS_STAYED * self.start, drain=self.answer, start=self.start) + 4 * self.step
        )

    @property
    def promised(self) -> float:
        """`bound`, with what ticks add, where all replicas are as large."""
        ahead = max(0, len(self.sizes) - self.places - 1)
        return self.turn + math.ceil((ahead + 1) / self.places) * self.cycle + 2 * self.step

    def call(self, name: str, count: int) -> None:
        """So many callers from now on."""
        if count and name not in self.wants_since and not self.serves(name):
            self.wants_since[name] = self.world.now
        self.world.demand(count, f"rev_{name}1")

    def serves(self, name: str) -> bool:
        (row,) = self.world.routers["w1"].rows[name].revisions
        return any(not replica.draining for replica in row.replicas)

    def run(self, seconds: float) -> None:
        until = self.world.now + seconds
        while self.world.now < until:
            self.turn_once()

    def turn_once(self) -> None:
        """One step of time: the agent does what is due, then who is served is looked at."""
        self.world.pass_time(self.step, step=self.step)
        self._obey()
        self.world.routers["w1"].apply()
        now = self.world.now
        for name in self.names:
            if self.serves(name):
                self.served[name] += self.step
                if name in self.wants_since:
                    waited = now - self.wants_since.pop(name)
                    self.waits[name] = max(self.waits.get(name, 0.0), waited)
            elif self.world.reconciler.state.demand.total(f"rev_{name}1"):
                self.wants_since.setdefault(name, now)

    def _obey(self) -> None:
        world, agent = self.world, self.world.agent
        now = world.now
        for replica_id in agent.starting():
            if now - self.began.setdefault(replica_id, now) >= self.start:
                if agent.replicas[replica_id].revision_id[4:-1] in self.broken:
                    world.becomes(replica_id, "stopped", failed=True, reason="broken")
                    continue
                phases = (Phase(name="load", at=now - self.start, seconds=self.start),)
                self.ready_at[replica_id] = now
                world.becomes(replica_id, "ready", phases=phases, in_flight=1)
        for replica_id in agent.ordered_to_end():
            if replica_id not in self.ended:
                self.ended[replica_id] = now
                self.cuts += (Stop, replica_id) in agent.ordered and (Drain, replica_id) not in agent.ordered
                if replica_id in self.ready_at:
                    self.stays.append(now - self.ready_at[replica_id])
            if now - self.ended[replica_id] >= self.answer:
                world.becomes(replica_id, "stopped")

    def figures(self, seconds: float) -> Figures:
        still = [self.world.now - since for since in self.wants_since.values()]
        return Figures(
            endpoints=len(self.sizes),
            places=self.places,
            seconds=seconds,
            promised=self.promised,
            longest_wait=max([*self.waits.values(), *still], default=0.0),
            starts=len(self.world.effects.of(Start)),
            cuts=self.cuts,
            least_served=min(self.stays, default=math.inf),
            served={name: self.served[name] for name in self.names},
        )


def busy(endpoints: int, places: int, seconds: float, *, step: float = 0.25, callers: int = 3) -> Figures:
    """Every endpoint is called without a pause, from the same moment on."""
    node = Node([1] * endpoints, places, step=step)
    for name in node.names:
        node.call(name, callers)
    node.run(seconds)
    return node.figures(seconds)


def alternating(calls: int, *, start: float = 1.0, answer: float = 0.25) -> tuple[Figures, int]:
    """One caller asks two endpoints in turn, each call after the last one's answer; room for one. Also how many were
    answered.
    """
    node = Node([1, 1], 1, start=start, answer=answer)
    began = node.world.now
    answered = 0
    for number in range(calls):
        name = node.names[number % 2]
        node.call(name, 1)
        for _ in range(10_000):
            if node.serves(name):
                break
            node.turn_once()
        node.turn_once()
        answered += node.serves(name)
        for replica_id, ordered in list(node.world.agent.replicas.items()):
            if ordered.state == "ready" and ordered.in_flight:
                node.world.becomes(replica_id, "ready", in_flight=0)
        node.call(name, 0)
    return node.figures(node.world.now - began), answered


def open_loop(seconds: float, every: float, *, start: float = 1.0) -> tuple[Figures, int]:
    """Calls come alternately to two endpoints, one `every` so many seconds, whoever is served; room for one. Also how
    many came.
    """
    node = Node([1, 1], 1, start=start, answer=0.25)
    held: Counter[str] = Counter()
    came = 0
    until, due = node.world.now + seconds, node.world.now
    while node.world.now < until:
        while due <= node.world.now:
            name = node.names[came % 2]
            held[name] += 1
            came, due = came + 1, due + every
        for name in node.names:
            node.call(name, held[name])
        node.turn_once()
        for name in node.names:
            if node.serves(name):  # what was held is answered within the step
                held[name] = 0
        for replica_id, ordered in list(node.world.agent.replicas.items()):
            if ordered.state == "ready" and ordered.in_flight:
                node.world.becomes(replica_id, "ready", in_flight=0)
    return node.figures(seconds), came
