"""Why a replica failed, in one line: a place that is full is named where the kernel names none."""

from __future__ import annotations

import errno
import os

import pytest

from runtime.failure import LEAST, failure

FREE = {"/dev/shm": 0, "/tmp": LEAST - 1, "/state": 10 * LEAST}


def refused(number: int, *place: str) -> OSError:
    return OSError(number, os.strerror(number), *place)


@pytest.mark.parametrize(
    ("places", "says"),
    [
        (["/dev/shm", "/state"], "OSError: [Errno 28] No space left on device; /dev/shm is full: free some space there"),
        (["/dev/shm", "/tmp"], "OSError: [Errno 28] No space left on device; /dev/shm and /tmp are full: free some space there"),
        (["/state"], "OSError: [Errno 28] No space left on device"),
    ],
)  # fmt: skip
def test_the_places_that_are_full_are_named(places: list[str], says: str) -> None:
    assert failure(refused(errno.ENOSPC), places=places, free=FREE.__getitem__) == says


@pytest.mark.parametrize(
    "error", [ValueError("no"), refused(errno.EACCES), refused(errno.ENOSPC, "/state/x"), KeyboardInterrupt()]
)
def test_what_says_where_or_is_something_else_is_told_as_it_is(error: BaseException) -> None:
    assert failure(error, places=["/dev/shm"], free=FREE.__getitem__) == f"{type(error).__name__}: {error}"


def test_where_engines_write_is_looked_at() -> None:
    assert failure(refused(errno.EDQUOT)).startswith("OSError: ")


def test_a_place_that_is_not_there_hides_no_reason() -> None:
    assert failure(refused(errno.ENOSPC), places=["/not/there"]) == "OSError: [Errno 28] No space left on device"
