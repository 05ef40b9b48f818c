"""Rows beside the oracle: nothing lost, nothing double, every row's tokens those that were made. Pure.

A call at a replica that was killed is billed to its last durable count, and marked so. That count is at most
`SLACK_SECONDS` older than the kill. A call whose replica was killed before its answer began is asked again elsewhere:
what was made for it in vain is nobody's. Everybody else is billed what was made, to the token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from loadtests.torture.oracle import Made, Work

SLACK_SECONDS = 3.0  # a count on the disk is two seconds old at most, on a machine that is not busy


class Row(NamedTuple):
    """What a request is billed: its row, with its corrections added."""

    event_id: str
    replica_id: str
    input: int
    output: int
    source: str
    finish: str
    streamed: bool
    cost: int


class Verdict(NamedTuple):
    faults: list[str]
    figures: dict[str, int]


def judge(
    rows: Sequence[Row], made: Mapping[str, list[Work]], *, seen: Iterable[str], killed: Mapping[str, float]
) -> Verdict:
    """`seen`: ids that clients were told; `killed`: when replicas were, monotonic seconds."""
    faults = [
        f"{event_id} has {count} rows" for event_id, count in Counter(row.event_id for row in rows).items() if count > 1
    ]
    by_id = {row.event_id: row for row in rows}
    wanted = set(made) | set(seen)
    faults += [f"{request} was served and has no row" for request in sorted(wanted - by_id.keys())]
    at_killed = again = 0
    for row in rows:
        works = made.get(row.event_id, [])
        if len(works) > 1:
            again += 1
            works = [work for work in works if work.replica_id == row.replica_id or work.replica_id not in killed]
        moments = [killed[work.replica_id] for work in works if work.replica_id in killed]
        at_killed += bool(moments)
        faults += _tokens(row, works, min(moments) if moments else None)
    sources = Counter(row.source for row in rows)
    figures = {
        "requests": len(wanted | by_id.keys()),
        "rows": len(rows),
        "lost": len(wanted - by_id.keys()),
        "double": len(rows) - len(by_id),
    }
    figures |= {
        "at a killed replica": at_killed,
        "asked again elsewhere": again,
        "output tokens made": sum(work.total.output for works in made.values() for work in works),
    }
    figures |= {"output tokens billed": sum(row.output for row in rows), "wrong": len(faults)}
    return Verdict(faults, figures | {f"counted by {source}": count for source, count in sorted(sources.items())})


def _tokens(row: Row, works: Sequence[Work], killed_at: float | None) -> list[str]:
    billed = Made(row.input, row.output)
    total = _sum(work.total for work in works)
    if billed == total:
        return []
    if killed_at is None:
        return [
            f"{row.event_id} ({row.finish}, counted by {row.source}) made {tuple(total)} and is billed {tuple(billed)}"
        ]
    least = _sum(work.until(killed_at - SLACK_SECONDS) for work in works)
    between = least.input <= billed.input <= total.input and least.output <= billed.output <= total.output
    if not between:
        return [
            f"{row.event_id}, at a killed replica, is billed {tuple(billed)}: not from {tuple(least)} to {tuple(total)}"
        ]
    if row.source in ("engine", "journal"):
        return [
            f"{row.event_id}, at a killed replica, is billed {tuple(billed)} of {tuple(total)}, and says {row.source}"
        ]
    return []


def _sum(parts: Iterable[Made]) -> Made:
    found = list(parts)
    return Made(sum(part.input for part in found), sum(part.output for part in found))
