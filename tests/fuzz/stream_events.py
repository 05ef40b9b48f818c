"""A piece of an engine's stream, as a replica sends it on with the engine's counts: the text is whole, the last word
stays the last, and no comment stands as an event of its own.
"""

from __future__ import annotations

from runtime.forms import DONE
from runtime.serving.streams import COUNTS, STREAMS

COUNTED = b"5;2;3"
SEEDS = (
    b'\x00data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n',
    b'\x00data: {"error":{"message":"x","code":400}}\n\n',
    b'\x01event: response.completed\ndata: {"usage":{"input_tokens_details":{"cached_tokens":1,"cached_tokens_per_turn":[1, 2]}}}\n\n',
    b'\x01event: response.failed\ndata: {"error":{"code":"x"}}\n\n',
    b'\x02event: message_stop\ndata: {"type":"message_stop"}\n\n',
    b'\x02event: error\ndata: {"error":{"code":' + b"[" * 2000 + b"\n\n",
)


def target(data: bytes) -> None:
    """The first byte chooses the API."""
    if not data:
        return
    stream, event = list(STREAMS.values())[data[0] % len(STREAMS)], data[1:].rstrip(b"\n") + b"\n\n"
    if stream.breaks(event):
        assert stream.retold(event).count(b"\n\n") == 1
    if stream.ends(event):
        told = stream.counted(event, COUNTED)
        assert told.endswith(b"\n\n") and told.count(b"\n\n") == event.count(b"\n\n")
        assert COUNTS % COUNTED in told and (stream.last or told.endswith(DONE))
    assert DONE not in stream.broken(event, COUNTED)[-len(DONE) :]
