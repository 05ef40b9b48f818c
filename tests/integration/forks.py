"""Functions that look into vLLM, called in forks of one process that has imported it.

Importing vLLM takes ten seconds of a core and half a gigabyte: here it does once for all tests of a pytest process, and
pytest's own process has none of it. What a fork changes ends with it.
"""

from __future__ import annotations

import functools
import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

LONGEST_SECONDS = 300.0
IMPORTED = "tests.integration.imported"  # what all forks have


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([IMPORTED])
    return context


class Fork:
    """A call that has begun. Functions and their arguments are pickled: no lambdas."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._name = function.__name__
        self._says, theirs = _server().Pipe(duplex=False)
        self._process = _server().Process(target=_call, args=(theirs, function, arguments))
        self._process.start()
        theirs.close()

    def answer(self) -> Any:
        """What the function returned. Raises AssertionError with its traceback, or with how the fork ended."""
        try:
            assert self._says.poll(LONGEST_SECONDS), f"{self._name} has not answered within {LONGEST_SECONDS:g} s"
            value, failure = self._says.recv()
        except EOFError:
            self._process.join()
            raise AssertionError(f"{self._name} ended with {self._process.exitcode}, and said nothing") from None
        finally:
            self._says.close()
            if self._process.is_alive():
                self._process.join(10)
                self._process.kill()
        assert not failure, failure
        return value


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    return Fork(function, *arguments).answer()


def _call(says: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        says.send((function(*arguments), ""))
    except BaseException:
        says.send((None, traceback.format_exc()))
        raise
