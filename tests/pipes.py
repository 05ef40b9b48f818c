"""Pipes and FIFOs read with a deadline: where its writer has died, a test fails and does not hang."""

from __future__ import annotations

import os
import select

LONGEST_SECONDS = 30.0


def heard(pipe: int, seconds: float = LONGEST_SECONDS) -> bytes:
    """What has come out of a pipe. Raises AssertionError where nothing comes, or its writer is gone."""
    assert select.select([pipe], [], [], seconds)[0], f"nothing was said within {seconds:g} s"
    said = os.read(pipe, 1 << 16)
    assert said, "who should have spoken is gone"
    return said


def fifo(path: os.PathLike[str]) -> int:
    """A new FIFO, open for `heard`: nobody waits for its other end."""
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
