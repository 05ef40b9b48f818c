"""What a command imports before it says a line: help is there in 0.2 s, a table in 0.3 s. Seconds depend on the
machine, modules do not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pilotlight.cli.api import Api, ApiError, Unreachable
from pilotlight.settings import Settings, load
from tests.fakes_cli import Call, Said, answered, prepared, ran

SLOW = {
    "structlog",
    "httpx",
    "asyncpg",
    "sqlalchemy",
    "alembic",
    "cryptography",
    "aiobotocore",
    "uvicorn",
    "starlette",
    "torch",
    "vllm",
    "openai",
}
FOR_HELP = SLOW | {
    "pydantic",
    "rich",
    "http",
    "asyncio",
}  # a command's own help has pydantic: typer reads values with it
LOOK = """
import sys
from pilotlight.cli.main import main
for line in sys.argv[1:]:
    sys.argv = ["pilotlight", *line.split()]
    try:
        main()
    except SystemExit as end:
        print("ENDED", end.code)
print("LOADED", *sys.modules)
"""


def loaded(*lines: str, state: Path, code: int) -> set[str]:
    """The packages in memory once all these commands have ended so, in one process."""
    told = {"PILOTLIGHT_STATE_DIR": str(state)}
    done = subprocess.run([sys.executable, "-c", LOOK, *lines], capture_output=True, text=True, env=told, check=True)
    assert done.stdout.count(f"ENDED {code}\n") == len(lines), done.stderr
    return {name.partition(".")[0] for name in done.stdout.rpartition("LOADED")[2].split()}


def test_help_imports_nothing_large(tmp_path: Path) -> None:
    assert not loaded("--help", "-h", "--version", state=tmp_path, code=0) & FOR_HELP
    assert not loaded("help keys create", "deploy -h", "snapshot --help", state=tmp_path, code=0) & SLOW


def test_a_command_that_shows_text_imports_nothing_large(tmp_path: Path) -> None:
    shown = ("ls", "ps", "usage", "keys ls x", "starts", "events x", "revisions x")
    assert not loaded(*shown, state=prepared(load(state_dir=tmp_path)).paths.state, code=3) & SLOW


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize(
    "command", [[], ["ls"], ["keys"], ["keys", "create"], ["usage"], ["snapshot", "pack"], ["set"]]
)
def test_each_command_takes_both_spellings_of_help(command: list[str], option: str) -> None:
    done = ran(*command, option)
    assert done.exit_code == 0 and "Usage: " in done.output
    assert ran("help", *command).output == done.output


def test_help_of_what_there_is_not_names_what_there_is() -> None:
    done = ran("help", "keys", "make")
    assert done.exit_code == 2 and "there are create, " in done.stderr
    assert ran("help", "ls", "x").exit_code == 2


def test_the_version_is_one_line() -> None:
    from importlib.metadata import version

    for option in ("--version", "-V"):
        assert ran(option).output == f"pilotlight {version('pilotlight')}\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return prepared(load(state_dir=tmp_path / "state"))


def test_a_call_sends_its_query_and_body_and_returns_what_was_said(settings: Settings) -> None:
    calls: list[Call] = []

    def answers(call: Call) -> Said:
        calls.append(call)
        return Said({"data": []})

    api = answered(settings, answers)
    assert api.call("GET", "/usage", params={"endpoint": "a b", "limit": 3}) == {"data": []}
    assert api.call("PUT", "/endpoints/ü", json={"x": 1}) == {"data": []}
    assert [(call.method, call.path) for call in calls] == [
        ("GET", "/api/v1/usage?endpoint=a+b&limit=3"),
        ("PUT", "/api/v1/endpoints/%C3%BC"),
    ]
    assert calls[1].json == {"x": 1} and calls[1].headers["authorization"].startswith("Bearer pl_")


def test_a_refusal_is_the_servers_message_and_a_broken_answer_is_none(settings: Settings) -> None:
    refused = answered(settings, lambda call: Said({"error": {"message": "no such endpoint"}}, 404))
    with pytest.raises(ApiError, match="no such endpoint") as told:
        refused.call("GET", "/endpoints/x")
    assert told.value.status == 404 and not isinstance(told.value, Unreachable)
    for said in (
        Said(b'{"da', headers={"content-length": "100"}),
        Said(b"<html>"),
        Said(b"zz\r\n", headers={"transfer-encoding": "chunked"}),
    ):
        with pytest.raises(Unreachable, match="is `pilotlight up` running"):
            answered(settings, lambda call, said=said: said).call("GET", "/status")  # type: ignore[misc]
    with pytest.raises(ApiError, match="HTTP 502: bad gateway"):
        answered(settings, lambda call: Said(b"bad gateway", 502)).call("GET", "/status")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://", "nowhere", "https://[::1", "https://h:port"])
def test_a_url_that_is_none_of_ours_is_damage(settings: Settings, url: str) -> None:
    settings.paths.client.write_text(json.dumps({"url": url}))
    with pytest.raises(Unreachable, match="which writes those files anew"):
        Api(settings.paths)


def test_logging_brings_nothing_that_no_service_uses_and_who_wants_it_has_it() -> None:
    look = (
        "import pilotlight, structlog, sys, pilotlight.settings\n"
        "print({'rich', 'greenlet', 'importlib.metadata', 'email.message'} & set(sys.modules))\n"
        "import rich, greenlet, importlib.metadata\n"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
