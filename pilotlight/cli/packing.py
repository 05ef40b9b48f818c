"""Long work on model files with a progress bar, on a terminal only; and every way it can be refused as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pilotlight.cli.options import FAILED, UNREACHABLE, explain_os_error, say, stop
from pilotlight.settings import Settings
from snapshots.errors import NotStored, SnapshotError, Unreachable
from snapshots.manifest import Manifest

Progress = Callable[[int, int], None]  # bytes done, bytes in all


def pack_model(settings: Settings, model: Path) -> Manifest:
    """The model's snapshot, in the store of this installation; stops where the folder is refused."""
    from snapshots.pack import pack

    need_folder(model)
    settings.paths.make()
    with refusals(f"cannot pack {model}"), progress_bar("packing") as progress:
        return pack(model, settings.paths.snapshots, progress, tell=say, code=settings.snapshots.model_code)


def find_snapshot(settings: Settings, digest: str) -> Manifest:
    """The manifest of a snapshot that a node can have: in the store of this installation, or at its origin. Stops where it is in neither."""
    import asyncio

    from snapshots.judging import judge_contents, judge_names
    from snapshots.manifest import MANIFEST, parse_manifest, read_manifest
    from snapshots.store.disk import path_of
    from snapshots.store.origin import connect

    async def at_origin(url: str) -> Manifest:
        async with connect(url) as origin:
            return parse_manifest(await origin.manifest(digest), digest, f"{origin.name}/{MANIFEST}")

    url, code = settings.snapshots.origin, settings.snapshots.model_code
    with refusals(f"cannot use {digest[:19]}…"):
        try:
            folder = path_of(settings.paths.snapshots, digest)
        except NotStored:
            if not url:
                raise
            manifest = asyncio.run(at_origin(url))
            judge_names(manifest, code=code)  # its contents, the node that fetches it
            return manifest
        manifest = read_manifest(folder, digest)
        judge_names(manifest, code=code)
        judge_contents(folder, manifest, code=code)
        return manifest


def need_folder(model: Path) -> None:
    if not model.is_dir():
        stop(f"{model}: no such folder. It takes a Hugging Face folder with config.json and *.safetensors.")


@contextmanager
def refusals(doing: str) -> Iterator[None]:
    """What snapshots, the kernel or an object store refuse, as one line and an exit code."""
    try:
        yield
    except SnapshotError as error:
        stop(f"{doing}: {error}", UNREACHABLE if isinstance(error, Unreachable) else FAILED)
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
