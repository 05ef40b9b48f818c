"""What deploy and rm do: pack, ask the admin API, say how it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pilotlight.cli.api import Api
from pilotlight.cli.options import print_json, say
from pilotlight.cli.packing import find_snapshot, pack_model
from pilotlight.settings import Settings


def deploy_endpoint(settings: Settings, name: str, model: Path | str, wanted: dict[str, Any], *, as_json: bool) -> None:
    """Pack, then deploy. A folder already packed is not packed again; a digest must be in the store, or at the origin."""
    api = Api(settings.paths)
    manifest = find_snapshot(settings, model) if isinstance(model, str) else pack_model(settings, model)
    done = api.call("PUT", f"/endpoints/{name}", json={"digest": manifest.digest, "weight_bytes": manifest.tensor_bytes, **wanted})
    if as_json:
        print_json(done)
        return
    say(f"{name} is deployed: {manifest.digest[:19]}…, {wanted['min_replicas']} to {wanted['max_replicas']} replicas")
    print(f"{api.url}/e/{name}/v1")
    say(f'next: pilotlight run {name} "…"   or   pilotlight keys create {name}')


def remove_endpoint(settings: Settings, name: str) -> None:
    Api(settings.paths).call("DELETE", f"/endpoints/{name}")
    say(f"{name} is removed")
