"""What Postgres lets into a column is what the code may write there: a closed list that is told twice is told alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from router.finish import Finish
from router.spool.record import CountSource
from runtime.tasks import Task
from runtime.wire import ReplicaState, Rung, Zero

MIGRATIONS = Path(__file__).parents[2] / "pilotlight" / "database" / "migrations"
TABLE = re.compile(r"(?:CREATE|ALTER) TABLE (?:IF NOT EXISTS )?(\w+)(.*?);", re.S)
LIST = re.compile(r"CHECK \((\w+) IN \(([^)]*)\)\)")
CODE = {
    ("revisions", "task"): Task,
    ("revisions", "zero"): Zero,
    ("replicas", "state"): ReplicaState,
    ("cold_starts", "rung"): Rung,
    ("usage", "finish"): Finish,
    ("usage", "count_source"): CountSource,
}


def allowed() -> dict[tuple[str, str], set[str]]:
    """By table and column: the list of the last migration that has one."""
    found: dict[tuple[str, str], set[str]] = {}
    for file in sorted(MIGRATIONS.glob("*.sql")):
        for table, body in TABLE.findall(re.sub(r"--.*", "", file.read_text())):
            for column, values in LIST.findall(body):
                found[table, column] = set(re.findall(r"'([^']*)'", values))
    return found


@pytest.mark.parametrize("place", CODE, ids=".".join)
def test_a_list_is_told_alike(place: tuple[str, str]) -> None:
    assert allowed()[place] == set(get_args(CODE[place]))
