"""Orders and standbys: none is lost or refused because many come at once, and no more standbys are kept than were asked
for.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pilotlight.settings import load
from runtime.control import Ask, Beat, Check, Checked, Control, Fork, Rehearsed, ToStandby
from runtime.node.background import Background
from runtime.node.standby import Standby
from runtime.node.standby_environment import standby_environ
from runtime.node.standby_orders import ForkOrders
from runtime.node.standby_pool import StandbyPool
from runtime.node.standby_watch import StandbyWatch
from runtime.wire import StandbyReport

MANY = 300  # orders; a socket holds about ninety
REHEARSED = Rehearsed(engine="vllm", version="0", device="cpu", seconds=1.0, private_bytes=1 << 40, threads=1)


class Scripted:
    """The pool of standbys that do nothing; the test speaks for them."""

    def __init__(self, count: int, tmp_path: Path) -> None:
        self.told: list[StandbyReport] = []
        self.checked: list[Checked] = []
        self.ends: list[Control] = []
        self.pool = StandbyPool(
            count=count, launch=self._launch, on_change=self.told.append, on_checked=self.checked.append
        )
        self.orders = ForkOrders(self.pool)
        self.watch = StandbyWatch(self.pool, Background(), silent_seconds=5.0, rehearsal_seconds=300.0)

    def _launch(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        self.ends.append(Control(theirs.dup(), ToStandby))
        self.ends[-1].sock.setblocking(False)
        return subprocess.Popen(["sleep", "60"])

    @property
    def alive(self) -> list[Standby]:
        return [standby for standby in self.pool.all() if not standby.retired]

    def close(self) -> None:
        self.pool.close()
        for end in self.ends:
            end.close()


def order(number: int) -> Fork:
    return Fork(
        replica_id=f"r{number}", endpoint="e", snapshot="s" * 80, task="generate", engine_args={}, slots=1, folder="f" * 80, baked="",
        journal="j" * 80, canary="c" * 80, log="l" * 80, threads=1, kv_cache_bytes=1, max_model_len=1, asked_at=0.0,
    )  # fmt: skip


async def give(standbys: Scripted, number: int, *, fresh: bool = False) -> None:
    ours, theirs = Control.pair()
    with ours, theirs:
        await standbys.orders.fork(order(number), theirs, fresh=fresh)


def taken(end: Control) -> list[str] | None:
    """What is there for a standby to read; None at the end."""
    found: list[str] = []
    while True:
        try:
            got = end.receive()
        except BlockingIOError:
            return found
        if got is None:
            return found or None
        found.append("ask" if isinstance(got[0], Ask) else got[0].replica_id)
        for fd in got[1]:
            os.close(fd)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_more_orders_than_a_socket_holds_wait_and_keep_their_order(tmp_path: Path) -> None:
    standbys = Scripted(1, tmp_path)
    standbys.pool.fill()
    standbys.ends[0].send(REHEARSED)
    calls = [asyncio.ensure_future(give(standbys, number)) for number in range(MANY)]
    read: list[str] = []
    await until(lambda: sum(call.done() for call in calls) > 50)
    for _ in range(100):  # whatever could still be given is given by then
        await asyncio.sleep(0)
    assert 50 < sum(call.done() for call in calls) < MANY, "the socket is full, and nobody was refused"
    async with asyncio.timeout(5):
        while len(read) < MANY:
            read += taken(standbys.ends[0]) or []
            await asyncio.sleep(0)
    await asyncio.gather(*calls)
    assert read == [f"r{number}" for number in range(MANY)]
    assert len(standbys.alive) == 1
    standbys.close()


async def test_where_none_is_kept_one_is_made_for_the_orders_there_are_and_goes_after_them(tmp_path: Path) -> None:
    standbys = Scripted(0, tmp_path)
    standbys.pool.fill()
    assert standbys.ends == []
    calls = [asyncio.ensure_future(give(standbys, number)) for number in range(2)]
    await until(lambda: standbys.ends)
    standbys.ends[0].send(REHEARSED)
    await asyncio.gather(*calls)
    assert taken(standbys.ends[0]) == ["r0", "r1"] and taken(standbys.ends[0]) is None, (
        "it reads its orders, then the end"
    )
    assert standbys.alive == [] and standbys.told[-1].ready == 0
    standbys.pool._standbys[0].process.kill()
    await until(lambda: not standbys.pool._standbys)
    assert len(standbys.ends) == 1, "no other takes its place"
    standbys.close()


async def test_those_that_are_kept_stay_after_an_order(tmp_path: Path) -> None:
    standbys = Scripted(2, tmp_path)
    standbys.pool.fill()
    for end in standbys.ends:
        end.send(REHEARSED)
    await give(standbys, 0)
    assert len(standbys.alive) == 2
    standbys.pool.keep(0)
    await give_and_rehearse(standbys)
    assert standbys.alive == []
    standbys.pool.keep(None)
    assert len(standbys.alive) == 2
    standbys.close()


async def give_and_rehearse(standbys: Scripted) -> None:
    before = len(standbys.ends)
    call = asyncio.ensure_future(give(standbys, 1))
    await until(lambda: len(standbys.ends) > before)
    standbys.ends[-1].send(REHEARSED)
    await call


async def test_what_one_endpoint_distrusts_costs_no_other_its_standby(tmp_path: Path) -> None:
    standbys = Scripted(1, tmp_path)
    standbys.pool.fill()
    standbys.ends[0].send(REHEARSED)
    await until(lambda: standbys.pool.report().ready)
    distrusting = asyncio.ensure_future(give(standbys, 7, fresh=True))
    await until(lambda: len(standbys.ends) == 2)
    assert standbys.pool.report().ready == 1
    await give(standbys, 1)
    assert taken(standbys.ends[0]) == ["r1"], "another endpoint starts meanwhile, at once"
    assert not distrusting.done() and taken(standbys.ends[1]) == []
    standbys.ends[1].send(REHEARSED)
    await distrusting
    assert taken(standbys.ends[1]) == ["r7"]
    assert all(told.ready == 1 for told in standbys.told), "there was one at every moment"
    assert taken(standbys.ends[0]) is None and len(standbys.alive) == 1, "the old one goes, now that another is there"
    await give(standbys, 2)
    assert taken(standbys.ends[1]) == ["r2"] and len(standbys.ends) == 2
    standbys.close()


async def test_one_made_for_a_start_that_ends_before_it_is_rehearsed_fails_that_start_alone(tmp_path: Path) -> None:
    standbys = Scripted(1, tmp_path)
    standbys.pool.fill()
    standbys.ends[0].send(REHEARSED)
    await until(lambda: standbys.pool.report().ready)
    distrusting = asyncio.ensure_future(give(standbys, 7, fresh=True))
    await until(lambda: len(standbys.ends) == 2)
    standbys.pool._standbys[-1].process.kill()
    with pytest.raises(ChildProcessError, match="ended before it was rehearsed"):
        await distrusting
    given_up = asyncio.ensure_future(give(standbys, 8, fresh=True))
    await until(lambda: len(standbys.ends) == 3)
    given_up.cancel()
    await until(lambda: len(standbys.pool._standbys) == 1)
    await give(standbys, 1)
    assert taken(standbys.ends[0]) == ["r1"] and len(standbys.alive) == 1
    standbys.close()


async def test_where_none_is_kept_one_made_for_a_start_goes_with_it(tmp_path: Path) -> None:
    standbys = Scripted(0, tmp_path)
    call = asyncio.ensure_future(give(standbys, 1, fresh=True))
    await until(lambda: standbys.ends)
    standbys.ends[0].send(REHEARSED)
    await call
    assert taken(standbys.ends[0]) == ["r1"] and taken(standbys.ends[0]) is None and standbys.alive == []
    standbys.close()


async def test_what_a_standby_holds_is_looked_at_again(tmp_path: Path) -> None:
    standbys = Scripted(1, tmp_path)
    standbys.pool.fill()
    await standbys.watch.measure()
    standbys.ends[0].send(REHEARSED)
    await until(lambda: standbys.told)
    assert standbys.told[-1].private_bytes == REHEARSED.private_bytes
    await standbys.watch.measure()
    assert 0 < standbys.told[-1].private_bytes < 1 << 30
    told = len(standbys.told)
    await standbys.watch.measure()
    assert len(standbys.told) == told, "no news"
    standbys.close()


def test_only_on_a_cpu_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_COMPILE_DISABLE", raising=False)
    settings = load(state_dir=tmp_path)
    assert standby_environ(settings, "cpu")["TORCH_COMPILE_DISABLE"] == "1"
    assert "TORCH_COMPILE_DISABLE" not in standby_environ(settings, "cuda")


# Silence


async def kept(tmp_path: Path, count: int = 1) -> Scripted:
    standbys = Scripted(count, tmp_path)
    standbys.pool.fill()
    for end in standbys.ends:
        end.send(REHEARSED)
    await until(lambda: len(standbys.told) == count)
    return standbys


async def answered(standbys: Scripted, end: Control) -> list[str]:
    """What it has to read is read, and every ask in it answered."""
    found = taken(end) or []
    standby = standbys.pool._standbys[standbys.ends.index(end)]
    before = standby.answered
    for _ in range(found.count("ask")):
        end.send(Beat())
    await until(lambda: standby.answered == before + found.count("ask"))
    return found


async def test_an_idle_standby_that_answers_stays(tmp_path: Path) -> None:
    standbys = await kept(tmp_path)
    for second in range(1, 100):
        assert standbys.watch.look(float(second)) == []
        assert await answered(standbys, standbys.ends[0]) == ["ask"]
    assert len(standbys.ends) == 1
    standbys.close()


async def test_an_idle_standby_that_answers_nothing_for_five_seconds_is_killed_and_replaced(tmp_path: Path) -> None:
    standbys = await kept(tmp_path)
    stopped = standbys.pool._standbys[0]
    for second in range(1, 7):
        standbys.watch.look(float(second))
        assert stopped.takes_orders
    standbys.watch.look(6.5)
    assert not stopped.takes_orders and stopped.process.wait() == -9
    await until(lambda: len(standbys.ends) == 2 and stopped not in standbys.pool._standbys)
    assert standbys.told[-1].ready == 0 and standbys.told[-1].reason == "hung: it has answered nothing for 5 s"
    standbys.close()


async def test_a_standby_that_is_stopped_with_orders_is_killed_and_one_that_forks_slowly_is_not(tmp_path: Path) -> None:
    standbys = await kept(tmp_path)
    for number in range(10):
        await give(standbys, number)
    forking = standbys.pool._standbys[0]
    for number in range(9):  # four seconds each: it comes to no ask, and says who was born
        standbys.watch.look(4.0 * number)
        standbys.orders.done_with(f"r{number}")
    standbys.watch.look(36.5)
    assert not forking.killed
    standbys.watch.look(38.5)
    assert forking.killed and forking.process.wait() == -9
    standbys.close()


async def test_an_order_of_which_nobody_is_born_is_told_once(tmp_path: Path) -> None:
    """It was read, and what was forked is stopped, or lost."""
    standbys = await kept(tmp_path)
    await give(standbys, 0)
    await give(standbys, 1)
    lost: list[list[str]] = []
    for second in range(1, 9):
        lost.append(standbys.watch.look(float(second)))
        await answered(standbys, standbys.ends[0])
        standbys.orders.done_with("r1")
    assert lost == [[]] * 6 + [["r0"], []]
    standbys.close()


async def test_one_that_is_not_rehearsed_in_time_is_replaced(tmp_path: Path) -> None:
    standbys = Scripted(1, tmp_path)
    standbys.pool.fill()
    for second in range(0, 301, 10):
        standbys.watch.look(float(second))
        assert not standbys.pool._standbys[0].killed
    standbys.watch.look(301.0)
    assert standbys.pool._standbys[0].killed
    standbys.close()


async def test_one_that_was_let_go_and_does_not_go_is_killed(tmp_path: Path) -> None:
    standbys = await kept(tmp_path)
    standbys.pool.keep(0)
    let_go = standbys.pool._standbys[0]
    assert let_go.retired
    standbys.watch.look(5.0)
    assert not let_go.killed
    standbys.watch.look(5.5)
    assert let_go.killed
    standbys.close()


async def test_an_agent_that_was_stopped_kills_nobody(tmp_path: Path) -> None:
    """Its attentive seconds hardly move meanwhile, and the answers are read before the next look."""
    from pilotlight.attention import Attention

    attention, standbys = Attention(), await kept(tmp_path)
    for now in (1.0, 2.0, 3602.0):
        standbys.watch.look(attention.look(now))
        await answered(standbys, standbys.ends[0])
    standbys.watch.look(attention.look(3603.0))
    assert not standbys.pool._standbys[0].killed
    standbys.close()


async def test_arguments_are_looked_at_by_a_rehearsed_standby_and_its_answer_is_told(tmp_path: Path) -> None:
    standbys = Scripted(1, tmp_path)
    standbys.pool.fill()
    question = Check(check_id="c1", task="generate", engine_args={"dtype": "float99"})
    assert not standbys.orders.check(question), "it is not rehearsed, so nobody is there to ask"
    standbys.ends[0].send(REHEARSED)
    await until(lambda: standbys.pool.report().ready)
    assert standbys.orders.check(question)
    got = standbys.ends[0].receive()
    assert got is not None and got[0] == question
    standbys.ends[0].send(Checked(check_id="c1", reason="engine argument --dtype: invalid choice"))
    await until(lambda: standbys.checked)
    assert standbys.checked[0].reason.startswith("engine argument --dtype")
    standbys.close()
