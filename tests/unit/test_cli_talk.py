"""Talking: a new key is asked again until the routers know it; an answer that Ctrl-C stops stays in the
conversation.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotlight import keys
from pilotlight.cli import talker as callers
from pilotlight.cli.api import ApiError
from pilotlight.cli.talk import chat, talk
from pilotlight.cli.talker import Message, Talker, Took, pieces
from pilotlight.settings import Settings, load
from tests.fakes_cli import Call, Said, answered, prepared


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("PILOTLIGHT_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return prepared(load(state_dir=tmp_path / "state"))


def streamed(*texts: str) -> bytes:
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    return (
        b": a comment\n\n"
        + b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks)
        + b"data: [DONE]\n\n"
    )


class Server:
    """Knows a key `learns` calls after it was made, and answers with `answer`."""

    def __init__(self, learns: int, answer: bytes = streamed("He", "llo")) -> None:
        self.learns, self.answer = learns, answer
        self.made: list[str] = []
        self.asked: list[dict[str, Any]] = []

    def __call__(self, call: Call) -> Said:
        if call.path.endswith("/keys"):
            self.made.append(keys.mint())
            return Said({"key": self.made[-1]}, 201)
        self.asked.append(call.json)
        if (
            call.headers["authorization"] != f"Bearer {self.made[-1] if self.made else ''}"
            or len(self.asked) <= self.learns
        ):
            return Said({"error": {"message": "the key is wrong"}}, 401)
        return Said(self.answer, headers={"x-pilotlight-start": "cold", "x-request-id": "7"})


def talker(settings: Settings, server: Server, key: str = "") -> Talker:
    """A Talker whose connection ends in `server`."""
    return Talker(settings, "chat", key, api=answered(settings, server))


def test_a_new_key_is_asked_again_until_the_routers_know_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "LEARN_SECONDS", 0.5)
    server, took = Server(learns=2), Took()
    assert list(talker(settings, server).stream({}, took)) == ["He", "llo"]
    assert (len(server.made), len(server.asked)) == (1, 3)
    assert (took.start, took.request_id) == ("cold", "7")
    assert took.first is not None


def test_a_kept_key_that_is_no_longer_good_is_made_anew(settings: Settings) -> None:
    kept = settings.paths.secrets / "run-chat.key"
    kept.write_text(keys.mint())
    server = Server(learns=1)
    assert "".join(talker(settings, server).stream({}, Took())) == "Hello"
    assert kept.read_text() == server.made[-1]


def test_a_given_key_that_is_wrong_is_told(settings: Settings) -> None:
    server = Server(learns=0)
    with pytest.raises(ApiError, match="the key is wrong"):
        list(talker(settings, server, key=keys.mint()).stream({}, Took()))
    assert not server.made


def test_it_gives_up_on_a_key_the_routers_never_learn(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "LEARN_SECONDS", 0.05)
    begin = time.monotonic()
    with pytest.raises(ApiError, match="the key is wrong"):
        list(talker(settings, Server(learns=10**6)).stream({}, Took()))
    assert time.monotonic() - begin < 5


def test_an_error_in_the_stream_is_an_error() -> None:
    with pytest.raises(ApiError, match="it died"):
        list(pieces(iter(['data: {"error": {"message": "it died"}}']), Took()))


def test_json_has_the_whole_answer_and_what_it_took(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    said = streamed("He", "llo").replace(
        b"data: [DONE]", b"data: %s\n\ndata: [DONE]" % json.dumps({"choices": [], "usage": usage}).encode()
    )
    server = Server(learns=0, answer=said)
    monkeypatch.setattr(talk, "Talker", lambda *_: talker(settings, server))
    talk.ask(settings, "chat", "hi", 7, "", as_json=True)
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told.pop("first_token_seconds") >= 0
    assert (
        told == {"answer": "Hello", "finish_reason": None, "request_id": "7", "start": "cold", "usage": usage}
        and err == ""
    )
    assert server.asked[-1]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(("reason", "told"), [("stop", False), ("length", True)])
def test_an_answer_that_was_cut_short_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reason: str, told: bool
) -> None:
    end = {"choices": [{"delta": {}, "finish_reason": reason}]}
    said = streamed("He", "llo").replace(b"data: [DONE]", b"data: %s\n\ndata: [DONE]" % json.dumps(end).encode())
    monkeypatch.setattr(talk, "Talker", lambda *_: talker(settings, Server(learns=0, answer=said)))
    talk.ask(settings, "chat", "hi", 7, "", as_json=False)
    out, err = capsys.readouterr()
    assert out == "Hello\n" and ("cut short at 7 tokens" in err) is told
    talk.ask(settings, "chat", "hi", 7, "", as_json=True)
    assert json.loads(capsys.readouterr().out)["finish_reason"] == reason


def test_an_answer_without_text_has_no_first_token() -> None:
    assert str(Took(request_id="7")) == "no text, request 7"


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", b"", b"pl_half", "pl_\u00fc".encode()])
def test_a_kept_key_that_is_damaged_is_made_anew(settings: Settings, damage: bytes) -> None:
    kept = settings.paths.secrets / "run-chat.key"
    kept.write_bytes(damage)
    server = Server(learns=0)
    assert "".join(talker(settings, server).stream({}, Took())) == "Hello"
    assert kept.read_text() == server.made[-1]


@pytest.mark.parametrize("key", ["pl_\u00fc", "pl_a\nb"])
def test_a_given_key_that_can_be_none_is_refused_before_it_is_sent(settings: Settings, key: str) -> None:
    with pytest.raises(ApiError, match="characters that no key has"):
        talker(settings, Server(learns=0), key=key)


class Scripted:
    """Stands in for Talker: each answer is a list of pieces, or of something to raise."""

    def __init__(self, *answers: list[str | BaseException]) -> None:
        self._answers = list(answers)
        self.heard: list[list[Message]] = []
        self.closed = 0

    def status(self) -> dict[str, Any]:
        return {"endpoints": []}

    def stream(self, body: dict[str, Any], took: Took) -> Iterator[str]:
        self.heard.append([dict(message) for message in body["messages"]])
        try:
            for piece in self._answers.pop(0):
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.closed += 1


@pytest.fixture
def converse(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scripted, str], None]:
    def converse(scripted: Scripted, typed: str) -> None:
        monkeypatch.setattr(chat, "Talker", lambda *_: scripted)
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        chat.converse(settings, "chat", "", 10, "")

    return converse


def test_what_was_said_is_remembered(
    converse: Callable[[Scripted, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted = Scripted(["a", "b"], ["c"])
    converse(scripted, "one\n\ntwo\n")
    assert scripted.heard[1] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "ab"},
        {"role": "user", "content": "two"},
    ]
    assert capsys.readouterr().out == "ab\nc\n"


def test_ctrl_c_stops_the_answer_and_keeps_what_came(
    converse: Callable[[Scripted, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted = Scripted(["half", KeyboardInterrupt(), "never"], ["c"])
    converse(scripted, "one\ntwo\n")
    assert scripted.heard[1][1] == {"role": "assistant", "content": "half"}
    assert scripted.closed == 2
    assert "stopped" in capsys.readouterr().err


def test_a_failed_answer_ends_a_script(converse: Callable[[Scripted, str], None]) -> None:
    with pytest.raises(ApiError, match="full"):
        converse(Scripted([ApiError("full")]), "one\ntwo\n")
