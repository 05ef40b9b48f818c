"""The fuzzer's own process: `python -m tests.fuzz.atheris_run NAME CORPUS OPTION…`, in the environment that has atheris."""

from __future__ import annotations

import sys
from importlib import import_module

import atheris

OURS = ["router", "activator", "runtime", "snapshots", "pilotlight", "tests.fuzz"]


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=OURS):
        target = import_module(f"tests.fuzz.{name}").target
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
