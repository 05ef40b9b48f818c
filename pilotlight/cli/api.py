"""The command line's way to a running installation: its URL, CA and admin key, from the state folder.

It must survive a state folder that is half-written or damaged: each such file is named, with what to do. The client is
Python's own `http.client`. A command that shows a table has 0.3 s, and a larger client takes half of that to be
imported. Each call has a connection of its own, so a router that was started anew in between is not noticed.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pilotlight.cli.acts import user
from pilotlight.cli.exit_codes import ApiError, Unreachable, explain_os_error, say
from pilotlight.cli.reaching import AdminConnection, LocalConnection
from pilotlight.keys import well_formed
from pilotlight.parsed import json_of
from pilotlight.settings import Paths

__all__ = ["Answer", "Api", "ApiError", "Unreachable"]

Connect = Callable[[float], HTTPConnection]  # of so many seconds' patience with each step
PIECE = 1 << 16
UNCONFIRMED = "The routers of this machine have not confirmed it yet: for a moment they may answer as before"


class Answer:
    """An answer that is read as it comes. Reading raises Unreachable where it breaks off."""

    def __init__(self, response: HTTPResponse, silent: Callable[[Exception], Unreachable]) -> None:
        self._response, self._silent = response, silent
        self.status, self.headers = response.status, response.headers

    def iter_bytes(self) -> Iterator[bytes]:
        while True:
            try:
                piece = self._response.read1(PIECE)
                if not piece and self._response.length:
                    raise IncompleteRead(b"", self._response.length)
            except (OSError, HTTPException) as error:
                raise self._silent(error) from None
            if not piece:
                return
            yield piece

    def iter_lines(self) -> Iterator[str]:
        rest = b""
        for piece in self.iter_bytes():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r").decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")

    def read(self) -> bytes:
        return b"".join(self.iter_bytes())


class Api:
    """The admin API, and the public one, of the installation whose state folder this is. `timeout` in seconds."""

    def __init__(self, paths: Paths, *, timeout: float = 30.0, connect: Connect | None = None) -> None:
        try:
            found = json_of(paths.client.read_text())
            self.url = str(found["url"])
            key = paths.admin_key.read_text().strip()
            self.ca_file = str(paths.ca_cert)
            context = ssl.create_default_context(cafile=self.ca_file)
            self._connect = self._connect_admin = connect or _connector(self.url, context)
            if found.get("admin") == "off":
                self._connect_admin = lambda seconds: AdminConnection(paths.run / "admin.sock", timeout=seconds)
        except (FileNotFoundError, NotADirectoryError) as error:
            if error.filename in (None, str(paths.ca_cert)) and paths.client.exists():
                raise Unreachable(f"{paths.ca_cert} is missing: `pilotlight up` makes it anew") from None
            raise Unreachable(
                f"no installation has run in {paths.state}: start one with `pilotlight up`, or give --state"
            ) from None
        except PermissionError as error:
            raise Unreachable(
                f"cannot read how to reach the installation: {explain_os_error(error)} with --state"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise Unreachable(
                f"cannot read how to reach the installation in {paths.state} ({reason}): start `pilotlight up` there again, which writes those files anew"
            ) from None
        if not well_formed(key):
            raise Unreachable(
                f"{paths.admin_key} holds no key (damaged or edited): remove it, the next `pilotlight up` makes a new one"
            )
        self._headers = {
            "authorization": f"Bearer {key}",
            "connection": "close",
            "accept": "*/*",
            "x-pilotlight-by": user(),
        }
        self._timeout = timeout

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """One call of the admin API; `json` is its body, `params` its query. Raises Unreachable, ApiError."""
        with self.stream(method, f"/api/v1{path}", **arguments) as answer:
            content = answer.read()
        try:
            return json_of(content) if content else None
        except ValueError:
            raise self.silent(HTTPException("what answers there is not Pilotlight's admin API")) from None

    def succeeds(self, method: str, path: str, **arguments: Any) -> bool:
        """Whether a call, not only of the admin API, is answered well. Raises Unreachable."""
        try:
            with self.stream(method, path, **arguments) as answer:
                answer.read()
        except Unreachable:
            raise
        except ApiError:
            return False
        return True

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Iterator[Answer]:
        """One call whose answer is read as it comes; not only of the admin API. Raises Unreachable, ApiError."""
        body, given = _body(json)
        target = quote(path, safe="/%:~") + (f"?{urlencode(params)}" if params else "")
        connect = self._connect_admin if path.startswith("/api/") else self._connect
        connection = connect(timeout or self._timeout)
        try:
            try:
                connection.request(method, target, body, {**self._headers, **given, **(headers or {})})
                answer = Answer(connection.getresponse(), self.silent)
            except (OSError, HTTPException) as error:
                raise self.silent(error) from None
            if not 200 <= answer.status < 300:
                raise ApiError(message_of(answer.status, answer.read()), answer.status)
            yield answer
        finally:
            connection.close()

    def silent(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"no answer from {self.url} ({str(error) or type(error).__name__}); is `pilotlight up` running?"
        )


def _connector(url: str, context: ssl.SSLContext) -> Connect:
    """Raises ValueError where it is not a URL of ours."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError(f"{url!r} is not an https URL")
    host, port = parts.hostname, parts.port
    return lambda seconds: LocalConnection(host, port, timeout=seconds, context=context)


def _body(value: Any) -> tuple[bytes | None, dict[str, str]]:
    return (None, {}) if value is None else (json.dumps(value).encode(), {"content-type": "application/json"})


def message_of(status: int, content: bytes) -> str:
    """The message of an OpenAI-shaped error, else the status."""
    try:
        return str(json_of(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: {content[:200].decode(errors='replace')}"


def filters(name: str | None, since: float | None, until: float | None) -> dict[str, Any]:
    """The part of a query that was given: an endpoint, and times in Unix seconds."""
    given = {
        "endpoint": name,
        "since": None if since is None else repr(since),
        "until": None if until is None else repr(until),
    }
    return {key: value for key, value in given.items() if value is not None}


def warn_unconfirmed(answer: dict[str, Any]) -> None:
    """Says so where a change is made, and not every router of this machine has confirmed it."""
    if not answer.get("everywhere", True):
        say(UNCONFIRMED)
