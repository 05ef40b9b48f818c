"""The judge of the torture sees each kind of wrong row: what cannot fail proves nothing."""

from __future__ import annotations

from pathlib import Path

from loadtests.torture import oracle
from loadtests.torture.judge import Row, judge
from loadtests.torture.oracle import Log, Made, Work

MADE = Work("r1", [(1.0, 7, 2), (2.0, 0, 2), (9.0, 0, 2)])


def row(input: int = 7, output: int = 6, *, source: str = "engine", event_id: str = "a", replica: str = "r1") -> Row:
    return Row(event_id, replica, input, output, source, "complete", True, 0)


def faults(*rows: Row, killed: dict[str, float] | None = None, seen: tuple[str, ...] = ()) -> int:
    return len(judge(rows, {"a": [MADE]}, seen=seen, killed=killed or {}).faults)


def test_a_row_that_is_what_was_made_is_right() -> None:
    assert faults(row()) == 0
    assert faults(row(), row(0, 0, event_id="b", source="none"), seen=("b",)) == 0


def test_what_is_lost_double_or_miscounted_is_found() -> None:
    assert faults() == 1
    assert faults(row(), row()) == 1
    assert faults(row(), seen=("b",)) == 1
    assert faults(row(output=5)) == faults(row(output=7)) == faults(row(input=14)) == 1
    assert faults(row(), row(event_id="b")) == 1, "nobody made what b is billed"


def test_who_was_at_a_killed_replica_is_billed_a_last_count_that_says_so() -> None:
    killed = {"r1": 5.0}
    assert faults(row(output=4, source="last_count"), killed=killed) == 0
    assert faults(row(output=6, source="last_count"), killed=killed) == 0
    assert faults(row(output=2, source="last_count"), killed=killed) == 1, "older than its last second"
    assert faults(row(output=7, source="last_count"), killed=killed) == 1, "more than was made"
    assert faults(row(output=4, source="journal"), killed=killed) == 1, "and not marked"


def test_what_was_made_in_vain_at_a_killed_replica_is_nobodys() -> None:
    twice = {"a": [Work("r0", [(0.5, 7, 3)]), MADE]}
    assert judge([row()], twice, seen=(), killed={"r0": 0.9}).faults == []
    assert len(judge([row(14, 9)], twice, seen=(), killed={"r0": 0.9}).faults) == 1
    assert len(judge([row()], twice, seen=(), killed={}).faults) == 1, "a replica that lives was asked, too"


def test_the_oracle_is_read_as_it_was_written(tmp_path: Path) -> None:
    log = Log(tmp_path, "r1")
    log.step(1.0, [("a", 7, 2), ("b", 3, 1)])
    log.step(2.0, [("a", 0, 1)])
    (work,) = oracle.read(tmp_path)["a"]
    assert work.replica_id == "r1" and work.total == Made(7, 3) and work.until(1.5) == Made(7, 2)
