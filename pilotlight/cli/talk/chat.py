"""`pilotlight chat`: a conversation in the terminal; whatever is not a terminal may ask too, a line a question.

Answers go to stdout, prompts to stderr. An answer that Ctrl-C stops is kept as far as it came. The engine hears of it
by the closed connection, and its tokens so far are billed. A failed answer takes its question back out, so that the
next one finds a conversation that makes sense.
"""

from __future__ import annotations

import contextlib
import sys

from pilotlight.cli.api import ApiError
from pilotlight.cli.drawn import while_held
from pilotlight.cli.options import say
from pilotlight.cli.talker import Message, Talker, Took
from pilotlight.settings import Settings

PROMPT = "> "


def converse(settings: Settings, name: str, system: str, max_tokens: int, key: str) -> None:
    """Until Ctrl-D. Raises ApiError for what a further question cannot mend; otherwise says it and goes on."""
    talker = Talker(settings, name, key)
    history: list[Message] = [{"role": "system", "content": system}] if system else []
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (line editing and the arrow keys, for `input`)
        say("Ctrl-C stops an answer, Ctrl-D leaves.")
    while (question := _question(terminal)) is not None:
        if not question.strip():
            continue
        history.append({"role": "user", "content": question})
        try:
            answer = _answer(talker, name, history, max_tokens)
        except ApiError as error:
            if not terminal:
                raise
            say(f"pilotlight: {error}")
            history.pop()
            continue
        history.append({"role": "assistant", "content": answer})


def _question(terminal: bool) -> str | None:
    """The next line; None at the end. Ctrl-C while typing drops the line."""
    while True:
        try:
            return input(PROMPT) if terminal else sys.stdin.readline().removesuffix("\n") or _rest()
        except KeyboardInterrupt:
            say("")
        except EOFError:
            say("")
            return None


def _rest() -> str | None:
    """After an empty line: the next that is not; None at the end."""
    for line in sys.stdin:
        if line.strip():
            return line.removesuffix("\n")
    return None


def _answer(talker: Talker, name: str, history: list[Message], max_tokens: int) -> str:
    took, answer = Took(), ""
    stream = talker.stream({"messages": history} | ({"max_tokens": max_tokens} if max_tokens else {}), took)
    try:
        with while_held(talker.status, name) as answers:
            for text in stream:
                answers()
                answer += text
                sys.stdout.write(text)
                sys.stdout.flush()
        print()
        if took.finish == "length":
            say(
                "cut short: "
                + (f"--max-tokens is {max_tokens}" if max_tokens else "the conversation fills the model's context")
            )
        say(str(took))
    except KeyboardInterrupt:
        print()
        say("stopped")
    finally:
        stream.close()  # type: ignore[attr-defined]
    return answer
