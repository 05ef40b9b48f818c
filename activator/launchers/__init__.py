"""The interface of launchers, which provide nodes with agent and standbys: as a process, a container, a pod. Step 7."""

from __future__ import annotations

from typing import Any, Protocol

from pilotlight.frames import FrameStream
from runtime.wire import NodeReport


class Launcher(Protocol):
    """Provides one node."""

    async def reach(self) -> tuple[FrameStream[Any], NodeReport]:
        """Connect to the node's agent: the one that runs, or else a new one. Returns when it has reported, however long
        that takes.
        """

    async def is_dead(self) -> bool:
        """After a connection broke: is the agent itself gone?"""

    async def end(self) -> None:
        """End the agent, its replicas and its standbys. Returns when it is gone."""
