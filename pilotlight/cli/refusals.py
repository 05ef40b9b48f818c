"""Long work on model files: a progress bar on a terminal; each refusal is one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pilotlight.cli.options import FAILED, UNREACHABLE, explain_os_error, stop
from snapshots.errors import HubAway, SnapshotError, Unreachable

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@contextmanager
def refusals(doing: str) -> Iterator[None]:
    """What snapshots, the kernel or an object store refuse, as one line and an exit code."""
    try:
        yield
    except SnapshotError as error:
        stop(f"{doing}: {error}", UNREACHABLE if isinstance(error, Unreachable | HubAway) else FAILED)
    except OSError as error:
        stop(f"{doing}: {explain_os_error(error)}")


@contextmanager
def progress_bar(what: str) -> Iterator[Progress | None]:
    """A bar on stderr where that is a terminal, else None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
