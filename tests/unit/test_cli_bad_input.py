"""What is refused on the command line is one line on stderr that says what to do, with its exit code, and no
traceback.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from pilotlight import keys, tls
from pilotlight.cli import main as command_line
from pilotlight.cli.api import Api, Unreachable
from pilotlight.cli.options import explain_os_error
from pilotlight.cli.port_checks import PortTaken, need_port, why_not
from pilotlight.settings import Paths
from tests.fakes_cli import ran

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PILOTLIGHT_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pilotlight", *arguments])
        monkeypatch.setenv("PILOTLIGHT_STATE_DIR", str(tmp_path / "state"))
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        out, said = capfd.readouterr()
        assert "Traceback" not in said
        return int(ended.value.code or 0), out, said

    return run


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ls",), 3, "pilotlight up"),
        (("rm", "x?y"), 2, "not an endpoint's name"),
        (("rm", "../x"), 2, "not an endpoint's name"),
        (("deploy", "x", "--model", "/nowhere"), 3, "pilotlight up"),
        (("deploy", "x", "--model", "/nowhere", "--engine-arg", "nonsense"), 2, "KEY=VALUE"),
        (("apply",), 2, "-f endpoint.toml"),
        (("apply", "-f", "nowhere.toml"), 2, "no such manifest"),
        (("deploy", "x", "--model", "/nowhere", "--idle-timeout", "nan"), 2, "--idle-timeout"),
        (("deploy", "x", "--model", "/nowhere", "--hold-seconds", "inf"), 2, "--hold-seconds"),
        (("deploy", "x", "--model", "/nowhere", "--engine-arg", "x=nan"), 2, "engine_args.x: must be a finite number"),
        (
            ("deploy", "x", "--model", "/nowhere", "--engine-arg", "x=1", "--engine-arg", "x=2"),
            2,
            "--engine-arg x is given twice",
        ),
        (("set", "x", "--engine-arg", "a-b=1", "--engine-arg", "a_b=2"), 2, "a-b and a_b are the same argument"),
        (
            ("deploy", "x", "--model", "/nowhere", "--slots", "4", "--target-concurrency", "5"),
            2,
            "not be more than slots (4)",
        ),
        (
            ("deploy", "x", "--model", "/nowhere", "--task", "classify"),
            2,
            "task: Input should be 'generate', 'embed' or 'score'",
        ),
        (
            ("deploy", "x", "--model", "/nowhere", "--idle-timeout", "soon"),
            2,
            "--idle-timeout 'soon': write a duration such as 90s",
        ),
        (("keys", "create", "x", "--expires-in", "inf"), 2, "--expires-in 'inf': write a duration"),
        (("keys", "create", "x", "--expires-in", "-1"), 2, "--expires-in '-1': write a duration"),
        (("keys", "revoke", "pl_secret"), 2, "begins with key_"),
        (("snapshot", "pack", "/nowhere"), 1, "no such folder"),
        (("snapshot", "pack", "Qwen/Qwen3-0.6B"), 1, "on the hub it is hf://Qwen/Qwen3-0.6B"),
        (("snapshot", "pack", "https://huggingface.co/Qwen/Qwen3-0.6B/tree/main"), 1, "write hf://Qwen/Qwen3-0.6B"),
        (("snapshot", "pack", "huggingface.co/Qwen/Qwen3-0.6B"), 1, "write hf://Qwen/Qwen3-0.6B"),
        (("snapshot", "pack", "s3://models/x"), 1, "pilotlight snapshot pull s3://models/x"),
        (("snapshot", "pack", "https://elsewhere.example/model"), 1, "names no model"),
        (("snapshot", "pack", "pilotlight://other"), 1, "names no model"),
        (("snapshot", "pack", "nowhere/model.gguf"), 1, "llama.cpp"),
        (("snapshot", "pack", __file__), 1, "is a file: give its folder"),
        (("snapshot", "verify", "7db3"), 1, "no snapshot 7db3"),
        (("snapshot", "push", "7db3", "s3://nowhere"), 1, "no snapshot 7db3"),
        (("snapshot", "pull", "s3://nowhere", "7db3"), 2, "not a complete digest"),
        (("snapshot", "synth", "/tmp", "--like", "gpt-9"), 2, "qwen3-0.6b"),
        (("snapshot", "synth", "/tmp"), 1, "is there already"),
        (("usage", "--since", "yesterday"), 2, "10m"),
        (("usage", "--until", "tomorrow"), 2, "10m"),
        (("usage", "export", "--format", "xml"), 2, "csv or jsonl"),
        (("starts", "--since", "1h", "--until", "2h"), 2, "lies before"),
        (("keys", "rotate", "chat", "--grace", "long"), 2, "--grace"),
        (("logs", "chat"), 1, "nothing has run yet"),
        (("logs", "../secrets/admin"), 1, "no log of"),
        (("logs", "chat", "--since", "x"), 2, "10m"),
    ],
)
def test_one_line_says_it(run: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    ended, out, message = run(*arguments)
    assert (ended, out) == (code, "")
    assert said in message
    assert message.startswith("pilotlight: ")
    assert message.count("\n") == 1


def test_a_bad_manifest_names_the_field(run: Run, tmp_path: Path) -> None:
    (tmp_path / "endpoint.toml").write_text('name = "chat"\nmodel = "m"\nslots = 0\n')
    ended, _, said = run("apply", "-f", "endpoint.toml")
    assert ended == 2
    assert said.startswith("pilotlight: endpoint.toml: slots: ")
    assert said.count("\n") == 1


def test_the_state_folder_is_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    for arguments in (("ls",), ("snapshot", "pack", str(tmp_path))):
        ended, _, said = run(*arguments)
        assert ended in (1, 3)
        assert said.count("\n") == 1


def test_a_bad_setting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTLIGHT_ROUTER__PORT", "none")
    ended, _, said = run("ls")
    assert ended == 2
    assert "router.port" in said


def test_usage_takes_a_name_or_a_command(run: Run) -> None:
    for arguments in (
        ("usage",),
        ("usage", "chat"),
        ("usage", "show", "chat"),
        ("usage", "--json"),
        ("usage", "export"),
    ):
        assert run(*arguments)[0] == 3
    assert "export" in run("usage", "--help")[1]


def test_every_command_explains_itself() -> None:
    done = ran("--help")
    assert done.exit_code == 0
    assert "Exit codes: 0 done; 1 it failed" in " ".join(done.output.split())


@pytest.fixture
def installed(tmp_path: Path) -> Paths:
    """The state folder of an installation that has run."""
    paths = Paths(tmp_path / "installed")
    paths.make()
    keys.ensure_admin_key(paths)
    tls.ensure(paths)
    paths.client.write_text(json.dumps({"url": "https://127.0.0.1:1"}))
    return paths


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("client.json", "", "which writes those files anew"),
        ("client.json", "[]", "which writes those files anew"),
        ("client.json", None, "no installation has run"),
        ("ca.pem", "-----BEGIN", "which writes those files anew"),
        ("ca.pem", None, "makes it anew"),
        ("secrets/admin.key", "", "holds no key"),
        ("secrets/admin.key", "pl_\n\x00", "holds no key"),
        ("secrets/admin.key", None, "no installation has run"),
    ],
)
def test_a_half_written_state_folder_is_told(installed: Paths, file: str, content: str | None, said: str) -> None:
    path = installed.state / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(Unreachable, match=said):
        Api(installed)


def test_nobody_answers(installed: Paths) -> None:
    with pytest.raises(Unreachable, match="is `pilotlight up` running"):
        Api(installed).call("GET", "/status")


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port}: another program has it"):
            need_port("127.0.0.1", port)
    assert why_not("127.0.0.1", port) == ""
    assert "no such address" in why_not("192.0.2.1", 8443)
    assert "no address" in why_not("no address at all", 8443)


def test_what_the_kernel_refuses_is_explained() -> None:
    full = explain_os_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"))
    assert full.startswith("/data/x: No space left on device; ")
    assert "free some space" in full
    assert explain_os_error(OSError("odd")) == "odd"
    assert explain_os_error(ssl.SSLError("odd")) != ""
