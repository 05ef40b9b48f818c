"""Who reads along with a fetch is given no byte before it is good, and is told when the fetch has failed or died."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from snapshots.arrival import Arrival, FetchEnded, Writer, arrived
from snapshots.chunks import chunks_of
from snapshots.manifest import CHUNK, Manifest, SnapshotFile
from snapshots.transfer import in_order


def file(path: str, size: int) -> SnapshotFile:
    sha256 = hashlib.sha256(b"").hexdigest()
    return SnapshotFile(
        path=path, size=size, sha256=sha256, chunks=(sha256,) * -(-size // CHUNK) if size > CHUNK else ()
    )


MANIFEST = Manifest(
    architecture="A", dtype="bfloat16", tensors=1, tensor_bytes=1,
    files=(file("a.safetensors", 3 * CHUNK), file("b.safetensors", CHUNK + 1), file("config.json", 10), file("empty", 0)),
)  # fmt: skip


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path, MANIFEST)


def returns(arrival: Arrival, path: str, begin: int, end: int) -> bool:
    """Does a wait return by itself? One that does not is left behind: it ends with the fetch."""
    returned = threading.Event()

    def wait() -> None:
        try:
            arrival.wait(path, begin, end)
        except FetchEnded:
            return
        returned.set()

    threading.Thread(target=wait, daemon=True).start()
    return returned.wait(0.02)


def test_bytes_are_given_out_when_all_their_chunks_are_good(tmp_path: Path, writer: Writer) -> None:
    arrival = Arrival(tmp_path)
    writer.good("a.safetensors", 1)
    writer.good("b.safetensors", 0)
    assert returns(arrival, "a.safetensors", CHUNK, 2 * CHUNK)
    assert not returns(arrival, "a.safetensors", CHUNK - 1, CHUNK + 1)
    assert not returns(arrival, "a.safetensors", CHUNK, 2 * CHUNK + 1)
    assert returns(arrival, "b.safetensors", 0, CHUNK)
    assert not returns(arrival, "b.safetensors", 0, CHUNK + 1)
    assert returns(arrival, "empty", 0, 0)
    writer.complete()
    assert returns(arrival, "a.safetensors", 0, 3 * CHUNK)
    writer.close()
    assert returns(arrival, "config.json", 0, 10)


def test_a_fetch_that_failed_is_told(tmp_path: Path, writer: Writer) -> None:
    arrival = Arrival(tmp_path)
    threading.Timer(0.01, writer.close).start()
    with pytest.raises(FetchEnded, match=r"a\.safetensors ended before bytes 0 to 8"):
        arrival.wait("a.safetensors", 0, 8)


DIES = """
import sys
from pathlib import Path
from snapshots.arrival import Writer
from snapshots.manifest import Manifest
writer = Writer(Path(sys.argv[1]), Manifest.model_validate_json(sys.argv[2]))
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_fetch_whose_process_was_killed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapshots.arrival.ALIVE_SECONDS", 0.01)
    command = [sys.executable, "-c", DIES, str(tmp_path), MANIFEST.canonical().decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        arrival = Arrival(tmp_path)
        assert not returns(arrival, "config.json", 0, 10)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(FetchEnded):
            arrival.wait("config.json", 0, 10)


def test_the_next_try_has_a_word_of_its_own(tmp_path: Path, writer: Writer) -> None:
    first = Arrival(tmp_path)
    writer.good("config.json", 0)
    writer.close()
    again = Writer(tmp_path, MANIFEST)
    assert not returns(Arrival(tmp_path), "config.json", 0, 10)
    again.complete()
    with pytest.raises(FetchEnded):
        first.wait("a.safetensors", 0, 1)


def test_what_an_engine_reads_first_comes_first() -> None:
    early, late = in_order([chunk for file in MANIFEST.files for chunk in chunks_of(file)])
    assert [chunk.key for chunk in early] == [("config.json", 0), ("a.safetensors", 0), ("b.safetensors", 0)]
    assert [chunk.key for chunk in late] == [("a.safetensors", 1), ("a.safetensors", 2), ("b.safetensors", 1)]


def test_how_much_is_there_can_be_asked_at_any_time(tmp_path: Path, writer: Writer) -> None:
    assert arrived(tmp_path) == 0.0
    for number in (0, 2):
        writer.good("a.safetensors", number)
    assert arrived(tmp_path) == pytest.approx(2 / 6)
    writer.close()
    assert arrived(tmp_path / "nothing") is None
