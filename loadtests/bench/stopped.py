"""SIGSTOP of each process, and what callers see: the table that `tests/integration/killed/test_stopped.py` makes of its
own cases.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEST = "tests/integration/killed/test_stopped.py"
LONGEST_SECONDS = 600.0


def measure() -> dict[str, Any]:
    """Raises RuntimeError where a case fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", TEST]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith("| ")
    ]
    if done.returncode or len(rows) < 2:
        raise RuntimeError(f"{TEST} ended with {done.returncode}: {done.stdout[-1000:]}")
    return {"tables": {"Default settings, two router workers": rows}}
