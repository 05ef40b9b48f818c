"""An event loop in simulated time: where nothing is left to do, its clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any


class Jumps(selectors.DefaultSelector):
    """Waits for nothing: its loop's clock jumps to the next timer."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class Simulated(asyncio.SelectorEventLoop):
    """`asyncio.Runner(loop_factory=Simulated)`: an hour passes at once, and in the order in which it would."""

    def __init__(self) -> None:
        self.jumps = Jumps()
        super().__init__(self.jumps)

    def time(self) -> float:
        return self.jumps.now


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs in simulated time: it waits for nothing, and no busy machine makes it fail."""

    @wraps(test)
    def run(*args: Any, **given: Any) -> None:
        with asyncio.Runner(loop_factory=Simulated) as runner:
            runner.run(test(*args, **given))

    return run
