"""One caller of one endpoint, as a user's program would be: asks it, and streams the answer.

The key is the one given, or one that is made for this machine and kept for a day. What must survive is a key that is no
longer good, and routers that have not heard of a new one yet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilotlight.cli.api import Api, ApiError
from pilotlight.keys import well_formed
from pilotlight.settings import Settings
from runtime.tasks import CHAT

KEY_SECONDS = 86_400.0  # a key made for this machine lives a day
ANSWER_SECONDS = 600.0
LEARN_SECONDS = 5.0  # the longest that routers may take to learn of a new key

Message = dict[str, str]


@dataclass
class Took:
    """What one answer took, filled in while it streams."""

    begin: float = field(default_factory=time.monotonic)
    first: float | None = None  # seconds until its first piece
    start: str = ""
    request_id: str = ""
    usage: dict[str, Any] | None = None  # tokens, as the engine counted them, where it was asked to say so
    finish: str = ""  # why the answer ended, as the engine says it: stop, length, …

    def __str__(self) -> str:
        start = f"{self.start} start, " if self.start else ""  # a stream that was begun while it was held cannot say
        first = "no text" if self.first is None else f"first token after {self.first:.2f} s"
        return f"{start}{first}, request {self.request_id}"


class Talker:
    """Asks one endpoint, with the key given or one kept on this machine, which is made anew when it is no longer
    good.
    """

    def __init__(self, settings: Settings, name: str, key: str, *, api: Api | None = None) -> None:
        self.api = api or Api(settings.paths)
        self._name, self._given = name, key
        self._kept = settings.paths.secrets / f"run-{name}.key"
        self._made: float | None = None  # when we made the key, of the monotonic clock
        if not (key.isascii() and key.isprintable()):
            raise ApiError(
                "the API key given has characters that no key has: copy it anew, or give none to have one made"
            )
        self._key = key or self._kept_key() or self._make_key()

    @property
    def key(self) -> str:
        """The key in use now."""
        return self._key

    def status(self) -> dict[str, Any]:
        """How the installation stands. Raises ApiError."""
        found: dict[str, Any] = self.api.call("GET", "/status")
        return found

    def stream(self, body: dict[str, Any], took: Took) -> Iterator[str]:
        """The pieces of the answer. Raises ApiError with the server's own message.

        1. A kept key that is no longer good is made anew, once.
        2. A new key is pushed to the routers while we ask: a refusal of it is asked again, for LEARN_SECONDS.
        """
        while True:
            try:
                yield from self._stream(body, took)
                return
            except ApiError as error:
                if error.status != 401 or self._given:
                    raise
                if self._made is None:  # 1
                    self._key = self._make_key()
                elif time.monotonic() - self._made > LEARN_SECONDS:
                    raise
                else:  # 2
                    time.sleep(LEARN_SECONDS / 50)

    def _stream(self, body: dict[str, Any], took: Took) -> Iterator[str]:
        headers = {"authorization": f"Bearer {self._key}"}
        path = f"/e/{self._name}{CHAT.public}"
        with self.api.stream(
            "POST", path, json={**body, "stream": True}, headers=headers, timeout=ANSWER_SECONDS
        ) as answer:
            took.start = answer.headers.get("x-pilotlight-start", "")
            took.request_id = answer.headers.get("x-request-id", "")
            for text in pieces(answer.iter_lines(), took):
                took.first = took.first or time.monotonic() - took.begin
                yield text

    def _kept_key(self) -> str:
        """ "" where there is none, or what is there is none any more: half-written, or damaged."""
        try:
            key = self._kept.read_text().strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return ""
        return key if well_formed(key) else ""

    def _make_key(self) -> str:
        body = {"name": "pilotlight run", "expires_in_seconds": KEY_SECONDS}
        made: str = self.api.call("POST", f"/endpoints/{self._name}/keys", json=body)["key"]
        _keep(self._kept, made)
        self._made = time.monotonic()
        return made


def pieces(lines: Iterator[str], took: Took) -> Iterator[str]:
    """The text of each streamed chunk; what it cost in tokens, where a chunk says so, goes to `took`. Raises ApiError
    for an error in the stream.
    """
    for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            data: dict[str, Any] = json.loads(line[6:])
            if "error" in data:
                raise ApiError(str(data["error"].get("message", data["error"])))
            took.usage = data.get("usage") or took.usage
            for choice in data.get("choices", ()):
                took.finish = choice.get("finish_reason") or took.finish
                if text := choice.get("delta", {}).get("content"):
                    yield text


def _keep(file: Path, key: str) -> None:
    file.touch(mode=0o600)
    file.write_text(key)
