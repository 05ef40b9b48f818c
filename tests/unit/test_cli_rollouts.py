"""What the command line says of a deploy: how it stands, how it ended, and what it sends."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import typer

from pilotlight.cli import drawn
from pilotlight.cli import main as command_line
from pilotlight.cli.acts import who
from pilotlight.cli.api import ApiError
from pilotlight.cli.drawn import held_by
from pilotlight.cli.endpoints import deploy as endpoints
from pilotlight.cli.endpoints import rollouts
from pilotlight.cli.endpoints.deploy import fields_given
from pilotlight.cli.endpoints.rollouts import progress
from pilotlight.cli.endpoints.show import _revision, _revisions
from pilotlight.settings import Settings, load
from tests.fakes_cli import Call, Said, answered, prepared, ran

DEPLOY = {"revision_id": "rev2", "number": 2, "pending": True, "changed": True}


def status(*, routed: str = "rev1", coming: str = "", **second: Any) -> dict[str, Any]:
    def of(number: int, **given: Any) -> dict[str, Any]:
        plain = {
            "revision_id": f"rev{number}",
            "number": number,
            "outcome": "",
            "failure": "",
            "min_replicas": 0,
            "replicas": [],
            "waits_for": "",
        }
        return plain | given

    endpoint = {
        "name": "chat",
        "removed": False,
        "route": [[routed, 100]],
        "next": coming,
        "revisions": [of(1), of(2, **second)],
    }
    return {"endpoints": [endpoint]}


def test_it_stands_as_the_status_says() -> None:
    assert progress(status(coming="rev2"), "chat", DEPLOY) == (False, "revision 2 is on its way")
    starting = {"state": "starting", "age_seconds": 7.2, "phases": [{"name": "fetch", "at": 1.0}]}
    assert progress(status(coming="rev2", replicas=[starting]), "chat", DEPLOY) == (
        False,
        "revision 2 starts, for 7 s, fetch done",
    )
    done, text = progress(status(coming="rev2", waits_for="memory: 2 GiB needed"), "chat", DEPLOY)
    assert not done and "no room for both: memory: 2 GiB needed" in text


def test_it_ends_well_or_says_why_not() -> None:
    assert progress(status(routed="rev2", outcome="proved"), "chat", DEPLOY) == (True, "")
    done, text = progress(status(outcome="failed", failure="no such argument"), "chat", DEPLOY)
    assert done and text == "chat: revision 2 failed: no such argument; revision 1 goes on serving"
    done, text = progress(status(), "chat", DEPLOY)
    assert done and "replaced by another deploy" in text
    assert progress({"endpoints": []}, "chat", DEPLOY) == (True, "chat was removed meanwhile")


def test_a_first_deploy_is_waited_for_where_it_starts_at_once() -> None:
    first = DEPLOY | {"pending": False}
    assert progress(status(routed="rev2"), "chat", first) == (True, ""), "its first call starts it"
    assert progress(status(routed="rev2", min_replicas=1), "chat", first)[0] is False
    done, text = progress(status(routed="rev2", min_replicas=1, outcome="failed", failure="x"), "chat", first)
    assert done and text == "chat: revision 2 failed: x"


def test_fields_are_set_with_the_types_they_have() -> None:
    assert fields_given(["idle-timeout-seconds=7", "max_replicas=2", "zero=parked"]) == {
        "idle_timeout_seconds": 7.0, "max_replicas": 2, "zero": "parked",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pair", "said"),
    [("idle_timeout_seconds", "is not FIELD=VALUE"), ("colour=red", "there is no field 'colour'"), ("idle-timeout=5", "to set; idle_timeout_seconds may be meant: "), ("slots=many", "slots: "), ("slots=0", "slots: "),
     ("engine_args=x", "--engine-arg")],
)  # fmt: skip
def test_what_cannot_be_set_is_named(pair: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fields_given([pair])
    assert said in capsys.readouterr().err


def test_a_set_of_nothing_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    done = ran("set", "x", "--state", str(tmp_path))
    assert done.exit_code == 2 and "give at least one FIELD=VALUE" in done.stderr


def test_pending_and_failed_revisions_are_shown() -> None:
    assert _revisions({"number": 3}) == "3"
    assert _revisions({"number": 3, "next": {"number": 4}}) == "3, 4 on its way"
    assert _revisions({"number": 3, "last_failed": {"number": 4}}) == "3, 4 failed"
    assert _revisions({"number": 4, "last_failed": {"number": 4}}) == "4 fails"
    (endpoint,) = status(coming="rev2")["endpoints"]
    assert [_revision(revision, endpoint) for revision in endpoint["revisions"]] == ["rev1", "rev2 next"]
    (endpoint,) = status(outcome="failed")["endpoints"]
    assert [_revision(revision, endpoint) for revision in endpoint["revisions"]] == ["rev1", "rev2 failed"]


def test_who_deploys_has_a_name() -> None:
    assert who().endswith("local)") or who() == "local"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("PILOTLIGHT_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rollouts, "POLL_SECONDS", 0.0)
    return prepared(load(state_dir=tmp_path / "state"))


class Installation:
    """Takes deploys, rollbacks and wakes, and shows one status after the other; the last one for ever."""

    def __init__(self, deploy: dict[str, Any], *stands: dict[str, Any]) -> None:
        self.deploy, self.stands = deploy, list(stands)
        self.asked: list[str] = []

    def __call__(self, call: Call) -> Said:
        self.asked.append(f"{call.method} {call.path.removeprefix('/api/v1')}")
        if call.path.endswith("/status"):
            return Said(self.stands.pop(0) if len(self.stands) > 1 else self.stands[0])
        if call.path.endswith("/wake"):
            return Said({"revision_id": "rev2", "number": 2, "ready": False}, 202)
        return Said(
            {
                "object": "endpoint",
                "name": "chat",
                "digest": "sha256:00",
                "min_replicas": 0,
                "max_replicas": 1,
                "deploy": self.deploy,
            }
        )


FIRST = DEPLOY | {"pending": False}
Typed = tuple[int, str, str]


def typed(
    settings: Settings,
    there: Installation,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *words: str,
) -> Typed:
    for module in (rollouts, endpoints):
        monkeypatch.setattr(module, "Api", lambda paths: answered(settings, there))
    monkeypatch.setattr("sys.argv", ["pilotlight", *words, "--state", str(settings.paths.state)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    out, said = capfd.readouterr()
    assert "Traceback" not in said
    return int(ended.value.code or 0), out, said


def test_the_first_deploy_of_a_name_is_woken_and_its_failure_is_the_commands(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    there = Installation(
        FIRST,
        status(routed="rev2"),
        status(routed="rev2"),
        status(routed="rev2", outcome="failed", failure="no tokenizer"),
    )
    code, out, said = typed(settings, there, monkeypatch, capfd, "set", "chat", "slots=3")
    assert code == 1 and out == "" and said.endswith("pilotlight: chat: revision 2 failed: no tokenizer\n")
    assert there.asked.count("POST /endpoints/chat/wake") == 1
    proved = Installation(FIRST, status(routed="rev2"), status(routed="rev2"), status(routed="rev2", outcome="proved"))
    code, out, said = typed(settings, proved, monkeypatch, capfd, "set", "chat", "slots=3")
    assert code == 0 and "chat is deployed" in said and "/e/chat/v1" in out


@pytest.mark.parametrize("how", ["--no-wait", "--at-once"])
def test_who_does_not_wait_is_told_that_nothing_is_proved(
    how: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    there = Installation(FIRST, status(routed="rev2"))
    code, _, said = typed(settings, there, monkeypatch, capfd, "set", "chat", "slots=3", how)
    assert code == 0 and "POST /endpoints/chat/wake" not in there.asked
    assert ("not started yet" in said) == (how == "--no-wait")


@pytest.mark.parametrize(
    "words", [("set", "chat", "slots=3"), ("rollback", "chat"), ("deploy", "chat", "--slots", "3")]
)
def test_json_says_the_outcome_failed_or_not(
    words: tuple[str, ...], settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failed = Installation(DEPLOY, status(coming="rev2"), status(outcome="failed", failure="no such argument"))
    code, out, said = typed(settings, failed, monkeypatch, capfd, *words, "--json")
    told = json.loads(out)
    assert (
        code == 1
        and told["outcome"] == "failed"
        and "no such argument" in told["failure"]
        and "no such argument" in said
    )
    serves = Installation(DEPLOY, status(coming="rev2"), status(routed="rev2", outcome="proved"))
    code, out, said = typed(settings, serves, monkeypatch, capfd, *words, "--json")
    assert code == 0 and (json.loads(out)["outcome"], json.loads(out)["failure"]) == ("serves", "")
    left = Installation(DEPLOY, status(coming="rev2"))
    code, out, said = typed(settings, left, monkeypatch, capfd, *words, "--json", "--no-wait")
    assert code == 0 and json.loads(out)["outcome"] == "on its way"


@pytest.mark.parametrize(
    "words",
    [("set", "x", "slots=3"), ("deploy", "x", "--slots", "3"), ("rollback", "x"), ("apply", "-f", "x"), ("wake", "x")],
)
def test_waiting_and_not_waiting_together_is_refused_before_anybody_is_asked(words: tuple[str, ...]) -> None:
    for more in ((), ("--at-once",)) if words[0] != "wake" else ((),):
        done = ran(*words, "--wait", "--no-wait", *more)
        assert done.exit_code == 2 and "not both" in done.stderr


@pytest.mark.parametrize(("pending", "said"), [(True, "goes on by itself"), (False, "starts by itself")])
def test_ctrl_c_in_a_waiting_deploy_says_what_goes_on(
    pending: bool, said: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(Installation):
        def __call__(self, call: Call) -> Said:
            if self.asked.count("GET /status") > 1:
                raise KeyboardInterrupt
            return super().__call__(call)

    there = Interrupted(DEPLOY | {"pending": pending}, status(coming="rev2") if pending else status(routed="rev2"))
    code, _, told = typed(settings, there, monkeypatch, capfd, "set", "chat", "slots=3")
    assert code == 130 and said in told and "`pilotlight ps` shows it" in told


def test_a_rollback_after_a_failed_deploy_says_that_there_is_nothing_to_do(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    there = Installation(
        {"revision_id": "rev1", "number": 1, "pending": False, "changed": False}, status(outcome="failed")
    )
    code, _, said = typed(settings, there, monkeypatch, capfd, "rollback", "chat")
    assert code == 0 and "stays there: nothing to do. The newest revision never served; --to NUMBER" in said


def test_a_wake_waits_until_a_replica_is_ready_or_says_why_none_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    starting = {"state": "starting", "age_seconds": 2.0, "phases": [], "replica_id": "r1"}
    there = Installation(
        FIRST,
        status(routed="rev2", replicas=[starting]),
        status(routed="rev2", replicas=[starting | {"state": "ready"}]),
    )
    assert typed(settings, there, monkeypatch, capfd, "wake", "chat")[0] == 0
    broken = Installation(FIRST, status(routed="rev2", failure="no room"))
    code, _, said = typed(settings, broken, monkeypatch, capfd, "wake", "chat")
    assert code == 1 and "revision 2 cannot start: no room" in said
    code, out, _ = typed(settings, there, monkeypatch, capfd, "wake", "chat", "--no-wait", "--json")
    assert code == 0 and json.loads(out)["outcome"] == "on its way"


def test_a_deploy_over_what_fails_while_it_is_paused_is_not_woken(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stands = status(routed="rev2")
    stands["endpoints"][0]["paused"] = True
    there = Installation(FIRST, stands)
    code, _, said = typed(settings, there, monkeypatch, capfd, "set", "chat", "slots=3")
    assert code == 0 and "is paused" in said and "POST /endpoints/chat/wake" not in there.asked


@pytest.mark.parametrize(("word", "paused"), [("pause", True), ("resume", False)])
def test_pause_and_resume_change_that_alone(
    word: str, paused: bool, settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bodies: list[Any] = []

    class Listens(Installation):
        def __call__(self, call: Call) -> Said:
            bodies.extend([call.json] if call.method == "PUT" else [])
            return super().__call__(call)

    there = Listens(FIRST, status(routed="rev2"))
    assert typed(settings, there, monkeypatch, capfd, word, "chat")[0] == 0
    assert bodies == [{"paused": paused, "by": who()}]
    assert json.loads(typed(settings, there, monkeypatch, capfd, word, "chat", "--json")[1])["name"] == "chat"


def test_what_a_held_call_waits_for_is_said() -> None:
    assert (
        held_by(status(routed="rev2", replicas=[{"state": "ready"}]), "chat")
        == ""
        == held_by({"endpoints": []}, "chat")
    )
    unrehearsed = status(routed="rev2") | {"nodes": [{"standbys_ready": 0}]}
    assert held_by(unrehearsed, "chat").startswith("chat is on its way: first rehearsal of the engine")
    starting = {"state": "starting", "age_seconds": 2.0, "phases": [{"name": "load", "at": 1.0}]}
    assert (
        held_by(status(routed="rev2", replicas=[starting], expected_seconds=7.4), "chat")
        == "chat starts, for 2 s of about 7 s, load done"
    )
    assert held_by(status(routed="rev2", waits_for="memory"), "chat") == "chat waits for room: memory"
    reason = "no node is connected (n1)"
    away = status(routed="rev2", waits_for=reason, waits_for_node=True)
    assert held_by(away, "chat") == f"chat waits: {reason}"


def test_a_line_is_drawn_in_place_only_on_a_terminal_that_can_and_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for term, drawn_so in (("xterm", "\r\033[Kone\r\033[Ktwo\r\033[K"), ("dumb", "one\ntwo\n")):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setattr("sys.stderr", terminal := Terminal())
        with drawn.line() as draw:
            draw("one")
            draw("two")
        assert terminal.getvalue() == drawn_so


def test_how_long_a_wait_has_lasted_is_no_news_where_nothing_can_be_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    with drawn.line() as draw:
        for text in (
            "stopping, for 1 s: answers may finish",
            "stopping, for 2 s: answers may finish",
            "it starts, for 0 s",
            "it starts, for 1 s",
        ):
            draw(text)
    assert capfd.readouterr().err == "stopping, for 1 s: answers may finish\nit starts, for 0 s\n"


def test_a_wait_is_told_once_where_nobody_looks_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drawn, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(drawn, "LOOK_SECONDS", 0.0)
    looked, looks = threading.Semaphore(0), list[int]()

    def ask() -> dict[str, Any]:
        looked.release()
        looks.append(1)
        if len(looks) == 1:
            raise ApiError("not now")
        return status(routed="rev2", waits_for="memory")

    with drawn.while_held(ask, "chat") as answers:
        for _ in range(4):
            assert looked.acquire(timeout=10)
        answers()
    assert capfd.readouterr().err == "chat waits for room: memory\n"


@pytest.mark.parametrize("width", [1, 2, 10, 40, 79, 200])
def test_what_is_drawn_fits_the_terminal_in_whole_words(width: int) -> None:
    text = "revision 1 starts, for 64 s of about 15 s; " + drawn.REHEARSES
    shown = drawn.fitting(text, width)
    assert len(shown) <= max(width, 2)
    assert shown == text or (shown.endswith(" …") and (text.startswith(shown[:-2] + " ") or width < 11))


def test_what_the_first_deploy_waits_for_fits_80_columns() -> None:
    starting = {"state": "starting", "age_seconds": 164.0, "phases": [{"name": "fetch", "at": 1.0}]}
    there = status(routed="rev2", replicas=[starting], expected_seconds=64.0) | {"nodes": [{"standbys_ready": 0}]}
    told = f"revision 12 {drawn.standing(there['endpoints'][0]['revisions'][1], there['nodes'])}"
    assert told.endswith(drawn.REHEARSES) and drawn.fitting(told, 79) == told
