"""Whether nodes keep a standby ready while nothing is asked for. Step 6. Part of the reconciler's one task.

While every endpoint rests on `staged` and all are at zero, none is kept: the next start makes one. What must survive is
an agent that was away meanwhile: it says how many it was told to keep when it is back, so what it did not hear is said
again.
"""

from __future__ import annotations

import structlog

from activator.fleet import Fleet
from runtime.wire import KeepStandbys

log = structlog.get_logger()


def keep_standbys(fleet: Fleet, *, none: bool) -> None:
    for node in fleet.nodes.known.values():
        if node.connection is not None and (node.standbys_at_most == 0) is not none:
            node.standbys_at_most = 0 if none else None
            fleet.order(node.node_id, KeepStandbys, at_most=node.standbys_at_most)
            log.info("standbys to keep", action="keep_standbys", node_id=node.node_id, at_most=node.standbys_at_most)
