"""The command line's way to a running installation: its URL, CA and admin key, from the state folder `up` wrote them to.

It must survive a state folder that is half-written or damaged: each such file is named, with what to do.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from pilotlight.keys import well_formed
from pilotlight.settings import Paths


class ApiError(Exception):
    """The installation refused; the text is its own message."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status  # of HTTP; 0 where it was none


class Unreachable(ApiError):
    """Nobody answers there; the text says what to do."""


class Api:
    """The admin API, and the public one, of the installation whose state folder this is. `timeout` in seconds."""

    def __init__(self, paths: Paths, *, timeout: float = 30.0) -> None:
        try:
            self.url = str(json.loads(paths.client.read_text())["url"])
            key = paths.admin_key.read_text().strip()
            self.ca_file = str(paths.ca_cert)
            context = ssl.create_default_context(cafile=self.ca_file)
        except (FileNotFoundError, NotADirectoryError) as error:
            if error.filename in (None, str(paths.ca_cert)) and paths.client.exists():
                raise Unreachable(f"{paths.ca_cert} is missing: `pilotlight up` makes it anew") from None
            raise Unreachable(f"no installation has run in {paths.state}: start one with `pilotlight up`, or give --state") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise Unreachable(
                f"cannot read how to reach the installation in {paths.state} ({reason}): start `pilotlight up` there again, it writes them anew"
            ) from None
        if not well_formed(key):
            raise Unreachable(f"{paths.admin_key} holds no key (damaged or edited): remove it, the next `pilotlight up` makes a new one")
        headers = {"authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=self.url, verify=context, headers=headers, timeout=timeout, trust_env=False)

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """One call of the admin API. Raises Unreachable, ApiError."""
        try:
            answer = self.http.request(method, f"/api/v1{path}", **arguments)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self.silent(error) from None
        if answer.is_success:
            return answer.json() if answer.content else None
        raise ApiError(message_of(answer), answer.status_code)

    @contextmanager
    def stream(self, method: str, path: str, **arguments: Any) -> Iterator[httpx.Response]:
        """One call whose answer is read as it comes; not only of the admin API. Raises Unreachable, ApiError."""
        try:
            with self.http.stream(method, path, **arguments) as answer:
                if not answer.is_success:
                    answer.read()
                    raise ApiError(message_of(answer), answer.status_code)
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self.silent(error) from None

    def silent(self, error: Exception) -> Unreachable:
        return Unreachable(f"no answer from {self.url} ({error or type(error).__name__}); is `pilotlight up` running?")


def message_of(answer: httpx.Response) -> str:
    """The message of an OpenAI-shaped error, else the status."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}: {answer.text[:200]}"
