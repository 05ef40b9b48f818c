"""A file that is to be a backup, read as `pilotlight restore` reads it: nothing is written beside the new folder, and
what it writes has names that a backup has.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import typer

from pilotlight.cli.backup.backup import DUMP, FORMAT, MANIFEST
from pilotlight.cli.backup.restore import ALLOWED, unpack
from pilotlight.settings import Paths

_SAID = {"format": FORMAT, "schema": "0001", "database": True, "models": False, "made_at": "2026-11-27T00:00:00"}


def _tar(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()[: archive.offset]  # without the zeros that fill the last record


def _with_holes() -> bytes:
    """GNU's sparse format: 4 GiB of nothing."""
    entry = tarfile.TarInfo("spool/a.1.jsonl")
    entry.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    head[483:495] = b"%011o\0" % (1 << 32)
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + sum(head[156:512]) + 8 * 32)
    return _tar(_FIRST)[:-1024] + bytes(head) + bytes(1024)


_FIRST = {MANIFEST: json.dumps(_SAID).encode()}
WITH_HOLES = _with_holes()
SEEDS = (
    _tar(_FIRST | {"secrets/admin.key": b"k", DUMP: b"dump", "ca.pem": b"x"}),
    _tar(_FIRST | {"spool/a.1.jsonl": b"{}\n", f"snapshots/sha256-{'0' * 64}/config.json": b"{}"}, tarfile.GNU_FORMAT),
    _tar(_FIRST | {"spool/../../x": b"x"}, tarfile.USTAR_FORMAT),
    _tar({MANIFEST: b'{"format": Infinity}'}),
    _tar(_FIRST | {"journal/" + "j" * 300: b"x"}),
    WITH_HOLES,
)


def target(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="fuzz-backup-", dir="/dev/shm") as name, _quiet():
        paths = Paths(Path(name, "state"))
        with (
            contextlib.suppress(tarfile.TarError, typer.Exit, OSError),
            tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive,
        ):
            unpack(archive, paths, lambda text: None)
        assert os.listdir(name) in ([], ["state"]), "something was written beside the folder"
        written = [file for file in paths.state.rglob("*") if not file.is_dir()]
        for file in written:
            assert file.is_file() and ALLOWED.fullmatch(str(file.relative_to(paths.state))), file
        assert sum(file.stat().st_size for file in written) <= len(data), "more was written than the backup has"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stderr(io.StringIO()):
        yield
