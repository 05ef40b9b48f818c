"""Keeps the link to one node's agent, and turns what the agent says into events. Steps 7 and 10.

What must survive is a link that breaks. It is made anew, and begins with the node's complete state. Whether the agent
itself died decides when its replicas are given up: at once, or when the next report lacks them.
"""

from __future__ import annotations

import asyncio

import structlog

from activator.edges.real_effects import Links
from activator.events import Event, NodeHeard, NodeJoined, NodeLeft
from activator.launchers import Launcher
from pilotlight.frames import FrameError
from runtime.wire import ArgumentsChecked, NodeReport, Refused, ReplicaReport, Shipped, StandbyReport, UsageBatch

log = structlog.get_logger()

PAUSE_SECONDS = 0.1  # between the end of a link and the next try


async def keep_node(launcher: Launcher, *, inbox: asyncio.Queue[Event], links: Links) -> None:
    """Run for ever; cancel to end. The agent lives on."""
    while True:
        stream, report = await launcher.reach()
        connection = links.open(stream)
        try:
            await inbox.put(NodeJoined(connection, report))
            async for frame in stream:
                said = (
                    frame
                    if isinstance(
                        frame, ReplicaReport | StandbyReport | UsageBatch | ArgumentsChecked | Shipped | Refused
                    )
                    else None
                )
                await inbox.put(NodeHeard(report.node_id, connection, said))
        except FrameError as error:
            log.error("an agent sent what is no frame", action="bad_frame", node_id=report.node_id, error=str(error))
        finally:
            links.close(connection)
        await _left(launcher, report, connection, inbox)
        await asyncio.sleep(PAUSE_SECONDS)


async def _left(launcher: Launcher, report: NodeReport, connection: int, inbox: asyncio.Queue[Event]) -> None:
    dead = await launcher.is_dead()
    log.warning(
        "the link to an agent broke", action="node_left", node_id=report.node_id, connection=connection, dead=dead
    )
    await inbox.put(NodeLeft(report.node_id, connection, dead))
