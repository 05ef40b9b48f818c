"""`pilotlight doctor`: everything Pilotlight needs of this machine, looked at one by one; nothing is changed, nothing
is left.

The checks are in `checks.py` and `clock.py` (this machine) and `state_checks.py` (the state folder and what it serves).
A check that crashes is a finding of its own, not the end of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from pilotlight.cli import shares
from pilotlight.cli.doctor import checks, state_checks
from pilotlight.cli.doctor.clock import clock
from pilotlight.cli.findings import Finding
from pilotlight.cli.options import FAILED, OK, explain_os_error, print_json, say
from pilotlight.cli.postgres_check import postgres
from pilotlight.cli.tables import GREEN, RED, Table, show
from pilotlight.settings import Settings

CHECKS: dict[str, Callable[[Settings], Finding]] = {
    "Python": checks.python,
    "engine": checks.engine,
    "NVIDIA driver": checks.nvidia_driver,
    "libnuma": checks.libnuma,
    "memory": checks.memory,
    "cores": checks.cores,
    "/dev/shm": checks.shared_memory,
    "open files": checks.open_files,
    "clock": clock,
    "state folder": state_checks.folder,
    "disk space": state_checks.disk_space,
    "disk bounds": shares.bounds,
    "disk speed": state_checks.disk_speed,
    "public port": state_checks.public_port,
    "metrics port": state_checks.metrics_port,
    "TLS": state_checks.certificates,
    "Postgres": postgres,
}


def examine(settings: Settings, *, as_json: bool) -> int:
    """Look, tell, and return the exit code."""
    found = {name: looked_at(check, settings) for name, check in CHECKS.items()}
    wrong = sum(not finding.ok for finding in found.values())
    if as_json:
        print_json([{"check": name, **asdict(finding)} for name, finding in found.items()])
        return FAILED if wrong else OK
    rows = Table("check", "", prose="found", paint={"ok": GREEN, "wrong": RED})
    for name, finding in found.items():
        rows.add_row(
            name, "ok" if finding.ok else "wrong", finding.text if finding.ok else f"{finding.text}; {finding.remedy}"
        )
    show(rows)
    say(f"{wrong} of {len(found)} are wrong" if wrong else "all is well")
    return FAILED if wrong else OK


def looked_at(check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    """One check, whatever becomes of it."""
    try:
        return check(settings)
    except OSError as error:
        found, _, remedy = explain_os_error(error).partition("; ")
        return Finding(False, found, remedy or "correct that, or tell us")
    except Exception as error:
        return Finding(False, f"{type(error).__name__}: {error}", "correct that, or tell us")
