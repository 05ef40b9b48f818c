"""`pilotlight run`: one question, streamed to the terminal, with what it took on stderr."""

from __future__ import annotations

import sys

from pilotlight.cli.drawn import while_held
from pilotlight.cli.options import print_json, say
from pilotlight.cli.talker import Talker, Took
from pilotlight.settings import Settings


def ask(settings: Settings, name: str, prompt: str, max_tokens: int, key: str, *, as_json: bool) -> None:
    """Ask and stream; as JSON, the whole answer and what it took. Raises ApiError with the server's own message."""
    took = Took()
    talker = Talker(settings, name, key)
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "temperature": 0}
    if as_json:
        answer = "".join(talker.stream({**body, "stream_options": {"include_usage": True}}, took))
        first = None if took.first is None else round(took.first, 6)
        details = {
            "request_id": took.request_id,
            "start": took.start or None,
            "first_token_seconds": first,
            "usage": took.usage,
        }
        print_json({"answer": answer, "finish_reason": took.finish or None, **details})
        return
    with while_held(talker.status, name) as answers:
        for text in talker.stream(body, took):
            answers()
            sys.stdout.write(text)
            sys.stdout.flush()
    print()
    if took.finish == "length":
        say(f"cut short at {max_tokens} tokens, or at the end of the model's context: --max-tokens N lets it say more")
    say(str(took))
