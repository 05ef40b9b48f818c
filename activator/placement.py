"""Which node a replica starts on. Steps 6 and 7. Pure.

Refuses with a reason a person can act on. What must survive is a start that can never succeed: it is told apart from one
that only has to wait for a node to come back, so that nobody is held for a thing that will not happen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from activator.catalogue import EngineArgs
from runtime.wire import EngineEnvironment

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a replica asks of its node."""

    engine: str = "vllm"
    device: str = ""  # "cpu" or "cuda"; "": any
    memory_bytes: int = 0  # 0: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node as placement sees it."""

    node_id: str
    connected: bool
    environment: EngineEnvironment
    memory_bytes: int
    committed_bytes: int = 0  # needed by the replicas that run or start there, and by its standbys
    standbys_ready: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """No node will do. `waits`: one that is away may come back and do."""

    reason: str
    waits: bool = False


def needs_of(engine_args: EngineArgs) -> Needs:
    """What is known of a replica's needs before it has ever run."""
    kv_cache = engine_args.get("kv_cache_memory_bytes", 0)
    return Needs(memory_bytes=kv_cache if isinstance(kv_cache, int) else 0)


def choose(nodes: Iterable[NodeView], needs: Needs) -> NodeView | Refusal:
    """The node to start on.

    1. It is connected.
    2. It has the engine, and the device, asked for.
    3. It has the memory left.
    4. Of several: one whose standby is ready, then the one with the most memory left.
    """
    known = list(nodes)
    connected = [node for node in known if node.connected]
    if not connected:  # 1
        away = ", ".join(node.node_id for node in known) or "none was ever seen"
        return Refusal(f"no node is connected ({away}): see logs/agent.log in the state folder", waits=True)
    fitting = [node for node in connected if _fits(node.environment, needs)]
    if not fitting:  # 2
        have = ", ".join(sorted({f"{n.environment.engine} on {n.environment.device}" for n in connected}))
        return Refusal(f"no node runs {needs.engine} on {needs.device or 'any device'}; the connected ones run {have}")
    roomy = [node for node in fitting if _left(node) >= needs.memory_bytes]
    if not roomy:  # 3
        most = max(map(_left, fitting))
        return Refusal(
            f"a replica needs {needs.memory_bytes / GIB:.1f} GiB and the emptiest node has {most / GIB:.1f} GiB left: "
            "lower kv_cache_memory_bytes, let another endpoint go to zero, or add memory"
        )
    return max(roomy, key=lambda node: (node.standbys_ready > 0, _left(node), node.node_id))  # 4


def _fits(environment: EngineEnvironment, needs: Needs) -> bool:
    return environment.engine == needs.engine and needs.device in ("", environment.device)


def _left(node: NodeView) -> int:
    return max(0, node.memory_bytes - node.committed_bytes)
