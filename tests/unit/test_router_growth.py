"""What must not grow with the number of endpoints: telling demand, looking up, and hearing of others."""

from __future__ import annotations

from tests.fakes_router import Told, replica, row


def test_a_telling_says_only_what_has_changed() -> None:
    rig = Told()
    rig.show(*(row(replica(f"{n}x"), replica(f"{n}y"), name=f"n{n}", revisions=(f"r{n}",)) for n in range(50)))
    callers = [rig.ask_of(f"r{n}") for n in range(50)]
    assert len(rig.frames[-1].requests) == 1 and rig.frames[-1].partial
    rig.clock.advance(1.0)
    assert len(rig.frames[-1].requests) == 50 and not rig.frames[-1].partial, "whole each second"
    callers[7].slots[0].release()
    rig.clock.advance(0.1)
    assert (rig.frames[-1].requests, list(rig.frames[-1].in_flight.values())) == ({"r7": 0}, [0])


def test_an_activator_of_the_release_before_hears_all_of_it() -> None:
    rig = Told(partial=False)
    rig.show(row(replica(), name="a", revisions=("a",)), row(replica(), name="b", revisions=("b",)))
    rig.ask_of("a")
    rig.ask_of("b")
    assert rig.frames[-1].requests == {"a": 1, "b": 1}
    assert not any(frame.partial for frame in rig.frames)


def test_what_others_have_is_heard_of_those_named_and_weighs_anew_when_routers_come() -> None:
    rig = Told()
    rig.show(row(replica("p"), replica("q"), name="a", revisions=("a",)))
    known = rig.table.revisions["a"].replicas
    rig.table.others({"p": 8}, 2)
    assert (known["p"].others, known["q"].others) == (4.0, 0.0)
    rig.table.others({}, 4)
    assert known["p"].others == 2.0
    rig.table.others_unknown()
    assert known["p"].others == 0.0
