"""Two forks of one process share nothing that must be a replica's own: each entry of the table, by real forks, and what
does it by itself.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from runtime.engine import fork_state

Shown = dict[str, Any]
NAMES = [entry.what for entry in fork_state.OWN] + [what for what, _ in fork_state.BY_THEMSELVES]


def shown() -> Shown:
    return {entry.what: entry.shown() for entry in fork_state.OWN} | {
        what: shows() for what, shows in fork_state.BY_THEMSELVES
    }


def in_a_fork(work: Callable[[], Any]) -> Any:
    """What `work` gives in a child of this process."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, pickle.dumps(work()))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert told, "the child failed: its own words are above"
    return pickle.loads(told)


def a_replica(name: str) -> fork_state.Replica:
    replica = fork_state.Replica(name, f"/run/{name}")
    fork_state.adopt_replica(replica)
    return replica


@pytest.fixture(scope="module")
def forks() -> list[Shown]:
    return [in_a_fork(lambda name=name: (a_replica(name), shown())[1]) for name in ("one", "two")]  # type: ignore[misc]


@pytest.mark.parametrize("what", NAMES)
def test_two_forks_share_none_of_the_list(forks: list[Shown], what: str) -> None:
    assert forks[0][what] != forks[1][what]


def test_without_it_they_share_what_is_on_the_list() -> None:
    """Else the test above would pass with nothing done. CPython makes `random` anew by itself, and the tracker is none
    in a test.
    """

    def as_it_is() -> Shown:
        fork_state._folders(fork_state.Replica("same", "/same"))
        fork_state._names(fork_state.Replica("same", "/same"))
        return shown()

    one, two = in_a_fork(as_it_is), in_a_fork(as_it_is)
    alike = {what for what in NAMES if one[what] == two[what]}
    assert alike == {entry.what for entry in fork_state.OWN} - {"Python's random", "tracker of shared memory"}


def test_two_processes_of_one_replica_share_only_what_is_the_replicas() -> None:
    def both() -> tuple[Shown, Shown]:
        replica = a_replica("one")

        def as_its_engine_core() -> Shown:
            fork_state.adopt_process(replica)
            return shown()

        core = in_a_fork(as_its_engine_core)
        return shown(), core

    server, core = in_a_fork(both)
    alike = {what for what in NAMES if server[what] == core[what]}
    assert alike == {entry.what for entry in fork_state.OWN if entry.per == "replica"} - {"tracker of shared memory"}


def test_a_seed_is_one_that_numpy_takes_and_seldom_the_same() -> None:
    seeds = {fork_state.engine_seed() for _ in range(64)}
    assert len(seeds) == 64 and all(0 <= seed < 2**32 for seed in seeds)
