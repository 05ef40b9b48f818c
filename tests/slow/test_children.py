"""What a child is given: of an environment full of traps only what the machine is, and never the working folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from pilotlight import children

ROOT = Path(__file__).parents[2]
PACKAGES = ("pilotlight", "router", "activator", "runtime", "snapshots")
TRAPS = {
    "VLLM_API_KEY": "x",
    "VLLM_LOGGING_CONFIG_PATH": "/nonexistent",
    "VLLM_CPU_KVCACHE_SPACE": "40",
    "OMP_NUM_THREADS": "64",
    "HF_TOKEN": "hf_secret",
    "GITHUB_TOKEN": "secret",
    "PYTHONPATH": "/tmp/trap",
    "PYTHONHOME": "/tmp/trap",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LD_PRELOAD": "/tmp/trap.so",
    "DATABASE_URL": "postgresql://u:p@h/d",
    "PGSSLMODE": "verify-full",
    "LC_ALL": "tlh_KL.ISO-8859-1",
    "BASH_FUNC_ls%%": "() { :; }",
}
OURS = {
    "PATH": "/bin",
    "HOME": "/",
    "AWS_ACCESS_KEY_ID": "id",
    "PILOTLIGHT_ROUTER__PORT": "1",
    "HTTPS_PROXY": "http://p",
    "PGPASSWORD": "p",
}


def test_ours_get_what_the_machine_is_and_how_stores_are_reached() -> None:
    found = children.environment(TRAPS | OURS)
    assert found == OURS | children.ALWAYS


def test_an_engine_gets_no_key_no_way_out_and_folders_of_ours(tmp_path: Path) -> None:
    found = children.engine_environment(TRAPS | OURS | {"PILOTLIGHT_STATE_DIR": "/s"}, cache=tmp_path)
    assert not found.keys() & (
        TRAPS.keys() | {"AWS_ACCESS_KEY_ID", "PILOTLIGHT_ROUTER__PORT", "HTTPS_PROXY", "PGPASSWORD"}
    )
    assert found["PILOTLIGHT_STATE_DIR"] == "/s" and found["HOME"] == "/"
    assert found["TORCHINDUCTOR_CACHE_DIR"].startswith(str(tmp_path)) and found["TMPDIR"].startswith(str(tmp_path))


@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "relative"}, {"HOME": "/nonexistent/home"}])
def test_a_user_without_home_or_name_has_both_in_an_engine(tmp_path: Path, home: dict[str, str]) -> None:
    found = children.engine_environment(home, cache=tmp_path)
    assert found["HOME"] == str(tmp_path)
    assert found["USER"] == found["LOGNAME"] == str(os.geteuid())


def test_an_operator_names_what_else_is_needed(tmp_path: Path) -> None:
    also = children.names(" LD_PRELOAD,NCCL_DEBUG ")
    assert children.environment(TRAPS, also=also)["LD_PRELOAD"] == TRAPS["LD_PRELOAD"]
    assert children.engine_environment(TRAPS, cache=tmp_path, also=also)["LD_PRELOAD"] == TRAPS["LD_PRELOAD"]


def test_nothing_of_the_working_folder_is_imported(tmp_path: Path) -> None:
    """Names of ours and of the standard library, by the child and by a child of the child that knows nothing of
    `-P`.
    """
    for name in ("pilotlight", "router", "queue", "types", "json", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the trap was imported')")
    script = (
        "import sys, subprocess, router; subprocess.run([sys.executable, '-c', 'import queue, router'], check=True)"
    )
    command = [*children.python("")[:2], "-c", script]
    environ = children.environment(os.environ | {"PYTHONPATH": str(tmp_path)})
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_process_is_started_so() -> None:
    """Nobody else names the interpreter for a module of ours, or hands an environment on as it is."""
    careless = re.compile(
        r'sys\.executable, "-m"|env=os\.environ|env=dict\(os\.environ|= os\.environ \||\{\*\*os\.environ'
    )
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for line in file.read_text().splitlines()
        if careless.search(line)
    ]
    assert not found


def test_the_list_is_told_as_it_is() -> None:
    assert json.dumps(sorted(children.MACHINE | children.NETWORK))  # names only
    assert not (children.MACHINE & children.NETWORK)
