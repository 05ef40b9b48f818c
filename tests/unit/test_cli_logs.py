"""Which lines of a log are from a moment on: our JSON, vLLM's without a year, Postgres', and those without a time."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from pilotlight.cli.talk.logs import since_moment, time_of
from pilotlight.cli.times import MomentError, unix_seconds

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()


def vllm(moment: float, text: str) -> bytes:
    return f"(EngineCore pid=7) WARNING {time.strftime('%m-%d %H:%M:%S', time.localtime(moment))} [model.py:1] {text}\n".encode()


def ours(moment: float) -> bytes:
    return f'{{"event": "connected", "time": "{datetime.fromtimestamp(moment, UTC).isoformat()}", "process": "router"}}\n'.encode()


def test_the_time_of_a_line() -> None:
    assert time_of(vllm(NOW - 60, "x"), now=NOW) == NOW - 60
    assert time_of(ours(NOW - 60), now=NOW) == NOW - 60
    assert time_of(b"2026-01-02 03:04:05.250 UTC [1] LOG:  ready\n", now=NOW) == NOW + 0.25
    assert time_of(b"Loading safetensors checkpoint shards\n", now=NOW) is None
    assert time_of(b"INFO 13-41 99:00:00 [x]\n", now=NOW) is None


def test_without_a_year_the_latest_one_is_meant_that_is_not_in_the_future() -> None:
    assert time_of(vllm(NOW - 5 * 86400, "in December"), now=NOW) == NOW - 5 * 86400


def test_lines_without_a_time_belong_to_the_one_before() -> None:
    lines = [
        vllm(NOW - 90, "old"),
        b"of the old one\n",
        vllm(NOW - 5, "new"),
        b"of the new one\n",
        vllm(NOW - 1, "newest"),
    ]
    assert list(since_moment(iter(lines), NOW - 60, now=NOW)) == lines[2:]
    assert list(since_moment(iter(lines), None, now=NOW)) == lines
    assert not list(since_moment(iter(lines), NOW + 60, now=NOW))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", NOW - 30),
        ("1.5h", NOW - 5400),
        ("2w", NOW - 14 * 86400),
        ("2026-01-02T03:04:05Z", NOW),
        ("2026-01-02 03:04:05", NOW),
        ("2026-01-02T04:04:05+01:00", NOW),
    ],
)
def test_moments(text: str, seconds: float) -> None:
    assert unix_seconds(text, now=NOW) == seconds


@pytest.mark.parametrize("text", ["", "10", "10 minutes", "yesterday", "m"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(MomentError, match="10m"):
        unix_seconds(text, now=NOW)
