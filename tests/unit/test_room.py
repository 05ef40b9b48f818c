"""A full disk: when new calls are refused and why, what is kept for what runs, given up and taken again, and what is
told of it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.cli import shares
from pilotlight.cli.up import rotation
from pilotlight.cli.up.reserve import Reserve, allocate
from pilotlight.database.embedded import wal
from pilotlight.room import Room, Watched, blocks, held, look, reserve, shortage, taken
from pilotlight.settings import DiskSettings, Paths, load
from router.errors import DiskFull, answer
from router.spool.spool import Spool
from tests.small_disks import fill, small_disk

MB = 1 << 20
LIMITS = DiskSettings(
    floor_bytes=MB, reserve_bytes=MB, postgres_reserve_bytes=MB // 2, spool_bytes=MB, journal_bytes=MB
)


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    """A state folder on a disk of 8 MiB."""
    with small_disk(tmp_path / "d", 8 * MB) as folder:
        made = Paths(folder)
        made.make()
        yield made


@pytest.mark.parametrize(
    ("room", "says"),
    [
        (Room(free=MB, held=reserve(LIMITS)), ""),
        (
            Room(free=MB - 1, held=reserve(LIMITS)),
            "disk full: 1 MB free besides the reserve, 1 MB needed (disk.floor_bytes)",
        ),
        (Room(free=MB + reserve(LIMITS), held=0), ""),
        (Room(free=MB + reserve(LIMITS) - 1, held=0), "disk full: 1 MB free besides"),
        (Room(free=0), "disk full: 0 B free besides"),
        (
            Room(free=9 * MB, spool=MB),
            "disk full: the spool has 1 MB of 1 MB (disk.spool_bytes) and waits for Postgres",
        ),
        (Room(free=9 * MB, journal=2 * MB), "disk full: the journal has 2 MB of 1 MB (disk.journal_bytes)"),
    ],
)
def test_why_no_new_call_is_taken(room: Room, says: str) -> None:
    found = shortage(room, LIMITS)
    assert found.startswith(says) and bool(found) == bool(says)


def test_giving_up_the_reserve_lets_no_new_call_in(paths: Paths) -> None:
    said: list[str] = []
    keeper = Reserve(paths, LIMITS, said.append)
    keeper.look()
    assert held(paths) == reserve(LIMITS) and not said and not shortage(look(paths), LIMITS)
    filler = fill(paths.state, leave=MB // 8)
    assert "disk full" in shortage(look(paths), LIMITS)
    keeper.look()
    keeper.look()
    assert blocks(paths.reserve) == 0 and blocks(paths.postgres_reserve) == MB // 2
    assert len(said) == 1 and "given up to what runs" in said[0]
    assert "disk full" in shortage(look(paths), LIMITS)  # there is room, for what runs alone
    keeper.for_postgres()
    assert held(paths) == 0 and "given up to Postgres" in said[1] and "disk full" in shortage(look(paths), LIMITS)
    filler.unlink()
    keeper.look()
    assert held(paths) == reserve(LIMITS) and not shortage(look(paths), LIMITS) and len(said) == 4


def test_a_disk_too_small_for_the_reserve_has_none_and_says_so_once(paths: Paths) -> None:
    said: list[str] = []
    keeper = Reserve(paths, DiskSettings(floor_bytes=0, reserve_bytes=64 * MB, postgres_reserve_bytes=MB), said.append)
    for _ in range(3):
        keeper.look()
    assert blocks(paths.reserve) == 0 and blocks(paths.postgres_reserve) == MB
    with pytest.raises(OSError, match="No space"):
        allocate(paths.reserve, 64 * MB)
    assert paths.reserve.stat().st_size == 0


def test_what_is_known_of_the_disk_is_looked_at_now_and_then() -> None:
    now = 0.0
    looks: list[Room | OSError] = [Room(free=0), OSError("gone"), Room(free=9 * MB)]

    def looked() -> Room:
        found = looks.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    watched = Watched(looked, LIMITS, clock=lambda: now)
    assert "disk full" in watched() and "disk full" in watched() and len(looks) == 2
    now = 1.0
    assert "cannot be looked at: gone" in watched()
    now = 2.0
    assert watched() == "" and not looks


async def test_a_full_disk_refuses_what_is_new_and_ends_what_runs(paths: Paths) -> None:
    now = 0.0
    room = Watched(lambda: look(paths), LIMITS, clock=lambda: now)
    spool = Spool(paths.spool, "w", loop=asyncio.get_running_loop(), shortage=room)
    spool.open(b'{"open":1}\n')
    filler, now = fill(paths.state, leave=MB // 4), 1.0
    with pytest.raises(DiskFull, match=r"Disk full: .* free besides the reserve, 1 MB needed") as refused:
        spool.open(b'{"open":2}\n')
    told = answer(refused.value, keep_alive=True)
    assert b" 503 " in told and b"retry-after: 5" in told and b'"code": "disk_full"' in told
    spool.end(b'{"end":1}\n')
    spool.flush()
    filler.unlink()
    now = 2.0
    spool.open(b'{"open":3}\n')
    spool.close()
    assert (paths.spool / "w.0.jsonl").read_bytes() == b'{"open":1}\n{"end":1}\n{"open":3}\n'


def test_all_logs_together_stay_below_their_bound(tmp_path: Path) -> None:
    ages = {"a.log.2": 1, "b.log.1": 2, "a.log.1": 3, "a.log": 0, "b.log": 4}
    for name, age in ages.items():
        (tmp_path / name).write_bytes(b"x" * (2000 if name == "b.log" else 1000))
        os.utime(tmp_path / name, (age, age))
    (tmp_path / "other").write_bytes(b"x" * 9000)
    assert rotation.bound([tmp_path], 6000) == []
    assert [file.name for file in rotation.bound([tmp_path], 5000)] == ["a.log.2"]
    assert [file.name for file in rotation.bound([tmp_path], 1000)] == ["b.log.1", "a.log.1", "b.log"]
    assert (
        (tmp_path / "b.log").stat().st_size == 0
        and (tmp_path / "a.log").stat().st_size == 1000
        and (tmp_path / "other").exists()
    )


def test_the_log_of_changes_has_the_size_it_was_given() -> None:
    assert wal(256 * MB) == {"min_wal_size": "32MB", "max_wal_size": "256MB"}
    assert wal(16 * MB) == {"min_wal_size": "8MB", "max_wal_size": "16MB"}


def test_doctor_and_ps_show_who_has_what(paths: Paths) -> None:
    disk = {name: getattr(LIMITS, name) for name in LIMITS.model_fields_set}
    settings = load(state_dir=paths.state, disk=disk, database_url="")
    Reserve(paths, settings.disk, print).look()
    (paths.spool / "w.0.jsonl").write_bytes(b"x" * 8192)
    found = {share.name: share for share in shares.shares(settings)}
    assert found["spool"].used == 8192 == taken(paths.spool) and found["spool"].bound == MB
    assert found["Postgres"].kept == MB // 2 and found["these three"].kept == MB
    assert shares.bounds(settings).ok and "spool 8 kB of 1 MB" in shares.bounds(settings).text
    (paths.spool / "w.1.jsonl").write_bytes(b"x" * MB)
    full = shares.bounds(settings)
    assert not full.ok and "new calls are refused: disk full: the spool" in full.text
    assert shares.shares_table(shares.shares(settings), paths).row_count == len(found)
