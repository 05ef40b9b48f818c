"""How the activator reaches a node's agent: connect, hear its whole state, then its changes. See `wire.py`."""

from __future__ import annotations

from pilotlight.frames import FrameStream, check_protocol, connect
from runtime.wire import FromAgent, NodeReport


async def connect_agent(address: str) -> tuple[FrameStream[FromAgent], NodeReport]:
    """Connect and read the node's report.

    Raises OSError when no agent listens at `address`, FrameError or ConnectionError when it is not one of ours.
    """
    stream = await connect(address, FromAgent)
    try:
        report = await stream.receive()
        if not isinstance(report, NodeReport):
            raise ConnectionError(f"the agent at {address} did not begin with its report")
        check_protocol(report.protocol, f"the agent of node {report.node_id}")
    except BaseException:  # a caller whose patience is at its end included
        stream.abort()
        raise
    return stream, report
