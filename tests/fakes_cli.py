"""An installation as the command line sees it: a function that answers its calls, without a process, a port or TLS."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPResponse
from typing import Any

from typer.testing import CliRunner

from pilotlight import keys, tls
from pilotlight.cli.api import Api
from pilotlight.cli.main import command
from pilotlight.settings import Settings


@dataclass(frozen=True)
class Call:
    method: str
    path: str  # with its query
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class Said:
    """An answer. `content`: bytes as they are, or a value as JSON."""

    content: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def wire(self) -> bytes:
        body = (
            self.content
            if isinstance(self.content, bytes)
            else b""
            if self.content is None
            else json.dumps(self.content).encode()
        )
        head = {"content-length": str(len(body))} | dict(self.headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        return f"HTTP/1.1 {self.status} Said\r\n{lines}\r\n".encode() + body


@dataclass(frozen=True)
class Ran:
    """How a command has ended, and what it has said."""

    exit_code: int
    stdout: str
    stderr: str
    output: str  # both, as a terminal shows them


def ran(*words: str, **environ: str) -> Ran:
    """The command line in this process. What breaks it is raised."""
    code = 0
    with CliRunner().isolation(env=environ) as streams:
        try:
            command().main(args=list(words), prog_name="pilotlight")
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        return Ran(code, *(stream.getvalue().decode() for stream in streams))


Answers = Callable[[Call], Said]


class _Socket:
    """The reading end of an answer that has come whole."""

    def __init__(self, wire: bytes) -> None:
        self._wire = wire

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._wire)


class FakeConnection(HTTPConnection):
    """Python's own client, ended in a function; what it reads is parsed as any answer is."""

    def __init__(self, answers: Answers) -> None:
        super().__init__("127.0.0.1")
        self._answers, self._said = answers, Said()

    def request(
        self, method: str, url: str, body: Any = None, headers: Any = None, *, encode_chunked: bool = False
    ) -> None:
        self._said = self._answers(
            Call(method, url, {name.lower(): value for name, value in (headers or {}).items()}, body or b"")
        )

    def getresponse(self) -> HTTPResponse:
        response = HTTPResponse(_Socket(self._said.wire))  # type: ignore[arg-type]
        response.begin()
        return response


def prepared(settings: Settings) -> Settings:
    """With the files of an installation that has run."""
    settings.paths.make()
    keys.ensure_admin_key(settings.paths)
    tls.ensure(settings.paths)
    settings.paths.client.write_text(json.dumps({"url": "https://127.0.0.1:1"}))
    return settings


def answered(settings: Settings, answers: Answers) -> Api:
    """The way to an installation that answers so."""
    return Api(settings.paths, connect=lambda seconds: FakeConnection(answers))


def never(call: Call) -> Said:
    raise AssertionError(f"nobody should be asked: {call.method} {call.path}")


class FakeApi:
    url, ca_file = "https://here", "ca.pem"

    def __init__(self, *found: dict[str, Any], everywhere: bool = True) -> None:
        self.found, self.everywhere = list(found), everywhere
        self.asked: list[tuple[str, str, Any]] = []

    def call(self, method: str, path: str, **given: Any) -> Any:
        self.asked.append((method, path, given.get("json", given.get("params"))))
        if method == "GET":
            return {"data": self.found}
        ends = (NOW + timedelta(hours=1)).isoformat()
        return {"key": "pl_new", "key_id": "key_new", "replaced_expires_at": ends, "everywhere": self.everywhere}


class FakeServer:
    """A Postgres that lives until it is told otherwise."""

    dsn = "postgresql:///fake"

    def __init__(self) -> None:
        self.died, self.stopped = asyncio.Event(), False

    async def ended(self) -> None:
        await self.died.wait()

    async def stop(self) -> None:
        self.died.set()
        self.stopped = True

    def kill(self) -> None:
        self.died.set()


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
