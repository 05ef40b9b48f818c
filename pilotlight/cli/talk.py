"""`pilotlight run`: one question, streamed to the terminal, with what it took on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import typer

from pilotlight.cli.api import Api, ApiError, Unreachable, message_of
from pilotlight.settings import Settings

KEY_SECONDS = 86_400.0  # a key made for this machine lives a day


def ask(settings: Settings, name: str, prompt: str, max_tokens: int, key: str) -> None:
    """Ask and stream. Raises ApiError with the server's own message."""
    api = Api(settings.paths)
    kept = settings.paths.secrets / f"run-{name}.key"
    chosen = key or (kept.read_text().strip() if kept.exists() else "") or _make_key(api, name, kept)
    try:
        _stream(api, name, prompt, max_tokens, chosen)
    except _Unauthorised:
        if key:
            raise
        _stream(api, name, prompt, max_tokens, _make_key(api, name, kept))


class _Unauthorised(ApiError):
    """The key is not, or no longer, good for this endpoint."""


def _make_key(api: Api, name: str, kept: Path) -> str:
    made: str = api.call("POST", f"/endpoints/{name}/keys", json={"name": "pilotlight run", "expires_in_seconds": KEY_SECONDS})["key"]
    kept.touch(mode=0o600)
    kept.write_text(made)
    return made


def _stream(api: Api, name: str, prompt: str, max_tokens: int, key: str) -> None:
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "temperature": 0, "stream": True}
    begin = time.monotonic()
    first: float | None = None
    try:
        with api.http.stream(
            "POST", f"/e/{name}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=600
        ) as answer:
            if not answer.is_success:
                answer.read()
                raise (_Unauthorised if answer.status_code == 401 else ApiError)(message_of(answer))
            for text in _pieces(answer.iter_lines()):
                first = first or time.monotonic() - begin
                sys.stdout.write(text)
                sys.stdout.flush()
            print()
            start = answer.headers.get("x-pilotlight-start", "")
            typer.echo(f"{start} start, first token after {first or 0:.2f} s, request {answer.headers.get('x-request-id', '')}", err=True)
    except httpx.HTTPError as error:
        raise Unreachable(f"the connection to {api.url} broke: {error}") from None


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    """The text of each streamed chunk. Raises ApiError for an error in the stream."""
    for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            data: dict[str, Any] = json.loads(line[6:])
            if "error" in data:
                raise ApiError(str(data["error"].get("message", data["error"])))
            for choice in data.get("choices", ()):
                if text := choice.get("delta", {}).get("content"):
                    yield text
