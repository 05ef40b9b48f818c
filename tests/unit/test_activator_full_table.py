"""The whole table in parts: what is written by hand is what the frames would say, and a router applies it as one
table.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from activator.policy.estimates import PastStart, StartEstimates
from activator.policy.failures import FailureHistory
from activator.state.full_table import PART_ROWS, FullTable, resting
from activator.state.table import TableBook, endpoint_row, revision_row
from activator.wire import EndpointRow, FromActivator, RevisionRow, Table
from router.hold.table import RouteTable
from tests.activator_world import World
from tests.fakes_activator import endpoint, revision
from tests.fakes_router import Rig, replica, row

READ: TypeAdapter[Any] = TypeAdapter(FromActivator)


@pytest.mark.parametrize(
    "known",
    [
        endpoint("a"),
        endpoint("b", revision("b", 1), revision("b", 2, task="embed")),
        endpoint("c", revision("c", weight_bytes=5_000_000_000)),
        endpoint('d"\\é'),
        endpoint("e", revision("e", allow=("media", "echo_logprobs"), media_hosts=("a.example",))),
    ],
)
def test_a_row_at_rest_says_what_the_frame_would(known: Any) -> None:
    estimates = StartEstimates([PastStart("rev_a1", "standby", 1000, 3.25)])
    routed = [r for r in known.revisions if known.routes_to(r.revision_id)]
    at_rest: dict[str, Any] = {"failures": FailureHistory(), "progress": None, "waits_for": "", "now": 1.0}
    rows = [revision_row(each, (), estimates=estimates, **at_rest) for each in routed]
    assert EndpointRow.model_validate_json(resting(known, estimates)) == endpoint_row(known, rows)


OF_WHAT_RUNS = {
    "replicas",
    "starting",
    "phase",
    "phase_began_seconds",
    "fetched",
    "failure",
    "waits_for",
    "retry_after_seconds",
}


def test_a_row_at_rest_leaves_out_nothing_but_what_runs() -> None:
    """A field that is new in the frame is either of what runs, or written by hand too: else it is lost while an
    endpoint is at rest.
    """
    full = revision("a", allow=("media",), media_hosts=("a.example",))
    line = json.loads(resting(endpoint("a", full), StartEstimates([])))
    assert set(line) == set(EndpointRow.model_fields)
    assert set(line["revisions"][0]) == set(RevisionRow.model_fields) - OF_WHAT_RUNS


def test_it_comes_in_parts_and_once_for_all_that_join_together() -> None:
    known = [endpoint(f"n{number}", revision(f"n{number}")) for number in range(2 * PART_ROWS + 1)]
    whole = FullTable(TableBook(3), StartEstimates([]), lambda *_: pytest.fail("all are at rest"))
    parts = whole.parts(known, 1.0)
    frames = [READ.validate_json(part.line) for part in parts]
    assert [(frame.whole, frame.more, len(frame.endpoints)) for frame in frames] == [
        (True, True, PART_ROWS), (False, True, PART_ROWS), (False, False, 1),
    ]  # fmt: skip
    assert whole.parts(known, 1.5) is parts
    assert whole.parts(known, 2.6) is not parts
    [empty] = FullTable(TableBook(3), StartEstimates([]), lambda *_: pytest.fail("none")).parts([], 1.0)
    assert (READ.validate_json(empty.line).whole, READ.validate_json(empty.line).more) == (True, False)


def test_a_router_that_joins_hears_of_what_runs_and_of_what_rests() -> None:
    world = World(endpoint("a"), endpoint("b", revision("b")))
    world.join()
    world.connect_agent()
    world.demand(1)
    world.ready()
    rows = []
    for takes_parts in (True, False):
        late = world.join(f"late{takes_parts}", takes_parts=takes_parts)
        late.apply()
        rows.append(late.rows)
    assert rows[0] == rows[1]
    assert rows[0]["a"].revisions[0].replicas


def test_parts_are_one_table_to_a_router() -> None:
    rig = Rig()
    rig.show(row(replica(), name="old"), row(replica(), name="kept", revisions=("k1",)))
    waiter = rig.hold.ask(rig.table.revisions["k1"], _caller(rig))
    assert waiter is not None
    table: RouteTable = rig.table
    table.apply(
        Table(epoch=2, sequence=1, whole=True, more=True, endpoints=(row(replica(), name="new", revisions=("n1",)),))
    )
    assert set(table.endpoints) == {"old", "kept", "new"} and table.at == (1, 1), (
        "nothing is gone, or acknowledged, before the last part"
    )
    table.apply(
        Table(epoch=2, sequence=1, whole=False, more=True, endpoints=(row(replica(), name="kept", revisions=("k1",)),))
    )
    table.apply(Table(epoch=2, sequence=1, whole=False, endpoints=()))
    assert set(table.endpoints) == {"kept", "new"} and table.at == (2, 1)
    assert table.requests() == {"k1": 1}
    table.apply(Table(epoch=2, sequence=2, whole=False, removed=("new",)))
    assert set(table.endpoints) == {"kept"}
    assert set(table.by_id) == {"e-kept"} and set(table.by_org["o"]) == {"kept"}


def test_a_connection_that_broke_between_parts_is_begun_anew() -> None:
    rig = Rig()
    rig.table.apply(Table(epoch=1, sequence=1, whole=True, more=True, endpoints=(row(name="lost"),)))
    assert not rig.table.complete
    rig.table.apply(Table(epoch=1, sequence=1, whole=True, endpoints=(row(name="kept"),)))
    assert rig.table.complete and set(rig.table.endpoints) == {"kept"}


def _caller(rig: Rig) -> Any:
    from tests.fakes_router import Caller

    return Caller(rig.clock)
