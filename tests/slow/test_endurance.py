"""What wakes in a row are held to: all of them made, nothing left by any name, and a standby that is still the same
process.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.bench import inventory
from loadtests.bench.endurance import targets
from loadtests.bench.inventory import SHARED_MEMORY, Inventory, Memory
from pilotlight.cli.bench import coldstart
from runtime.reap import Identity


def held(*standbys: Identity) -> Inventory:
    return Inventory(Counter(), Counter(), frozenset(), frozenset(), Memory(1, 1), frozenset(standbys))


def test_a_standby_that_was_replaced_is_told() -> None:
    first, second = Identity(7, 100), Identity(7, 200)
    assert held(first).left_since(held(first)) == {}
    assert held(second).left_since(held(first)) == {"standbys that come or go": [7, 7]}, "a pid alone is no identity"
    assert held().left_since(held(first)), "and so is one that is gone"


@pytest.fixture
def segment() -> Iterator[Path]:
    path = SHARED_MEMORY / f"psm_test_{os.getpid()}"
    path.write_bytes(bytes(mmap.PAGESIZE))
    yield path
    path.unlink()


CODE = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
    if sys.argv[2] == "mapped":
        file.close()
    print(flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["mapped", "opened"])
def test_shared_memory_counts_by_whatever_name_unless_somebody_else_holds_it(segment: Path, how: str) -> None:
    assert segment.name in inventory.shared_memory([]), "left behind by nobody knows whom"
    with subprocess.Popen(
        [sys.executable, "-c", CODE, str(segment), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin and other.stdout and other.stdout.readline()
        assert segment.name not in inventory.shared_memory([])
        assert segment.name in inventory.shared_memory([other.pid])
        other.stdin.close()


@pytest.mark.parametrize(
    ("title", "role"),
    [
        ("/opt/bin/postgres -D /var/lib/data --max_worker_processes=0", "postgres"),
        ("postgres: checkpointer ", "postgres process"),
        ("postgres: pilotlight postgres [local] idle", "postgres backend"),
        ("postgres: pilotlight postgres 127.0.0.1(51234) idle in transaction", "postgres backend"),
        ("postgres: autovacuum worker postgres", "postgres worker"),
        ("", ""),
    ],
)
def test_of_postgres_its_own_processes_are_told_from_those_that_come_and_go(
    title: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "_command_line", lambda pid: title)
    assert inventory.postgres_role(1) == role


MADE: dict[str, Any] = {
    **coldstart.percentiles([0.2]),
    "wakes": 200,
    "failures": [],
    "left": {},
    "standby_growth_bytes": 0,
}


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, []),
        ({"wakes": 199}, ["wakes made ≥ 200"]),
        ({"left": {"sockets": ["s"]}}, ["processes, sockets, shared memory, descriptors left"]),
        (
            {"left": None, "standby_growth_bytes": None},
            ["processes, sockets, shared memory, descriptors left", "growth of the standby ≤ 4 MB"],
        ),
    ],
)
def test_what_was_not_made_or_not_looked_at_is_missed(change: dict[str, Any], missed: list[str]) -> None:
    found = {name: value for name, value in (MADE | change).items() if value is not None}
    assert [target["what"] for target in targets(found, 200) if not target["met"]] == missed


class Status:
    """An endpoint at zero, and how many standbys are ready at each look."""

    def __init__(self, *standbys: int) -> None:
        self._standbys = list(standbys)

    def call(self, method: str, path: str) -> dict[str, Any]:
        ready = self._standbys.pop(0) if len(self._standbys) > 1 else self._standbys[0]
        return {"endpoints": [], "nodes": [{"standbys_ready": ready}]}


def test_a_standby_that_stays_is_no_start_from_staged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coldstart, "STANDBY_SECONDS", 0.0)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    stays: Any = Status(1)
    with pytest.raises(
        coldstart.BenchFailed,
        match='set PILOTLIGHT_RUNTIME__STANDBYS=0, or deploy every endpoint with zero = "staged"',
    ):
        coldstart.until_rest(stays, "e", "staged")
    monkeypatch.setattr(coldstart, "STANDBY_SECONDS", 60.0)
    goes: Any = Status(1, 1, 0)
    coldstart.until_rest(goes, "e", "staged")
