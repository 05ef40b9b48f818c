"""What the agent itself can say of a revision before it is deployed: what would be cut, and what never fits. Step 6.

The engine's own parser, which a standby asks, says the rest (`engine/checking.py`). The cache and the context are the
node's to decide, and to report. What must survive is a configuration that cannot be read: nothing is said of it here,
for its start will say what is wrong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import structlog

from pilotlight.settings import RuntimeSettings
from runtime.control import Checked
from runtime.node.kv_cache import cuts, never_fits, size
from runtime.node.sizing import node_memory
from runtime.tasks import EMBED, KINDS, SCORE, Task
from runtime.wire import ArgumentsChecked, CheckArguments
from snapshots.known import classifies, labels, makes_text, unfit_here

MOST_NOTES = 1000  # of checks that a standby has not answered

log = structlog.get_logger()


class DeployChecks:
    """Answers `CheckArguments`, together with a standby where arguments are given."""

    def __init__(self, *, device: str, settings: RuntimeSettings) -> None:
        self._device, self._settings = device, settings
        self._notes: dict[str, tuple[str, ...]] = {}  # by check, until a standby has answered

    def look(self, frame: CheckArguments, snapshot: Path | None) -> ArgumentsChecked | None:
        """The answer, where no standby need be asked; None where one must be, whose answer gets what was found here.

        `snapshot`: None where the node does not have it.
        """
        notes, reason = self._cuts(frame, snapshot)
        reason = self._unfit(frame, snapshot) or reason
        if reason or not frame.engine_args:
            return ArgumentsChecked(check_id=frame.check_id, reason=reason, notes=notes)
        if len(self._notes) >= MOST_NOTES:
            self._notes.pop(next(iter(self._notes)))
        self._notes[frame.check_id] = notes
        return None

    def answer(self, checked: Checked) -> ArgumentsChecked:
        return ArgumentsChecked(
            check_id=checked.check_id, reason=checked.reason, notes=self._notes.pop(checked.check_id, ())
        )

    def unchecked(self, check_id: str, why: str) -> ArgumentsChecked:
        return ArgumentsChecked(check_id=check_id, checked=False, reason=why, notes=self._notes.pop(check_id, ()))

    def _unfit(self, frame: CheckArguments, snapshot: Path | None) -> str:
        """Why the model does not do what the endpoint is for, or not here."""
        if snapshot is None:
            return ""
        try:
            config = json.loads((snapshot / "config.json").read_text())
            return unfit(config, frame.task) or unfit_here(config, self._device)
        except (OSError, ValueError, AttributeError, LookupError, TypeError) as error:
            log.warning(
                "a snapshot's architecture cannot be read", action="unread", digest=frame.digest, reason=str(error)
            )
            return ""

    def _cuts(self, frame: CheckArguments, snapshot: Path | None) -> tuple[tuple[str, ...], str]:
        """What is cut, and why it can never start. A GPU's memory is the engine's to divide."""
        if snapshot is None or not frame.slots or self._device != "cpu":
            return (), ""
        try:
            sizing = size(
                snapshot, slots=frame.slots, settings=self._settings, task=frame.task, engine_args=frame.engine_args
            )
        except (OSError, ValueError) as error:
            log.warning("a snapshot cannot be sized", action="unsized", digest=frame.digest, reason=str(error))
            return (), ""
        memory = node_memory()
        return tuple(cuts(sizing, slots=frame.slots)), never_fits(sizing, memory_bytes=memory)


def unfit(config: dict[str, Any], task: Task) -> str:
    """Why a model does not do this task; "" where it does, or nobody knows. Raises LookupError, TypeError, ValueError
    for a configuration that cannot be read.
    """
    architecture = str(config["architectures"][0])
    if not KINDS[task].pools and not makes_text(architecture):
        fits: Task = SCORE if classifies(architecture) else EMBED
        return f"its model ({architecture}) makes no text: deploy it with --task {fits}, for it {KINDS[fits].does}"
    if task == SCORE and classifies(architecture) and (found := labels(config)) != 1:
        return f"its model ({architecture}) has {found} labels, and scores come from a model with one: take a reranker"
    return ""
