"""Fill `.venv` from the hash-locked requirements: `make setup`. Standard library only, it runs before anything is
installed.

    python3 infra/setup.py          install what is missing (repeating it costs a hash of a few files)
    python3 infra/setup.py lock     write requirements/*.txt anew from pyproject.toml

It must survive being interrupted anywhere. Packages are linked from uv's cache, and the stamp that says "done" is
written last. So the next run goes on where this one stopped. It picks the `gpu` extra where an NVIDIA driver answers,
else `cpu`; PILOTLIGHT_EXTRA=cpu|gpu|none overrides. Wheels come from wherever pip is configured to find them. Where pip
has no place for the CPU build of torch, that comes from PyTorch's CPU index.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCKS = ROOT / "requirements"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORM = "x86_64-manylinux_2_35"  # as Ubuntu 22.04; vLLM's own wheels ask for nearly as much
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
if TYPE_CHECKING:
    from pilotlight import wheels
else:  # by its file: the package it lies in needs what is only about to be installed
    _spec = importlib.util.spec_from_file_location("wheels", ROOT / "pilotlight" / "wheels.py")
    wheels = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(wheels)
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> int:
    if f"{sys.version_info[0]}.{sys.version_info[1]}" not in PYTHONS:
        return fail(
            f"Python {sys.version.split()[0]}: Pilotlight is locked for {', '.join(PYTHONS)} (make setup PYTHON=python3.12)."
        )
    if sys.argv[1:] == ["lock"]:
        make_uv()
        lock()
        return 0
    extra = pick_extra()
    stamp = VENV / "pilotlight-setup.stamp"
    digest = fingerprint(extra)
    if not (stamp.is_file() and stamp.read_text() == digest and UV.exists() and PYTHON.exists()):
        say(f"setting up .venv ({extra}); an interrupted set-up resumes here")
        make_uv()
        install(extra)
        stamp.write_text(digest)
        say("done; next: make demo, or `. .venv/bin/activate` and `pilotlight up`")
    return system_libraries(extra)


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> int:
    say(text)
    return 1


def fingerprint(extra: str) -> str:
    """SHA-256 over everything that decides what `.venv` holds."""
    parts = [extra.encode(), sys.version.encode(), str(ROOT).encode()]
    parts += [path.read_bytes() for path in (ROOT / "pyproject.toml", *sorted(LOCKS.glob("*.txt")))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def pick_extra() -> str:
    wanted = os.environ.get("PILOTLIGHT_EXTRA")
    if wanted:
        if wanted not in ("cpu", "gpu", "none"):
            sys.exit(fail(f"PILOTLIGHT_EXTRA={wanted}: it is cpu, gpu or none."))
        return wanted
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "cpu"
    return "gpu" if driver.cuInit(0) == 0 else "cpu"


def make_uv() -> None:
    """A virtual environment holding uv, from the hash-locked uv.txt. One that is not whole is made anew. Raises
    CalledProcessError.
    """
    if not is_complete(VENV):
        if importlib.util.find_spec("ensurepip") is None:  # Debian and Ubuntu have it apart
            version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            sys.exit(
                fail(
                    f"this Python makes no virtual environments, it has no ensurepip. Run: sudo apt-get install -y {version}-venv"
                )
            )
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    if not UV.exists():
        quiet = ["--quiet", "--disable-pip-version-check"]
        run(
            [
                PYTHON,
                "-P",
                "-m",
                "pip",
                "install",
                *quiet,
                "--only-binary",
                ":all:",
                "--require-hashes",
                "-r",
                LOCKS / "uv.txt",
            ]
        )


def is_complete(folder: Path) -> bool:
    """Whether a virtual environment was made to its end, here, and by this Python: a checkout that was moved takes one
    along that leads back.
    """
    activate = folder / "bin" / "activate"
    asked: list[str | Path] = [folder / "bin" / "python", "-P", "-c", "import pip, sys; print(sys.version)"]
    try:
        if str(folder) not in activate.read_text():
            return False
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == sys.version
    except (OSError, subprocess.CalledProcessError):
        return False


def install(extra: str) -> None:
    """Everything by hash and as wheels, what builds our own package too: nothing that is not locked is executed."""
    files = [argument for name in locks_of(extra) for argument in ("-r", LOCKS / f"{name}.txt")]
    uv(
        [
            "pip",
            "install",
            "--python",
            PYTHON,
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--no-deps",
            *files,
            *sources(extra),
        ]
    )
    uv(["pip", "install", "--quiet", "--python", PYTHON, "--no-deps", "--no-build-isolation", "--no-index", "-e", ROOT])
    compile_modules()


def locks_of(extra: str) -> list[str]:
    """Names of the lock files of an extra, for every Python that we run on."""
    return ["uv", "build", "base", "dev"] + {"cpu": ["cpu", "torch-cpu"], "gpu": ["gpu"], "none": []}[extra]


def compile_modules() -> None:
    """Once, for all processes: one that compiles its modules at every start, as where .venv is read-only, is 3 MB
    larger for life.

    The engine's tens of thousands are left to the first standby, which needs a tenth of them. What is not Python 3
    (templates) is passed over.
    """
    modules = sysconfig.get_path("purelib", "venv", vars={"base": str(VENV)})
    command: list[str | Path] = [
        PYTHON,
        "-P",
        "-m",
        "compileall",
        "-qq",
        "-j",
        "0",
        "-x",
        r"/(torch|vllm|transformers|triton)/",
        modules,
    ]
    subprocess.run(command, check=False)


def lock() -> None:
    """One hash-locked file an extra, good for every Python in PYTHONS; they agree with each other, and are proved: each
    has its wheels.
    """
    common = [
        "--quiet",
        "--universal",
        "--generate-hashes",
        "--no-annotate",
        "--no-emit-index-url",
        "--no-emit-find-links",
    ]
    common += [
        "--python-version",
        PYTHONS[0],
        "--custom-compile-command",
        "make lock",
        "--override",
        str(LOCKS / "overrides.txt"),
    ]
    project = ROOT / "pyproject.toml"
    plan: dict[str, tuple[list[str], list[object]]] = {  # constrained by, and from what; in this order
        "cpu": ([], ["--override", LOCKS / "overrides-cpu.txt", "--extra", "cpu", LOCKS / "cpu.in", project]),
        "base": (["cpu"], [project]),
        "dev": (["cpu", "base"], ["--extra", "dev", project]),
        "gpu": (["base", "dev"], ["--extra", "gpu", project]),
        "build": (["base", "dev"], [LOCKS / "build.in"]),
    }
    for name, (constraints, inputs) in plan.items():
        within = [argument for constraint in constraints for argument in ("-c", LOCKS / f"{constraint}.txt")]
        uv(["pip", "compile", *common, *within, *the_index(), "-o", LOCKS / f"{name}.txt", *inputs])
    for python in PYTHONS:
        for extra in ("cpu", "gpu"):
            prove(extra, python)


def prove(extra: str, python: str) -> None:
    """There is a wheel with its hash for everything in an extra's locks, for this Python on a Linux of today. Raises
    CalledProcessError.

    Nothing is installed, and nothing of this machine counts: neither its Python nor its device. PyTorch's CPU wheels
    are left out where its index is not in reach.
    """
    files = [argument for name in locks_of(extra) if name != "torch-cpu" for argument in ("-r", LOCKS / f"{name}.txt")]
    target = ["--target", VENV / "none", "--python-version", python, "--python-platform", PLATFORM]
    strict = ["--only-binary", ":all:", "--require-hashes", "--no-deps"]
    uv(["pip", "install", "--dry-run", "--quiet", *target, *strict, *files, *the_index()])
    say(f"{extra}: a wheel for everything on Python {python}, {PLATFORM}")


def sources(extra: str) -> list[str]:
    """Where to look, as uv's arguments. Folders of wheels serve the CPU build alone: one of torch in them would be
    taken for CUDA's.
    """
    links = ["find-links"] if extra == "cpu" else []
    given = wheels.arguments(wheels.configuration(PYTHON), also=[*links, "extra-index-url"])
    if extra == "cpu" and "--find-links" not in given:
        given += [
            "--extra-index-url",
            TORCH_CPU_INDEX,
            *([] if "--index-strategy" in given else ["--index-strategy", "unsafe-best-match"]),
        ]
    return given


def the_index() -> list[str]:
    """What a lock is made of: the one index, for what lies beside it on this machine is for this machine's Python."""
    return wheels.arguments(wheels.configuration(PYTHON), also=())


def uv(arguments: Sequence[object]) -> None:
    run([UV, *arguments], environ=wheels.environment(wheels.configuration(PYTHON), os.environ))


def system_libraries(extra: str) -> int:
    """vLLM's CPU build links libnuma. Install it where that is allowed, else name the command."""
    if extra != "cpu":
        return 0
    try:
        ctypes.CDLL("libnuma.so.1")
        return 0
    except OSError:
        pass
    command = ["apt-get", "install", "-y", "-q", "libnuma1"]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing libnuma1")
        subprocess.run(["apt-get", "update", "-q"], stdout=subprocess.DEVNULL, check=False)
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0:
            return 0
    return fail(
        f"libnuma.so.1 is missing and vLLM's CPU build needs it. Run: sudo {' '.join(command)} (or your system's numactl package)"
    )


def run(command: Sequence[object], *, environ: Mapping[str, str] | None = None) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, env=environ)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        if error.output:  # of what the standard library ran for us
            say(error.output.decode(errors="replace").strip())
        sys.exit(fail(f"this failed (see above), and running it again resumes: {' '.join(map(str, error.cmd))}"))
    except KeyboardInterrupt:
        sys.exit(fail("interrupted; running it again resumes"))
