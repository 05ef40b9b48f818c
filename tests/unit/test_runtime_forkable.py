"""Before a fork every thread is known by name: a stranger is told, one on the list is let live, one on its way out is
waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runtime.engine.threads import MAY_LIVE, Unforkable, check_threads, strangers


@contextmanager
def living(name: str) -> Iterator[threading.Event]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name=name)
    thread.start()
    try:
        yield end
    finally:
        end.set()
        thread.join()


@pytest.fixture
def others() -> set[str]:
    """What lives in the process of the tests themselves."""
    return {name.rpartition(" (")[0] for name in strangers(())}


def test_a_stranger_is_told_by_name(others: set[str]) -> None:
    with (
        living("pool of tokens"),
        pytest.raises(Unforkable, match=r"1 threads .* alive in the standby: pool of tokens \(\d+\)"),
    ):
        check_threads(others, patience=0.0)


def test_one_on_the_list_may_live_and_is_not_waited_for(others: set[str]) -> None:
    with living("harmless"):
        assert check_threads({*others, "harmless"}, patience=0.0) >= 2


def test_one_on_its_way_out_is_waited_for(others: set[str]) -> None:
    with living("late") as end:
        threading.Timer(0.02, end.set).start()
        assert check_threads(others, patience=5.0) >= 1


def test_every_device_has_a_list() -> None:
    assert set(MAY_LIVE) == {"cpu", "cuda"}
