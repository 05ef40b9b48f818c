"""Fill `.venv` from the hash-locked requirements: `make setup`. Standard library only, it runs before anything is installed.

    python3 infra/setup.py          install what is missing (repeating it costs a hash of a few files)
    python3 infra/setup.py lock     write requirements/*.txt anew from pyproject.toml

It must survive being interrupted anywhere: packages are linked from uv's cache, and the stamp that says "done" is
written last, so the next run goes on where this one stopped. It picks the `gpu` extra where an NVIDIA driver answers,
else `cpu`; PILOTLIGHT_EXTRA=cpu|gpu|none overrides. Wheels come from wherever pip is configured to find them; the CPU
build of torch, where pip knows no place of its own for it, from PyTorch's CPU index.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCKS = ROOT / "requirements"
LOCKED_FOR = (3, 11)
UV = VENV / "bin" / "uv"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> int:
    if sys.version_info < (3, 11):
        return fail(f"Python {sys.version.split()[0]} is too old: Pilotlight needs 3.11 or newer (make setup PYTHON=python3.12).")
    if sys.argv[1:] == ["lock"]:
        make_uv()
        lock(LOCKS)
        return 0
    extra = pick_extra()
    stamp = VENV / "pilotlight-setup.stamp"
    digest = fingerprint(extra)
    if not (stamp.is_file() and stamp.read_text() == digest and UV.exists()):
        say(f"setting up .venv ({extra}); an interrupted set-up resumes here")
        make_uv()
        install(extra)
        stamp.write_text(digest)
        say("done")
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
    """A virtual environment holding uv, from the hash-locked uv.txt. Raises CalledProcessError when pip fails."""
    if not UV.exists():
        if not (VENV / "bin" / "python").exists():
            venv.create(VENV, with_pip=True)
        run(
            [
                VENV / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--require-hashes",
                "-r",
                LOCKS / "uv.txt",
            ]
        )


def install(extra: str) -> None:
    locks = LOCKS
    if sys.version_info[:2] != LOCKED_FOR:
        locks = VENV / "lock"
        locks.mkdir(exist_ok=True)
        say(f"the locks are made for Python {'.'.join(map(str, LOCKED_FOR))}; resolving for {sys.version.split()[0]} into {locks}")
        lock(locks, only=extra)
    names = ["uv", "base", "dev"] + ([extra] if extra != "none" else [])
    files = [argument for name in names for argument in ("-r", str((LOCKS if name == "uv" else locks) / f"{name}.txt"))]
    run([UV, "pip", "install", "--python", VENV / "bin" / "python", "--require-hashes", "--no-deps", *files, *sources(extra)])
    run([UV, "pip", "install", "--quiet", "--python", VENV / "bin" / "python", "--no-deps", "-e", ROOT])
    compile_modules()


def compile_modules() -> None:
    """Once, for all processes: one that compiles its modules at every start, as where .venv is read-only, is 3 MB larger for life.

    The engine's tens of thousands are left to the first standby, which needs a tenth of them. What is no Python 3 (templates) is passed over.
    """
    modules = sysconfig.get_path("purelib", "venv", vars={"base": str(VENV)})
    command = [VENV / "bin" / "python", "-m", "compileall", "-qq", "-j", "0", "-x", r"/(torch|vllm|transformers|triton)/", modules]
    subprocess.run(command, check=False)


def lock(folder: Path, only: str = "cpu gpu") -> None:
    """One hash-locked file an extra; they agree with each other, since each is constrained by the ones before."""
    done: list[str] = []
    for name in ("cpu", "base", "dev", "gpu"):
        if name in ("cpu", "gpu") and name not in only:
            continue
        target = folder / f"{name}.txt"
        extras = [] if name == "base" else ["--extra", name]
        constraints = [argument for file in done if not (name == "gpu" and file.endswith("cpu.txt")) for argument in ("-c", file)]
        run(
            [
                UV,
                "pip",
                "compile",
                "--quiet",
                "--generate-hashes",
                "--no-annotate",
                "--no-emit-index-url",
                "--no-emit-find-links",
                "--python-version",
                ".".join(map(str, sys.version_info[:2])),
                "--python-platform",
                "x86_64-manylinux_2_28",
                "--custom-compile-command",
                "make lock",
                "--override",
                LOCKS / "overrides.txt",
                *extras,
                *constraints,
                *sources(name),
                "-o",
                target,
                ROOT / "pyproject.toml",
            ]
        )
        done.append(str(target))


def sources(extra: str) -> list[str]:
    """Where pip is configured to find wheels, as uv's arguments (uv does not read pip's configuration)."""
    shown = subprocess.run([VENV / "bin" / "python", "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found: dict[str, str] = {}
    for line in shown.stdout.splitlines():
        key, _, value = line.partition("=")
        found[key.split(".", 1)[1].rstrip(".").lstrip(".")] = value.strip("'")
    links = [a for value in found.get("find-links", "").split() for a in ("--find-links", value)]
    indexes = [a for value in found.get("extra-index-url", "").split() if present(value) for a in ("--extra-index-url", value)]
    if found.get("index-url"):
        indexes += ["--index-url", found["index-url"]]
    if extra == "cpu" and not links:
        indexes += ["--extra-index-url", TORCH_CPU_INDEX]
    return [*links, *indexes, *(["--index-strategy", "unsafe-best-match"] if indexes else [])]


def present(url: str) -> bool:
    return not url.startswith("file://") or Path(url.removeprefix("file://")).is_dir()


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
    return fail(f"libnuma.so.1 is missing and vLLM's CPU build needs it. Run: sudo {' '.join(command)} (or your system's numactl package)")


def run(command: list[object]) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(fail(f"this failed (see above), and running it again resumes: {' '.join(error.cmd)}"))
    except KeyboardInterrupt:
        sys.exit(fail("interrupted; running it again resumes"))
