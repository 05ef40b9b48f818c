"""The error tree: every leaf has OpenAI's shape, a status of its own kind, and what is ours says when to come back."""

from __future__ import annotations

import json

import pytest

from router import errors
from router.errors import Refused, RouterError, Unavailable


def leaves(kind: type[RouterError] = RouterError) -> list[type[RouterError]]:
    return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]


@pytest.mark.parametrize("kind", leaves())
def test_every_error_is_an_openai_error(kind: type[RouterError]) -> None:
    raw = errors.answer(kind("do this"), request_id=b"abc", keep_alive=False)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert head.startswith(b"HTTP/1.1 %d " % kind.status)
    assert b"content-length: %d" % len(body) in head
    assert b"x-request-id: abc" in head
    assert b"connection: close" in head
    assert (b"retry-after: 1" in head) == issubclass(kind, Unavailable)
    assert (400 <= kind.status < 500) == issubclass(kind, Refused)
    assert errors.event(kind("x")).startswith(b'data: {"error"')


def test_retry_after_is_rounded_up() -> None:
    assert (b"retry-after", b"8") in errors.headers(errors.QueueFull("x", retry_after=7.2))
