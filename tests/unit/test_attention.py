"""What nobody could hear is held against nobody."""

from __future__ import annotations

from activator.state.demand import DemandBook
from activator.state.nodes import Nodes
from activator.wire import Demand
from pilotlight.attention import LONGEST_LOOK, Attention
from runtime.wire import EngineEnvironment, NodeReport


def test_time_in_which_nobody_looked_is_missed() -> None:
    attention = Attention()
    assert attention.missed(100.0) == 0.0
    assert attention.missed(101.0) == 0.0
    assert attention.missed(101.0 + LONGEST_LOOK + 3600.0) == 3600.0
    assert attention.missed(3704.0) == 0.0


def test_after_a_sleep_nobody_is_silent_who_spoke_before_it() -> None:
    book, nodes = DemandBook(30.0), Nodes()
    book.join("router", 1, 100.0)
    book.report("router", 1, Demand(sequence=1, requests={"rev": 3}, table_sequence=0), 100.0)
    environment = EngineEnvironment(engine="vllm", version="0", device="cpu")
    nodes.join(NodeReport(node_id="n", boot_id="b", environment=environment, memory_bytes=1), 2, 100.0)
    for listener in (book, nodes):
        listener.forgive(3600.0, 3701.0)
    assert book.expire(3701.0) == (set(), []) and book.total("rev") == 3
    assert nodes.silent(3701.0) == []
    assert book.expire(3740.0) == ({"rev"}, [1]), "silence that was heard counts"
    assert nodes.silent(3740.0) == [2]
    assert nodes.silent(3740.0) == [], "told of once"
