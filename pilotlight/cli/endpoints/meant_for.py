"""Which task a model was made for, by its snapshot: what `deploy` and `apply` take where nobody names one. Pure.

The failure to survive is a model deployed for text that makes none: its first call would be the first to say so.
"""

from __future__ import annotations

from runtime.tasks import EMBED, SCORE, Task
from snapshots.embedding import is_embedding
from snapshots.known import classifies
from snapshots.manifest import Manifest


def meant_for(manifest: Manifest) -> tuple[Task, str] | None:
    """The task, and why; None where nothing says so, and what an endpoint does without being told is as good as any."""
    if classifies(manifest.architecture):
        return SCORE, f"the model gives texts a score ({manifest.architecture})"
    if is_embedding([file.path for file in manifest.files]):
        return EMBED, "its authors made the model for vectors (modules.json)"
    return None
