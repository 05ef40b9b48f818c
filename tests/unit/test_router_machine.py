"""Bounds that workers share: whoever looks sees what all have, a death gives its part back, and the bound is never
passed.
"""

from __future__ import annotations

import os
import random

import pytest

import router.hold.machine
from activator.wire import ReplicaRow
from router.errors import QueueFull
from router.hold.hold import Hold
from router.hold.machine import Alone, Memory, Together
from router.hold.table import RouteTable
from tests.fakes_router import Caller, Rig, row


class Worker(Rig):
    def __init__(self, machine: Together, *, max_bytes: int = 1 << 20) -> None:
        super().__init__()
        self.hold = Hold(clock=self.clock, max_bytes=max_bytes, changed=lambda *_: None, machine=machine)
        self.table = RouteTable(clock=self.clock, hold=self.hold)


def workers(count: int, **options: int) -> tuple[Memory, list[Worker]]:
    memory = Memory.make(count)
    return memory, [Worker(Together(Memory(memory.descriptor, count), index), **options) for index in range(count)]


@pytest.mark.parametrize("count", [2, 4])
def test_max_held_is_the_machines(count: int) -> None:
    memory, them = workers(count)
    for each in them:
        each.show(row(max_held=5), row(max_held=5, name="other", revisions=("o",)))
    held = [them[number % count].ask() for number in range(5)]
    for each in them:
        with pytest.raises(QueueFull, match="5 requests"):
            each.ask()
        each.hold.ask(each.table.revisions["o"], Caller(each.clock))  # another endpoint's bound is its own
    them[0].hold.leave(held[0])
    them[-1].ask()
    with pytest.raises(QueueFull):
        them[0].ask()
    memory.clear(count - 1)  # it was killed
    again = Worker(Together(memory, count - 1))
    again.show(row(max_held=5))
    again.ask()


def test_held_bytes_and_uploads_are_the_machines() -> None:
    _, them = workers(2, max_bytes=100)
    for each in them:
        each.show(row(max_held=50))
    first = them[0].ask(size=60)
    with pytest.raises(QueueFull, match="bytes"):
        them[1].ask(size=60)
    them[1].ask(size=40)
    them[0].hold.leave(first)
    them[1].ask(size=30)  # a quarter of all is the other worker's own, whatever this one takes
    with pytest.raises(QueueFull, match="bytes"):
        them[1].ask(size=10)
    them[0].ask(size=25)
    memory = Memory.make(2)
    one, two = Together(memory, 0), Together(memory, 1)
    assert (one.uploading(10), two.uploading(5), one.uploading(0)) == (10, 15, 5)


def test_what_went_back_counts_too() -> None:
    _, them = workers(2)
    for each in them:
        each.show(row(ReplicaRow(replica_id="p", address="unix:/p", slots=1), max_held=2))
    running = them[0].ask()
    waits = [them[0].ask(), them[1].ask()]
    waits.append(them[1].ask())
    assert waits[1].slots and not waits[2].slots
    running.slots.pop().give_back(running, "full")
    assert isinstance(waits[0].errors[0], QueueFull), "the youngest here gives way"


@pytest.mark.parametrize("seed", range(3))
def test_all_add_up_whatever_they_do(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice, names = random.Random(seed), [f"ep_{number}" for number in range(30)]
    memory = Memory.make(3)
    them = [Together(memory, index) for index in range(3)]
    true: dict[tuple[int, str], int] = {}
    for _ in range(2000):
        worker, name = dice.randrange(3), dice.choice(names)
        true[worker, name] = dice.choice([0, 0, 1, 7])
        if dice.random() < 0.01:
            memory.clear(worker)
            them[worker] = Together(memory, worker)
            true = {key: count for key, count in true.items() if key[0] != worker} | {
                (worker, name): true[worker, name]
            }
        assert them[worker].held(name, true[worker, name]) == sum(
            count for (_, of), count in true.items() if of == name
        )


def test_with_no_room_to_write_it_down_nothing_more_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.hold.machine, "MOST_ENDPOINTS", 2)
    one = Together(Memory.make(1), 0)
    assert (one.held("a", 1), one.held("b", 1)) == (1, 1)
    assert one.held("c", 1) > 1 << 60
    one.held("a", 0)
    assert one.held("c", 1) == 1, "in the place of one that nothing waits for"


def test_only_what_is_used_takes_memory() -> None:
    memory = Memory.make(8)
    Together(memory, 7).held("ep", 1)
    assert os.fstat(memory.descriptor).st_blocks * 512 < 64 << 10


def test_a_worker_alone_counts_its_own() -> None:
    alone = Alone()
    assert (alone.held("a", 3), alone.held_bytes(4), alone.uploading(5)) == (3, 4, 5)
