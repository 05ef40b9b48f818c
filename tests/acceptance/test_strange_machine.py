"""The README's first minutes on a machine that was not made for us: a plain user without a home, and a folder full of
traps.

What a trap does is write a file; none may be there at the end. Where this checkout is closed to other users, as below a
home, it is skipped.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.ports import free_port
from pilotlight.settings import Paths
from tests.integration.system import MODEL, QUESTION, wait_until

PROGRAM = Path(sys.executable).with_name("pilotlight")
NOBODY = pwd.getpwnam("nobody").pw_uid  # initdb refuses a number without a name, which is told in a line
MODULES = [
    *("router", "activator", "runtime", "snapshots", "pilotlight"),
    *("queue", "types", "json", "asyncio", "sitecustomize"),
    *("vllm", "torch", "structlog"),
]


def as_nobody(command: list[str], folder: Path, environ: dict[str, str], **more: object) -> subprocess.Popen[str]:
    plumbing: dict[str, object] = {
        "cwd": folder,
        "env": environ,
        "user": NOBODY,
        "group": NOBODY,
        "extra_groups": [],
        "umask": 0o777,
    }
    return subprocess.Popen(command, text=True, **(plumbing | more))  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def places() -> Iterator[tuple[Path, Path]]:
    """(a folder of traps, a place for the state folder with a long path), both the plain user's."""
    made = Path(tempfile.mkdtemp(prefix="pl-strange-", dir="/tmp"))
    made.chmod(0o755)
    traps, home = made / "traps", made / "a-home-with-a-long-name-as-universities-have"
    for folder in (traps, home):
        folder.mkdir()
    for name in MODULES:
        (traps / f"{name}.py").write_text(
            f"open({str(home / 'executed')!r}, 'a').write({name!r}); raise SystemExit('a trap')"
        )
    (traps / "pilotlight.toml").write_text("[router]\nport = 1\n")
    (traps / "pilotlight.toml").chmod(0o666)
    for path in (traps, home, *traps.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    yield traps, home
    shutil.rmtree(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_plain_user_among_traps_is_served(places: tuple[Path, Path]) -> None:
    traps, home = places
    state, port = home / "state", free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "PILOTLIGHT_STATE_DIR": str(state),
        "PILOTLIGHT_ROUTER__PORT": str(port),
        "VLLM_API_KEY": "x",
        "VLLM_LOGGING_CONFIG_PATH": "/nonexistent",
        "OMP_NUM_THREADS": "77",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "ALL_PROXY": "socks5://127.0.0.1:1",
        "PGSSLMODE": "verify-full",
        "PGHOST": "nowhere.example",
        "LC_ALL": "tlh_KL.ISO-8859-1",
        "PYTHONIOENCODING": "latin-1",
    }
    try:
        able = (
            as_nobody(
                [str(PROGRAM), "--help"], traps, environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ).wait(60)
            == 0
        )
    except PermissionError:
        able = False
    if not able:
        pytest.skip("this checkout, or its Python, is closed to other users")

    def typed(*arguments: str) -> str:
        done = as_nobody([str(PROGRAM), *arguments], traps, environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, said = done.communicate(timeout=150)
        assert done.returncode == 0, f"{arguments}\n{out}\n{said}"
        return out

    with (home.parent / "up.out").open("w+") as printed:
        up = as_nobody([str(PROGRAM), "up"], traps, environ, stdout=printed, stderr=printed)
        try:
            paths = Paths(state)
            assert paths.sockets != paths.run
            wait_until(lambda: paths.client.exists() or up.poll() is not None, 90, "the router answers")
            assert up.poll() is None, Path(printed.name).read_text()
            typed("deploy", "demo", "--model", str(MODEL))
            assert "serverless platform" in typed("run", "demo", QUESTION)
            assert "demo" in typed("ls")
            typed("doctor")
            up.send_signal(signal.SIGTERM)
            assert up.wait(90) == 0
        finally:
            if up.poll() is None:
                up.terminate()
                up.wait(90)
    assert not (home / "executed").exists(), (home / "executed").read_text()
    assert not paths.sockets.exists()
    assert as_nobody(["rm", "-rf", str(state)], traps, environ).wait(60) == 0
    assert not state.exists()
