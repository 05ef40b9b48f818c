"""Graphs are captured when the engine has nothing to do: not before, not twice, not while it sleeps, and no request is
lost.
"""

from __future__ import annotations

import queue
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.engine.graphs import CAPTURE, capture, put_off, when_idle

REQUEST = ("add", "request")


class Runner:
    def __init__(self, dispatcher: Any = None) -> None:
        self.captured: list[bool] = []  # whether the dispatcher knew its keys meanwhile
        if dispatcher is not None:
            self.cudagraph_dispatcher = dispatcher

    def capture_model(self, *, profile_only: bool = False) -> int:
        known = getattr(self, "cudagraph_dispatcher", SimpleNamespace(keys_initialized=True)).keys_initialized
        self.captured.append(known)
        return 5 << 20


class Core:
    """An engine core whose own wait takes what is in the queue, as vLLM's does."""

    def __init__(self) -> None:
        self.input_queue: queue.Queue[tuple[str, str]] = queue.Queue()
        self.process_input_queue_block = True
        self.work, self.running = False, True
        self._idle_state_callbacks: list[Any] = []
        self.handled: list[tuple[str, ...]] = []
        self.asked: list[str] = []
        self.model_executor = SimpleNamespace(is_sleeping=False, collective_rpc=self.asked.append)

    def has_work(self) -> bool:
        return self.work

    def is_running(self) -> bool:
        return self.running

    def _handle_client_request(self, *request: str) -> None:
        self.handled.append(request)
        self.work = True

    def process_input_queue(self) -> None:
        self.handled.append(("waits",))


@pytest.mark.parametrize("dispatcher", [None, SimpleNamespace(keys_initialized=True)])
def test_a_runner_is_eager_until_its_graphs_are_captured(dispatcher: Any) -> None:
    runner = Runner(dispatcher)
    assert put_off(Runner.capture_model)(runner) == 0
    assert runner.captured == []
    assert dispatcher is None or not dispatcher.keys_initialized
    assert capture(runner) == 5 << 20
    assert runner.captured == [True]
    assert capture(runner) == 0 and len(runner.captured) == 1


def test_a_runner_that_captures_nothing_knows_of_nothing_later() -> None:
    dispatcher = SimpleNamespace(keys_initialized=False)  # as with cudagraph_mode NONE before its keys are set
    runner = Runner(dispatcher)
    put_off(Runner.capture_model)(runner)
    capture(runner)
    assert runner.captured == [False] and not dispatcher.keys_initialized
    assert capture(Runner()) == 0  # enforce-eager: vLLM never asked


def test_what_only_measures_is_done_at_once() -> None:
    runner = Runner()
    assert put_off(Runner.capture_model)(runner, profile_only=True) == 5 << 20
    assert len(runner.captured) == 1 and capture(runner) == 0


def test_it_is_captured_once_when_nothing_comes() -> None:
    core, wait = Core(), when_idle(Core.process_input_queue, 0.001)
    wait(core)
    wait(core)
    assert core.asked == [CAPTURE]
    assert core.handled == [("waits",), ("waits",)]


def test_a_request_that_comes_is_taken_first() -> None:
    core, wait = Core(), when_idle(Core.process_input_queue, 5.0)
    core.input_queue.put(REQUEST)
    wait(core)
    assert core.asked == [] and core.handled == [REQUEST, ("waits",)]


@pytest.mark.parametrize("why", ["works", "sleeps", "stops", "somebody waits for it to be idle", "never blocks"])
def test_not_while_it(why: str) -> None:
    core, wait = Core(), when_idle(Core.process_input_queue, 0.001)
    core.work = why == "works"
    core.model_executor.is_sleeping = why == "sleeps"
    core.running = why != "stops"
    core._idle_state_callbacks = [print] if why.startswith("somebody") else []
    core.process_input_queue_block = why != "never blocks"
    wait(core)
    assert core.asked == [] and core.handled == [("waits",)]
    core.work, core.running, core.process_input_queue_block = False, True, True
    core.model_executor.is_sleeping, core._idle_state_callbacks = False, []
    wait(core)
    assert core.asked == [CAPTURE]
