"""The commands that change something: deploy, rm, keys create."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from pilotlight.cli.api import Api
from pilotlight.cli.main import stop
from pilotlight.settings import Settings
from snapshots.errors import SnapshotError
from snapshots.manifest import Manifest
from snapshots.pack import pack


def deploy_endpoint(settings: Settings, name: str, model: Path, wanted: dict[str, Any], *, as_json: bool) -> None:
    """Pack, then deploy. A folder already packed is not packed again."""
    api = Api(settings.paths)
    manifest = pack_with_progress(settings, model)
    done = api.call("PUT", f"/endpoints/{name}", json={"digest": manifest.digest, **wanted})
    if as_json:
        print(json.dumps(done))
        return
    typer.echo(f"{name} is deployed: {manifest.digest[:19]}…, {wanted['min_replicas']} to {wanted['max_replicas']} replicas", err=True)
    print(f"{api.url}/e/{name}/v1")
    typer.echo(f'next: pilotlight run {name} "…"   or   pilotlight keys create {name}', err=True)


def pack_with_progress(settings: Settings, model: Path) -> Manifest:
    if not model.is_dir():
        stop(f"--model {model}: no such folder. It takes a Hugging Face folder with config.json and *.safetensors.")
    settings.paths.make()
    try:
        return pack(model, settings.paths.snapshots)
    except SnapshotError as error:
        stop(f"cannot pack {model}: {error}")
    except OSError as error:
        stop(f"cannot pack {model}: {error.strerror} ({error.filename or settings.paths.snapshots})")


def remove_endpoint(settings: Settings, name: str) -> None:
    Api(settings.paths).call("DELETE", f"/endpoints/{name}")
    typer.echo(f"{name} is removed", err=True)


def create_key(settings: Settings, name: str, label: str, expires_in: float | None, *, as_json: bool) -> None:
    api = Api(settings.paths)
    body = {"name": label} | ({"expires_in_seconds": expires_in} if expires_in is not None else {})
    made = api.call("POST", f"/endpoints/{name}/keys", json=body)
    if as_json:
        print(json.dumps(made))
        return
    print(made["key"])
    typer.echo(f"Keep it now, it is not shown again. Base URL: {api.url}/e/{name}/v1   CA: {api.ca_file}", err=True)
