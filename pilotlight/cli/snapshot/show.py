"""`pilotlight snapshot show`: what a snapshot is, and where its bytes came from, as it was told when they were
packed.
"""

from __future__ import annotations

from typing import Any

from pilotlight.cli.digests import find_digest
from pilotlight.cli.options import print_json, say
from pilotlight.cli.refusals import refusals
from pilotlight.cli.snapshot.store import described
from pilotlight.settings import Settings
from pilotlight.sizes import human
from snapshots.errors import LineageError
from snapshots.lineage import Step, steps
from snapshots.manifest import Manifest, read_manifest
from snapshots.store.disk import path_of


def show_snapshot(settings: Settings, text: str, *, as_json: bool) -> None:
    store = settings.paths.snapshots
    with refusals(f"cannot show {text}"):
        digest = find_digest(store, text)
        manifest = read_manifest(path_of(store, digest), digest)
        lineage, damage = _lineage(settings, digest)
    if damage:
        say(damage)
    if as_json:
        files = [{"path": file.path, "bytes": file.size, "sha256": file.sha256} for file in manifest.files]
        lines = [step.model_dump(mode="json") for step in lineage]
        print_json({**described(manifest), "lineage": lines, "file_list": files})
        return
    for line in described_in_lines(manifest, lineage):
        print(line)


def _lineage(settings: Settings, digest: str) -> tuple[tuple[Step, ...], str]:
    try:
        return steps(settings.paths.snapshots, digest), ""
    except LineageError as error:
        return (), str(error)


def described_in_lines(manifest: Manifest, lineage: tuple[Step, ...]) -> list[str]:
    """A line a fact, nothing cut: newest step first. Pure."""
    rows: list[tuple[str, Any]] = [
        ("digest", manifest.digest),
        ("architecture", manifest.architecture),
        ("dtype", manifest.dtype),
        ("tensors", manifest.tensors),
        ("size", human(manifest.size)),
    ]
    for step in reversed(lineage):
        rows += [
            ("origin", step.origin),
            ("commit", step.commit or "not known"),
            ("licence", step.licence or "not told"),
        ]
        rows.append((step.how, f"{step.at or 'at a time not kept'} by {step.by or 'somebody'}"))
        rows += [("", line) for line in step.left_out]
    if not lineage:
        rows.append(("origin", "not known: an earlier release packed it, or it came from another store"))
    rows += [("file", f"{file.sha256}  {human(file.size):>9}  {file.path}") for file in manifest.files]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]
