"""Whether nodes keep a standby ready while nothing is asked for. Step 6. Part of the reconciler's one task.

While every endpoint rests on `staged` and all are at zero, none is kept: the next start makes one. What must survive is
an agent that was away meanwhile. Its report says how many it keeps, so an order that it did not hear is repeated.
"""

from __future__ import annotations

import structlog

from activator.control.node_commands import NodeCommands
from activator.state.cluster import ClusterState

log = structlog.get_logger()


def keep_standbys(state: ClusterState, commands: NodeCommands) -> None:
    none = state.catalogue.all_staged and not state.replicas.any_live and not any(state.demand.wanted())
    for node in state.nodes.known.values():
        if node.connection is not None and (node.standbys_at_most == 0) is not none:
            node.standbys_at_most = 0 if none else None
            commands.keep_standbys(node.node_id, node.standbys_at_most)
            log.info("standbys to keep", action="keep_standbys", node_id=node.node_id, at_most=node.standbys_at_most)
