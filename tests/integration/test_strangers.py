"""Every bad client at once, over TLS, at a real router: good callers are all answered, and nothing of the bad ones is
left.
"""

from __future__ import annotations

from loadtests.bench.strangers import MEMORY_FRACTION, soak

SHORT = {
    "PILOTLIGHT_ROUTER__HEADER_SECONDS": "2",
    "PILOTLIGHT_ROUTER__HANDSHAKE_SECONDS": "2",
    "PILOTLIGHT_ROUTER__KEEP_ALIVE_SECONDS": "1",
    "PILOTLIGHT_ROUTER__UPLOAD_SECONDS": "2",
    "PILOTLIGHT_ROUTER__UNREAD_SECONDS": "1",
}


async def test_bad_clients_take_nothing_from_good_ones_and_leave_nothing() -> None:
    """Every good call is tried three times, as client programs do: else a machine that gives one no turn for a second
    failed it.
    """
    seen = await soak(seconds=6.0, each=3, control=False, settings=SHORT)
    assert seen.refused == []
    assert seen.beside.p99 < 5.0
    assert len(seen.beside.times) > 20
    start, highest, end = seen.descriptors
    assert highest > start + 20, "they were there"
    assert end <= start
    assert seen.memory[2] <= seen.memory[0] * (1 + MEMORY_FRACTION) + (8 << 20)
