"""Notes of acts: held while an act runs, whole or of unknown outcome afterwards, short, and without secrets."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotlight.audit import LARGEST, LONGEST_TEXT, Begun, Note, bounded, noted, plain, waiting
from tests.pipes import heard


def note(**given: Any) -> Note:
    return noted(**{"act": "endpoint.rm", "object": "chat", "who": "w", "origin": "o", "at": 1.5} | given)


def ready(folder: Path) -> list[Note | None]:
    return [found for _, found in waiting(folder)]


def test_a_note_is_held_until_its_act_has_ended(tmp_path: Path) -> None:
    begun = Begun(tmp_path, note())
    assert not begun.error and ready(tmp_path) == []
    ended = begun.end("done", changed={"number": 2})
    assert ready(tmp_path) == [ended] and ended.outcome == "done" and ended.changed == {"number": 2}
    assert ended.act_id == begun.note.act_id and {file.name for file in tmp_path.iterdir()} == {f"{ended.act_id}.json"}


def test_of_who_is_killed_amid_an_act_the_outcome_is_unknown(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        Begun(tmp_path, note())
        os.write(writer, b".")
        signal.pause()
    os.close(writer)
    heard(reader)
    assert ready(tmp_path) == []
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    (left,) = ready(tmp_path)
    assert left is not None and left.outcome == "unknown" and left.act == "endpoint.rm"


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of ours may hold a byte more."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_on_a_full_disk_it_is_said_and_made_good_once_there_is_room(tmp_path: Path) -> None:
    with full_disk():
        begun = Begun(tmp_path, note())
        assert begun.error and list(tmp_path.iterdir()) == []
        lost = Begun(tmp_path, note())
        lost.end("done")
        assert lost.error
    ended = begun.end("done")
    assert not begun.error and ready(tmp_path) == [ended]
    Begun(tmp_path / "missing", note()).end("done")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"act": 1}', json.dumps({"at": "x"}).encode()])
def test_what_is_no_note_is_told_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "act_x.json").write_bytes(content)
    (tmp_path / ".act_y.json").write_bytes(content)  # half-written
    assert ready(tmp_path) == [None]


SECRETS = ("hf-token", "api_key", "API-KEY", "password", "client_secret", "authorization", "aws-credentials")


def test_no_secret_is_noted() -> None:
    told = bounded(
        {
            "engine_args": dict.fromkeys(SECRETS, "s3cret"),
            "max_tokens": 5,
            "tokenizer": "t",
            "url": "s3://me:s3cret@host/x",
        }
    )
    assert (
        "s3cret" not in json.dumps(told)
        and told["max_tokens"] == 5
        and told["tokenizer"] == "t"
        and told["url"] == "s3://…@host/x"
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\0long" * 100),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=8,
)


@settings(max_examples=20)
@given(st.dictionaries(st.text(max_size=8), values, max_size=8), st.text())
def test_whatever_is_asked_a_note_is_short_and_postgres_takes_it(asked: dict[str, Any], text: str) -> None:
    made = note(asked=asked, changed=asked, object=text, said_by=text, reason=text * 50)
    content = made.bytes()
    assert len(content) < 3 * LARGEST + 8 * LONGEST_TEXT * 6
    again = json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert Note(**again) == made == noted(**again), "reading and bounding again changes nothing"
    for said in (made.object, made.said_by, made.reason, json.dumps(made.asked, ensure_ascii=False)):
        said.encode()
        assert "\0" not in said and "\\u0000" not in said


def test_one_line_at_most_so_long() -> None:
    assert plain("a\nb\x1b[1m") == "a b [1m" and len(plain("x" * 1000)) == LONGEST_TEXT
