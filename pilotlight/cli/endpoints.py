"""What deploy and rm do: pack, ask the admin API, say how it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from activator.wire import Changes
from pilotlight.cli.api import Api
from pilotlight.cli.keys import UNTOLD
from pilotlight.cli.manifest import explain
from pilotlight.cli.options import USAGE, print_json, say, stop
from pilotlight.cli.packing import find_snapshot, pack_model
from pilotlight.settings import Settings


def deploy_endpoint(settings: Settings, name: str, model: Path | str, wanted: dict[str, Any], *, as_json: bool) -> None:
    """Pack, then deploy. A folder already packed is not packed again; a digest must be in the store, or at the origin.

    `wanted` is judged before anything is packed, by the bounds the server has.
    """
    try:
        Changes.model_validate(wanted)
    except ValidationError as error:
        stop(explain(error), USAGE)
    api = Api(settings.paths)
    manifest = find_snapshot(settings, model) if isinstance(model, str) else pack_model(settings, model)
    done = api.call("PUT", f"/endpoints/{name}", json={"digest": manifest.digest, "weight_bytes": manifest.tensor_bytes, **wanted})
    if as_json:
        print_json(done)
        return
    replicas = f", {done['min_replicas']} to {done['max_replicas']} replicas" if "max_replicas" in done else ""
    say(f"{name} is deployed: {manifest.digest[:19]}…{replicas}")
    print(f"{api.url}/e/{name}/v1")
    say(f'next: pilotlight run {name} "…"   or   pilotlight keys create {name}')


def remove_endpoint(settings: Settings, name: str) -> None:
    done = Api(settings.paths).call("DELETE", f"/endpoints/{name}")
    keys = done.get("revoked_keys", 0)
    revoked = f"{keys} live {'key is' if keys == 1 else 'keys are'} revoked" if keys else "it had no live key"
    prices = "its own prices are over" if done.get("prices_ended") else "it had no prices of its own"
    say(f"{name} is removed: {revoked}, {prices}; usage and history stay. Deployed again, the name begins without them.")
    if not done.get("everywhere", True):
        say(UNTOLD)
