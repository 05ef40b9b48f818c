"""`pilotlight usage export`: the answer of the admin API, byte by byte, to stdout or into a file that is whole or
absent.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pilotlight.cli.api import Api, ApiError, filters
from pilotlight.cli.options import say, stop
from pilotlight.settings import Settings


def export_usage(
    settings: Settings,
    *,
    format: str,
    endpoint: str | None,
    since: float | None,
    until: float | None,
    output: Path | None,
) -> None:
    parameters = {"format": format} | filters(endpoint, since, until)
    try:
        with (
            Api(settings.paths).stream("GET", "/api/v1/usage/export", params=parameters) as answer,
            _target(output) as target,
        ):
            written = 0
            for piece in answer.iter_bytes():
                target.write(piece)
                written += len(piece)
    except ApiError as error:
        if error.status == 404 and "/usage/export" in str(error):
            stop("this server has no export: run a newer Pilotlight, or take `pilotlight usage --json`")
        raise
    if output is not None:
        say(f"{written} bytes are in {output}")


@contextlib.contextmanager
def _target(output: Path | None) -> Iterator[BinaryIO]:
    """Stdout; or a file beside `output` that takes its name at the end. A pipe or a device is written to as it is.
    Raises OSError.
    """
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if output.exists() and not output.is_file():
        with output.open("wb") as stream:
            yield stream
        return
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
    except FileNotFoundError:
        stop(f"{output.parent}: no such folder; make it, or choose another file with -o")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
