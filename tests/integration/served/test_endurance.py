"""Wakes in a row leave nothing behind, and the standby they are forked from does not grow. `make bench` makes two
hundred.
"""

from __future__ import annotations

from loadtests.bench import inventory
from pilotlight.cli.bench import coldstart
from snapshots.pack import pack
from tests.integration.system import MODEL, System, wait_until

WAKES = 10
GROWTH_BYTES = 1 << 20  # of the standby: a tenth of it a wake would be two hundred MB after two thousand


def test_ten_wakes_leave_nothing_and_the_standby_does_not_grow(system: System) -> None:
    deployed = {"digest": pack(MODEL, system.paths.snapshots).digest, "idle_timeout_seconds": 0.1}
    system.api.call("PUT", "/endpoints/again", json=deployed)
    key = system.api.call("POST", "/endpoints/again/keys", json={"name": "test"})["key"]
    with system.client(key) as client:
        wait_until(lambda: client.get("/e/again/v1/models").is_success, 60, "the router knows the key")

    def wake(times: int) -> None:
        for _ in range(times):
            coldstart.wake(system.api, "again", key, rest=0)
        coldstart.until_rest(system.api, "again")

    wake(3)  # the first ones make what later ones find
    before = inventory.inventory_of(system.state, [system.up.pid])
    wake(WAKES)
    wait_until(
        lambda: not inventory.inventory_of(system.state, [system.up.pid]).left_since(before),
        60,
        "no more is there than before the wakes",
    )
    after = inventory.inventory_of(system.state, [system.up.pid])
    assert len(before.standbys) == 1 and after.standbys == before.standbys, "the very same process"
    assert {"up", "postgres", "postgres process", "agent", "router"} <= before.processes.keys()
    assert before.standby.private > 0
    assert after.standby.private - before.standby.private < GROWTH_BYTES
    assert after.standby.pss - before.standby.pss < GROWTH_BYTES
