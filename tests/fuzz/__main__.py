"""`python -m tests.fuzz NAME… --seconds N`: fuzz these parsers, one after the other, by coverage; `all` means every
one.

    python -m tests.fuzz all --seconds 300
    python -m tests.fuzz client_http --input crash-0123…        one input again, in this process, with its traceback

The fuzzer, atheris (libFuzzer, with our Python instrumented), lives in an environment of its own that is kept between
runs. What it finds is left in `--folder`: inputs that reached new code under NAME/, those that broke something beside
them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from importlib import import_module
from pathlib import Path

from pilotlight.cli.bench.peers import python_with

FUZZER = "atheris==3.0.0"
HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def names() -> list[str]:
    """Every parser there is a target for."""
    return sorted(
        file.stem for file in HERE.glob("*.py") if file.stem not in ("__init__", "__main__", "atheris_run", "wires")
    )


def fuzz(name: str, *, seconds: int, folder: Path) -> int:
    """Fuzz one target for so long. Returns 0 where nothing was found."""
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(import_module(f"tests.fuzz.{name}").SEEDS):
        (corpus / f"seed-{number}").write_bytes(seed)
    path = os.pathsep.join((str(ROOT), sysconfig.get_path("purelib")))
    command = [str(python_with(FUZZER)), "-m", "tests.fuzz.atheris_run", name, str(corpus)]
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={folder}/{name}-",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    print(f"{name}: {seconds} s", flush=True)
    return subprocess.run(
        [*command, *options], env={**os.environ, "PYTHONPATH": path}, cwd=ROOT, check=False
    ).returncode


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz parsers of bytes from outside.")
    arguments.add_argument(
        "names", nargs="+", choices=[*names(), "all"], metavar="NAME", help=", ".join(names()) + ", or all"
    )
    arguments.add_argument("--seconds", type=int, default=60, help="for each")
    arguments.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "pilotlight-fuzz", help="where findings are left"
    )
    arguments.add_argument("--input", type=Path, help="run this one input again instead")
    given = arguments.parse_args()
    chosen = names() if "all" in given.names else given.names
    if given.input is not None:
        for name in chosen:
            import_module(f"tests.fuzz.{name}").target(given.input.read_bytes())
        return 0
    broken = [name for name in chosen if fuzz(name, seconds=given.seconds, folder=given.folder.absolute())]
    print(
        f"{len(chosen)} targets, {given.seconds} s each: "
        + (f"something was found in {', '.join(broken)}" if broken else "nothing was found")
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
