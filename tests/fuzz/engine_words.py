"""What an engine answers where it does not serve a request, read as `router/relay/engine_words.py` reads it for callers
and for the log.
"""

from __future__ import annotations

from router.errors import LONGEST_QUOTE, answer, event
from router.relay.engine_words import LONGEST_LOGGED, LONGEST_SENTENCE, error_of, for_operators

ID = "0" * 32
STATUSES = (400, 404, 422, 500, 501, 503, 204, 302)
FORMS = ("openai", "responses", "messages")

SEEDS = (
    b'\x00{"error":{"message":"This model\'s maximum context length is 4096 tokens. You requested 5000.","param":"input_tokens","code":400}}',
    b'\x01{"type":"error","error":{"type":"NotFoundError","message":"no"}}',
    b'\x02{"detail":[{"loc":["body","x"],"msg":"Field required"}]}',
    b'\x05{"error":{"message":"full","code":"disk_full"}}',
    b'\x00{"error":{"message":"\\"auto\\" tool choice requires --enable-auto-tool-choice"}}',
    b"\x03<html>",
)


def target(data: bytes) -> None:
    """The first byte chooses the status. Whatever was said, a caller is told something short, in one line, in each
    API's form.
    """
    if not data:
        return
    error = error_of(STATUSES[data[0] % len(STATUSES)], data[1:], request_id=ID)
    if len(error.message) > LONGEST_SENTENCE:
        raise AssertionError(f"{len(error.message)} characters are told")
    if "\n" in error.message or len(error.param or "") > LONGEST_QUOTE:
        raise AssertionError(f"not for a caller: {error.body()}")
    for form in FORMS:
        answer(error, request_id=ID.encode(), keep_alive=True, form=form)  # type: ignore[arg-type]
        if event(error, form).count(b"\n\n") != 1:  # type: ignore[arg-type]
            raise AssertionError("not one event")
    if len(for_operators(data[1:])) > LONGEST_LOGGED:
        raise AssertionError("too long a line for the log")
