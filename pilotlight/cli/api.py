"""The command line's way to a running installation: its URL, CA and admin key, from the state folder `up` wrote them to."""

from __future__ import annotations

import json
import ssl
from typing import Any

import httpx

from pilotlight.settings import Paths


class ApiError(Exception):
    """The installation refused; the text is its own message."""


class Unreachable(ApiError):
    """Nobody answers there; the text says what to do."""


class Api:
    """The admin API, and the public one, of the installation whose state folder this is."""

    def __init__(self, paths: Paths) -> None:
        try:
            self.url: str = json.loads(paths.client.read_text())["url"]
            key = paths.admin_key.read_text().strip()
        except FileNotFoundError:
            raise Unreachable(f"no installation has run in {paths.state}: start one with `pilotlight up`, or give --state") from None
        except (PermissionError, ValueError, KeyError) as error:
            raise Unreachable(f"cannot read how to reach the installation in {paths.state}: {error}") from None
        self.ca_file = str(paths.ca_cert)
        context = ssl.create_default_context(cafile=self.ca_file)
        headers = {"authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=self.url, verify=context, headers=headers, timeout=30, trust_env=False)

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """One call of the admin API. Raises Unreachable, ApiError."""
        try:
            answer = self.http.request(method, f"/api/v1{path}", **arguments)
        except httpx.HTTPError as error:
            raise Unreachable(f"no answer from {self.url} ({error}); is `pilotlight up` running?") from None
        if answer.is_success:
            return answer.json() if answer.content else None
        raise ApiError(message_of(answer))


def message_of(answer: httpx.Response) -> str:
    """The message of an OpenAI-shaped error, else the status."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}: {answer.text[:200]}"
