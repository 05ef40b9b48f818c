"""What a caller is told whose wait is over without a slot, and when it is worth asking again. Step 5; pure.

Each names what was waited for and what to do. The failure to survive is a reason that is no caller's to read. Why a
start failed has paths, versions and amounts of memory in it, and stays with its operator.
"""

from __future__ import annotations

from router.errors import EndpointPaused, HoldTimeout, ModelNotFound, QueueFull, StartFailed
from router.hold.replicas import Endpoint, Revision

PAUSED_SECONDS = 30.0  # until who called a paused endpoint asks again: nobody knows when it is resumed


def start_failed(revision: Revision, now: float) -> EndpointPaused | StartFailed:
    """The reason is for its operator: it has paths, versions and amounts of memory."""
    name = revision.endpoint.row.name
    if revision.endpoint.row.paused:
        return EndpointPaused(
            f"'{name}' is paused by its operator. Calls are served again once it is resumed.",
            retry_after=PAUSED_SECONDS,
        )
    message = f"'{name}' cannot start. Its operator finds the reason with `pilotlight ps` (revision {revision.revision_id}). Try again later."
    return StartFailed(message, retry_after=revision.retry_after(now))


def queue_full(revision: Revision, now: float) -> QueueFull:
    row = revision.endpoint.row
    return QueueFull(
        f"'{row.name}' already has {row.max_held} requests waiting, its limit. Try again later, or raise max_held or max_replicas.",
        retry_after=revision.retry_after(now),
    )


def bytes_full(revision: Revision, now: float) -> QueueFull:
    return QueueFull(
        "This router holds as many bytes of waiting requests as it may, and this key has most of them. Try again later.",
        retry_after=revision.retry_after(now),
    )


def hold_timeout(revision: Revision, now: float) -> HoldTimeout:
    name = revision.endpoint.row.name
    if revision.waits_for:
        what = f"no replica of it could be started yet ({revision.waits_for})"
    elif revision.row.starting:
        what = "its replica is still starting"
    elif any(replica.dead for replica in revision.replicas.values()):
        what = "its replica could not be reached"
    else:
        what = "none of its replicas has a free slot"
    return HoldTimeout(
        f"'{name}' had no free slot in time: {what}. Try again, or wait longer.", retry_after=revision.retry_after(now)
    )


def endpoint_gone(endpoint: Endpoint) -> ModelNotFound:
    return ModelNotFound(f"The model '{endpoint.row.name}' does not exist any more.", param="model")
