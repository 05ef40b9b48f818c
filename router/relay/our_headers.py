"""Writes what the router itself tells a client with an answer: the request's id, and how it was started and held. Step
11.

The lines go behind the status line of an answer's head. Where the head went out while the request was held, a comment
in the stream says the same.
"""

from __future__ import annotations

from router.relay.meter import Meter
from runtime.wire import Phase

_HELD = b"x-request-id: %s\r\nx-pilotlight-start: %s\r\nx-pilotlight-hold-ms: %.1f\r\nopenai-processing-ms: %d\r\n%s"
_NEVER_HELD = (
    b"x-request-id: %s\r\nx-pilotlight-start: warm\r\nx-pilotlight-hold-ms: 0.0\r\nopenai-processing-ms: %d\r\n"
)


def lines(meter: Meter) -> bytes:
    """Lines of the head."""
    if not meter.held_seconds:
        return _NEVER_HELD % (meter.event_id.encode(), meter.age * 1000)
    timing = b"server-timing: %s\r\n" % timings(meter.phases) if meter.cold else b""
    return _HELD % (
        meter.event_id.encode(),
        b"cold" if meter.cold else b"warm",
        meter.held_seconds * 1000,
        meter.age * 1000,
        timing,
    )


def comment(meter: Meter) -> bytes:
    """The same as a line of a stream, which is no event."""
    start, held = b"cold" if meter.cold else b"warm", meter.held_seconds * 1000
    return b": pilotlight start=%s hold-ms=%.1f timing=%s\n" % (start, held, timings(meter.phases))


def timings(phases: tuple[Phase, ...]) -> bytes:
    """The phases as Server-Timing has them, in milliseconds."""
    return ", ".join(f"{phase.name};dur={phase.seconds * 1000:.1f}" for phase in phases).encode()
