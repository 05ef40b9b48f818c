"""Has the engine's own parser check engine arguments, on a node, before a deploy moves anything. Step 6.

Part of the reconciler's one task. What must survive is a node that does not answer. Nothing waits for it longer than a
moment: the deploy goes on unchecked and says so. Its first start then finds what the check would have found, with the
old revision serving.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from activator.effects import Effects
from activator.events import ArgumentsAsked, Reply
from activator.state.nodes import Nodes
from activator.wire import Done
from runtime.wire import ArgumentsChecked, CheckArguments

CHECK_SECONDS = 5.0  # how long a node may take
NOBODY = "no node with a rehearsed standby is connected"
SILENT = f"no node has answered within {CHECK_SECONDS:g} s"


@dataclass(slots=True)
class Checks:
    """Those asked for and not answered yet, by number."""

    effects: Effects
    nodes: Nodes
    new_id: Callable[[], str] = lambda: secrets.token_hex(8)  # never used twice, also not by who led before
    _waiting: dict[str, tuple[float, Reply]] = field(default_factory=dict)  # deadline, who asked

    def ask(self, event: ArgumentsAsked, now: float) -> None:
        """Of a node that has a standby; which one makes no difference while all nodes have one engine."""
        able = [node for node in self.nodes.known.values() if node.connection is not None and node.standbys_ready]
        if not able or able[0].connection is None:
            event.reply(_unchecked(NOBODY))
            return
        check_id = self.new_id()
        self._waiting[check_id] = (now + CHECK_SECONDS, event.reply)
        revision = event.revision
        frame = CheckArguments(
            check_id=check_id,
            task=revision.task,
            engine_args=dict(revision.engine_args),
            digest=revision.digest,
            slots=revision.slots,
        )
        self.effects.send(able[0].connection, frame)

    def answered(self, frame: ArgumentsChecked) -> None:
        """One that comes too late is passed over."""
        _deadline, reply = self._waiting.pop(frame.check_id, (0.0, None))
        if reply is None:
            return
        notes = {"notes": list(frame.notes)} if frame.notes else {}
        if not frame.checked:
            reply(Done(ok=True, result={"unchecked": frame.reason, **notes}))
        else:
            reply(Done(ok=not frame.reason, message=frame.reason, result=notes))

    def expire(self, now: float) -> None:
        for check_id, (deadline, reply) in list(self._waiting.items()):
            if now >= deadline:
                del self._waiting[check_id]
                reply(_unchecked(SILENT))


def _unchecked(why: str) -> Done:
    return Done(ok=True, result={"unchecked": why})
