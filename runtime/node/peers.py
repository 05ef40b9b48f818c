"""The activators that are connected to this node's agent: each hears of every change. Step 7.

Usually there is one. While a new one takes an old one's place there are two, and for a while after a broken connection
perhaps none. A change that nobody hears is in the report with which the next connection begins.
"""

from __future__ import annotations

from pilotlight.frames import Frame, FrameStream
from runtime.wire import Shipped, ToAgent, UsageBatch

Peer = FrameStream[ToAgent]


class Peers:
    """The connections of activators, the newest last."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []

    def add(self, peer: Peer) -> None:
        self._peers.append(peer)

    def remove(self, peer: Peer) -> None:
        self._peers.remove(peer)

    def tell(self, frame: Frame) -> None:
        for peer in self._peers:
            peer.send(frame)

    def post_usage(self, batch: UsageBatch) -> bool:
        """To the newest alone; False where there is none."""
        if not self._peers:
            return False
        self._peers[-1].send(batch)
        return True

    def answer_shipped(self, peer: Peer, shipped: Shipped) -> None:
        """Behind the batches it speaks of: they go to the newest peer, and to another this would say nothing."""
        if self._peers and peer is self._peers[-1]:
            peer.send(shipped)
