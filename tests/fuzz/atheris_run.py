"""The fuzzer's own process: `python -m tests.fuzz.atheris_run NAME CORPUS OPTION…`, in the environment that has
atheris.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module

import atheris
import structlog

OURS = ["router", "activator", "runtime", "snapshots", "pilotlight", "tests.fuzz"]


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=OURS):
        target = import_module(f"tests.fuzz.{name}").target
    # Refusals are logged, thousands a second. Here alone: a target is imported by tests too, whose logs are looked at.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
