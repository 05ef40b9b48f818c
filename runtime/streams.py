"""How the streams of each API that we serve end, and where the engine's counts go into them. Step 11, the replica's side. Pure.

The counts are a comment, and a comment never stands alone between blank lines: several SDKs take such a frame for an event without
data and end there. So it is a line of the frame that has the stream's last word, and tells what was made before it. The failure
to survive is a stream that ends without its last word: what was delivered of it is told in a line behind all else.
"""

from __future__ import annotations

from dataclasses import dataclass

DONE = b"data: [DONE]\n\n"
COUNTS = b": pilotlight-usage %s\n"
BROKEN = b": pilotlight-usage %s broken\n"


@dataclass(frozen=True, slots=True)
class Stream:
    """One API's. An event is one piece of the body, as vLLM sends it."""

    last: tuple[bytes, ...] = ()  # what the event begins with that ends a whole answer; (): it ends in DONE
    error: tuple[bytes, ...] = (b'data: {"error":',)  # what one begins with that breaks it; what a model says stands behind other names

    def ends(self, event: bytes) -> bool:
        return event.startswith(self.last) if self.last else event.endswith(DONE)

    def breaks(self, event: bytes) -> bool:
        return event.startswith(self.error)

    def counted(self, event: bytes, counts: bytes) -> bytes:
        """The last event with its counts: before `[DONE]`, which readers of lines leave at, else in the frame's last line,
        for such an event may be as long as the whole answer, and the router looks at the end."""
        if not self.last:
            return event[: -len(DONE)] + COUNTS % counts + DONE
        return event[:-1] + COUNTS % counts + b"\n"

    def broken(self, event: bytes, counts: bytes) -> bytes:
        """Of an answer that is not whole: without the last word, by which it would be taken for one."""
        before = event[: -len(DONE)] if event.endswith(DONE) else event
        return before + BROKEN % counts


OPENAI = Stream()
RESPONSES = Stream(
    last=(b"event: response.completed\n", b"event: response.incomplete\n"),
    error=(b"event: response.failed\n", b"event: error\n", b'data: {"error":'),
)
MESSAGES = Stream(last=(b"event: message_stop\n",), error=(b"event: error\n",))
