"""How the streams of each API end, and where the engine's counts go into them. Step 11, the replica's side. Pure.

The counts are a comment, and a comment never stands alone between blank lines. Several SDKs take such a frame for an
event without data and end there. So it is a line of the frame that has the stream's last word, and reports what was
made before it.

The failures to survive: a stream that ends without its last word, whose delivered part is reported in a line behind all
else. An engine's error in the middle of one, whose words are for operators: a caller hears ours, in the form of the
API. A `usage` of a shape that strict clients refuse: vLLM adds lists by turn to the Responses API's details, where
OpenAI has numbers only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from runtime import forms
from runtime.forms import DONE, Form

COUNTS = b": pilotlight-usage %s\n"
BROKEN = b": pilotlight-usage %s broken\n"
BY_TURN = re.compile(rb',\s*"\w+_per_turn":\s*\[[\d,\s]*\]|"\w+_per_turn":\s*\[[\d,\s]*\],?\s*')
"""Fields of `usage` that only vLLM has."""
USAGE = b'"usage":'
"""Where they begin. In a text of the model quotes stand behind backslashes, so no text is taken for one."""
FAILED = "The engine broke this answer off. Send the request again; if it stays so, tell your operator this answer's x-request-id."
REFUSED = (
    "The engine does not serve this request, most likely for a grammar or schema that cannot be compiled. Change 'response_format', "
    "'structured_outputs' or 'tools', or ask your operator with this answer's x-request-id."
)


@dataclass(frozen=True, slots=True)
class Stream:
    """One API's. An event is one piece of the body, as vLLM sends it."""

    form: Form
    last: tuple[bytes, ...] = ()  # what the event begins with that ends a whole answer; (): it ends in DONE
    error: tuple[bytes, ...] = (
        b'data: {"error":',
    )  # what one begins with that breaks it; what a model says stands behind other names
    lists_turns: bool = False  # vLLM adds lists by turn to its `usage`

    def ends(self, event: bytes) -> bool:
        return event.startswith(self.last) if self.last else event.endswith(DONE)

    def breaks(self, event: bytes) -> bool:
        return event.startswith(self.error)

    def retold(self, event: bytes) -> bytes:
        """An event that breaks an answer, in our words; what the engine said stays in its log."""
        refused = 400 <= _status(event) < 500
        error = {
            "message": REFUSED if refused else FAILED,
            "type": "invalid_request_error" if refused else "server_error",
            "param": None,
            "code": "invalid_value" if refused else "upstream_error",
        }
        return forms.event(error, self.form, status=400 if refused else 500)

    def counted(self, event: bytes, counts: bytes) -> bytes:
        """The last event with its counts: before `[DONE]`, which readers of lines leave at, else in the frame's last
        line, for such an event may be as long as the whole answer, and the router looks at the end.
        """
        if not self.last:
            return event[: -len(DONE)] + COUNTS % counts + DONE
        return self.without_turns(event[:-1]) + COUNTS % counts + b"\n"

    def without_turns(self, answer: bytes) -> bytes:
        """An event, or a whole answer, whose `usage` has nothing that the API does not know."""
        usage = answer.rfind(USAGE) if self.lists_turns else -1
        return answer[:usage] + BY_TURN.sub(b"", answer[usage:]) if usage >= 0 else answer

    def broken(self, event: bytes, counts: bytes) -> bytes:
        """Of an answer that is not whole: without the last word, by which it would be taken for one."""
        before = event[: -len(DONE)] if event.endswith(DONE) else event
        return before + BROKEN % counts


OPENAI = Stream("openai")
RESPONSES = Stream(
    "responses",
    last=(b"event: response.completed\n", b"event: response.incomplete\n"),
    error=(b"event: response.failed\n", b"event: error\n", b'data: {"error":'),
    lists_turns=True,
)
MESSAGES = Stream("messages", last=(b"event: message_stop\n",), error=(b"event: error\n",))
STREAMS: Mapping[Form, Stream] = {stream.form: stream for stream in (OPENAI, RESPONSES, MESSAGES)}


def _status(event: bytes) -> int:
    """The code in an engine's error, which tells whose fault it is; 0 where none can be read."""
    try:
        sent = json.loads(event.partition(b"data: ")[2])
        code = sent["error"]["code"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
    return code if isinstance(code, int) else 0
