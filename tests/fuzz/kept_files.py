"""What our processes keep on disk for each other and for a later release: torn, flipped or of another kind, it is
passed over with a reason, or believed; nothing of it ends a process.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from activator.edges import catalogue_file
from pilotlight import audit
from pilotlight.sealed import seal
from router.admission.auth import Keys
from router.ledger import keeping
from router.ledger.shelf import Shelf

_OPEN = b'{"kind":"open","event_id":"e1","org_id":"o","key_id":"k","endpoint_id":"ep","endpoint":"n","path":"/v1/completions","streamed":false,"at":1.0}'
_NOTE = audit.noted(act="key.create", object="demo", who="admin key", origin="here", at=1.0, asked={"name": "x"})
SEEDS = (
    b"\x00[]",
    b'\x00[{"endpoint_id":"e","name":"n","route":[["rev",1]],"revisions":[]}]',
    b"\x01" + _NOTE.bytes(),
    b'\x01{"act":"a","object":"o","who":"w","origin":"o","at":1e400}',
    b"\x01" + b"[" * 2000,
    b"\x02" + seal(b'{"open":' + _OPEN + b',"end":null,"engine":null}'),
    b'\x02{"open":' + _OPEN[:40] + b'{"open":' + _OPEN + b"}\n",
    b'\x03{"kind":"policy","version":1,"ahead_seconds":0,"keys":[{"hash":"00","key_id":"k","org_id":"o","endpoint_id":"e","scope":"inference"}]}',
)

_kept = tempfile.TemporaryDirectory(prefix="fuzz-kept-", dir="/dev/shm")  # to the end of the process
_folder = Path(_kept.name)


def target(data: bytes) -> None:
    """The first byte chooses whose file it is."""
    if data:
        (_catalogue, _audit, _shelf, _policy)[data[0] % 4](data[1:])


def _catalogue(content: bytes) -> None:
    file = _folder / "catalogue.json"
    file.write_bytes(content)
    found = catalogue_file.read(file)
    if found is not None:
        catalogue_file.write(file, found)
        assert catalogue_file.read(file) == found


def _audit(content: bytes) -> None:
    folder = _folder / "audit"
    folder.mkdir(exist_ok=True)
    (folder / "act.json").write_bytes(content)
    for _, note in audit.waiting(folder):
        assert note is None or len(note.bytes()) < 4 * audit.LARGEST


def _shelf(content: bytes) -> None:
    (_folder / "unpriced.jsonl").write_bytes(content)
    shelf = Shelf(_folder)
    cases, odd = shelf.read()
    shelf.keep(cases, odd)
    assert shelf.is_empty == (not cases and not odd)
    if not shelf.is_empty:
        again, still_odd = shelf.read()
        assert len(again) == len(cases) and still_odd == odd


def _policy(content: bytes) -> None:
    file = _folder / "policy.json"
    file.write_bytes(content)
    with contextlib.suppress(ValueError):
        policy = keeping.read(file)
        Keys(pepper=b"p" * 32, wall=time.time).replace(policy)
