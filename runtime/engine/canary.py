"""The canary: a fixed question whose answer is recorded at a revision's first boot and asked again before every
`ready`. Step 8.

A forked, mapped or restored engine that is subtly wrong still answers, fluently and fast; what it cannot do is repeat
what it once said. A replica whose canary differs never serves. What is asked, and which answers are the same, depends
on the task: one module each (`canary_generate.py`, `canary_embed.py`, `canary_score.py`). The record lies on the node,
under a key of everything that may change an answer: snapshot, engine version, device, engine arguments. Its tokens
count for nobody, neither in the journal nor in vLLM's own counters. But they are counted (`metering.py`), and must be
as many as `runtime/tasks.py` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pilotlight.files import write_once
from runtime.engine import canary_embed, canary_generate, canary_score
from runtime.errors import CanaryMismatch
from runtime.tasks import EMBED, GENERATE, SCORE, Task

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


class Canary(Protocol):
    """What a task's module has. An answer is anything that JSON has."""

    def ask(self, engine: AsyncLLM, request_id: str) -> Any:
        """Awaited, the answer. What the engine is asked goes by this id."""

    def differs(self, recorded: Any, heard: Any) -> str | None:
        """What is different, in words; None where nothing is. An answer that is no good differs from itself."""


CANARIES: Mapping[Task, Canary] = {GENERATE: canary_generate, EMBED: canary_embed, SCORE: canary_score}


async def check(engine: AsyncLLM, canary: Canary, record: Path, request_id: str) -> None:
    """Ask, and compare with the record; make the record where there is none. Raises CanaryMismatch."""
    heard = await canary.ask(engine, request_id)
    if (flaw := canary.differs(heard, heard)) is not None:  # nothing to remember, either
        raise CanaryMismatch(f"the canary of {record.stem} {flaw}: with these weights the model gives no answers")
    recorded = json.loads(write_once(record, json.dumps(heard).encode()))
    if (difference := canary.differs(recorded, heard)) is not None:
        raise CanaryMismatch(
            f"the canary of {record.stem} {difference}; its weights or its engine are not what they were"
        )
