"""Ports that are given out once, and that no connection takes meanwhile."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys

import pytest

from pilotlight.ports import FIRST, KERNELS, LAST, candidates, claim, free_port


def test_what_the_kernel_gives_to_connections_is_left_out() -> None:
    ports = candidates("32768\t60999\n")
    assert ports[0] == FIRST and ports[-1] == LAST
    assert not set(ports) & set(range(32768, 61000))
    low, high = (int(word) for word in KERNELS.read_text().split())
    assert (high - low > 50_000) or not low <= free_port() <= high


def test_a_kernel_that_takes_all_leaves_all() -> None:
    assert candidates("1024 65535") == list(range(FIRST, LAST + 1))


def test_a_port_is_given_out_once_and_not_where_somebody_listens() -> None:
    first = free_port()
    with pytest.raises(OSError, match="no free port"):
        claim([first])
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="no free port"):
        claim([other.getsockname()[1]])


def test_ports_in_a_row_are_all_claimed_or_none() -> None:
    first = free_port(3)
    for port in range(first, first + 3):
        with pytest.raises(OSError, match="no free port"):
            claim([port])
    assert any(kept_nothing(free_port(3)) for _ in range(20)), "nothing of a row that could not be had is kept"
    with pytest.raises(OSError, match="no free port"):
        claim([65_535], 2)


def kept_nothing(first: int) -> bool:
    """A row is refused for its second port, and its first can be had afterwards; another program may have it."""
    with pytest.raises(OSError, match="no free port"):
        claim([first - 1], 2)
    with contextlib.suppress(OSError):
        return claim([first - 1]) == first - 1
    return False


def test_a_claim_holds_between_processes_and_goes_with_its_own() -> None:
    script = "import sys; from pilotlight.ports import free_port; print(free_port(), flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        with pytest.raises(OSError, match="no free port"):
            claim([port])
        other.kill()
        other.wait()
    assert claim([port]) == port
