"""The request of a revision for more replicas, as one value. Step 6. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from activator.catalogue import Endpoint, Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUpRequest:
    """A revision wants more replicas."""

    endpoint: Endpoint
    revision: Revision
    asked_at: float  # when the news came that made it want them
    now: float

    @property
    def revision_id(self) -> str:
        return self.revision.revision_id
