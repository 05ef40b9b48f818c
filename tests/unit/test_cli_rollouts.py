"""What the command line says of a deploy: how it stands, how it ended, and what it sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pilotlight.cli.endpoints import fields_given
from pilotlight.cli.main import app
from pilotlight.cli.rollouts import progress, who
from pilotlight.cli.show import _revision, _revisions

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

    endpoint = {"name": "chat", "removed": False, "route": [[routed, 100]], "next": coming, "revisions": [of(1), of(2, **second)]}
    return {"endpoints": [endpoint]}


def test_it_stands_as_the_status_says() -> None:
    assert progress(status(coming="rev2"), "chat", DEPLOY) == (False, "revision 2 is on its way")
    starting = {"state": "starting", "age_seconds": 7.2, "phases": [{"name": "fetch", "at": 1.0}]}
    assert progress(status(coming="rev2", replicas=[starting]), "chat", DEPLOY) == (False, "revision 2 starts, for 7 s, fetch done")
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
    [("idle_timeout_seconds", "is not FIELD=VALUE"), ("colour=red", "there is no field 'colour'"), ("slots=many", "slots: "), ("slots=0", "slots: "),
     ("engine_args=x", "--engine-arg")],
)  # fmt: skip
def test_what_cannot_be_set_is_named(pair: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fields_given([pair])
    assert said in capsys.readouterr().err


def test_a_set_of_nothing_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["set", "x", "--state", str(tmp_path)])
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
