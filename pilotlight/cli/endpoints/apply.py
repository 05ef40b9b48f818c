"""`pilotlight apply`: plan against the server, show the plan, carry it out. The second time there is nothing to do."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import Any

from pilotlight.cli.acts import who
from pilotlight.cli.api import Api, ApiError
from pilotlight.cli.endpoints.manifest import EndpointManifest, ManifestError, read_manifest, schema
from pilotlight.cli.endpoints.meant_for import meant_for
from pilotlight.cli.endpoints.rollouts import Outcome, end, follow
from pilotlight.cli.model_names import folder_named, is_on_hub
from pilotlight.cli.options import USAGE, say, stop
from pilotlight.cli.packing import find_snapshot, known_of_hub, pack_model
from pilotlight.cli.refusals import refusals
from pilotlight.cli.tables import Table, show, written
from pilotlight.settings import Settings
from snapshots.manifest import Manifest

TOO_LATE = "earlier requests keep their price. Give a later time, or none, which means now"
NO_PRICES = "this server does not support prices: remove [prices] from the manifest, or run a newer Pilotlight"


@dataclass(frozen=True)
class Plan:
    """`changes`: field → (now, after); now is None for an endpoint that is not there yet."""

    name: str
    exists: bool
    changes: dict[str, tuple[Any, Any]]

    def shown(self) -> dict[str, Any]:
        verb = "nothing" if not self.changes else "change" if self.exists else "create"
        return {
            "name": self.name,
            "action": verb,
            "changes": {field: {"now": a, "after": b} for field, (a, b) in self.changes.items()},
        }


def apply_manifest(
    settings: Settings, file: Path, *, dry_run: bool, as_json: bool, wait: bool = True, at_once: bool = False
) -> None:
    """All that can be refused is refused before anything is packed."""
    manifest = _read(file)
    if manifest.model is not None and not is_on_hub(manifest.model):
        folder_named(manifest.model, beside=_place(file))
    api = Api(settings.paths)
    prices, prices_now = _compared_prices(api, manifest)
    found = _snapshot(settings, manifest, file, dry_run=dry_run)
    weights = {} if isinstance(found, str) or dry_run else {"weight_bytes": found.tensor_bytes}
    wanted = {"digest": found if isinstance(found, str) else found.digest, **manifest.configuration()}
    meant = meant_for(found) if not isinstance(found, str) and "task" not in manifest.model_fields_set else None
    if meant is not None:
        wanted["task"], why = meant
        say(f'{manifest.name}: {why}, so task is "{meant[0]}"; write task to have another')
    plan = make_plan(
        manifest.name, wanted, prices, now=_as_it_is_to_be(_endpoint(api, manifest.name)), prices_now=prices_now
    )
    outcome = Outcome("serves")
    if not dry_run:
        deploy = _execute(api, plan, wanted | weights | {"at_once": at_once, "by": who()}, prices)
        if deploy:
            outcome = follow(api, plan.name, deploy, wait=wait, at_once=at_once)
    if as_json:
        end(outcome, {**plan.shown(), "dry_run": dry_run}, as_json=True)
        return
    end(outcome, {}, as_json=False)
    _show(api, plan, dry_run=dry_run)


def _snapshot(settings: Settings, manifest: EndpointManifest, file: Path, *, dry_run: bool) -> Manifest | str:
    """What it is to serve, packed unless this is a dry run; of a model of a hub that is not here yet, a few words.
    Stops where it is refused.
    """
    if manifest.digest is not None:
        return find_snapshot(settings, manifest.digest)
    assert manifest.model is not None
    if not dry_run:
        return pack_model(settings, manifest.model, beside=_place(file))
    if is_on_hub(manifest.model):
        return known_of_hub(settings, manifest.model)
    return _manifest_of(folder_named(manifest.model, beside=_place(file)), code=settings.snapshots.model_code)


def _place(file: Path) -> Path:
    """Where its relative paths begin: beside the manifest, or here where that came from stdin."""
    return Path() if str(file) == "-" else file.parent


def make_plan(
    name: str,
    wanted: dict[str, Any],
    prices: dict[str, str],
    *,
    now: dict[str, Any] | None,
    prices_now: dict[str, Any] | None,
) -> Plan:
    """What differs. Pure."""
    changes = {
        field: (now.get(field) if now else None, value)
        for field, value in wanted.items()
        if now is None or now.get(field) != value
    }
    return Plan(name, now is not None, changes | price_changes(prices, prices_now))


def price_changes(prices: dict[str, str], now: dict[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    """What differs of them. Pure."""
    current = {field: (now or {}).get(field) for field in prices}
    differ = [
        field
        for field, price in prices.items()
        if current[field] is None or not _same_price(field, str(current[field]), price)
    ]
    return {f"prices.{field.removesuffix('_per_million')}": (current[field], prices[field]) for field in differ}


def _same_price(field: str, current: str, wanted: str) -> bool:
    if field == "valid_from":
        return datetime.fromisoformat(current) == datetime.fromisoformat(wanted)
    return Decimal(current) == Decimal(wanted)


def print_schema() -> None:
    print(schema())


def _read(file: Path) -> EndpointManifest:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        return read_manifest(text, "stdin" if str(file) == "-" else str(file))
    except FileNotFoundError:
        stop(f"{file}: no such manifest. `pilotlight apply --schema` prints what may stand in one.", USAGE)
    except UnicodeDecodeError:
        stop(f"{file} is not text: a manifest is a TOML file in UTF-8", USAGE)
    except ManifestError as error:
        stop(str(error), USAGE)


def _endpoint(api: Api, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = api.call("GET", f"/endpoints/{name}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return found


def _prices(api: Api, name: str, valid_from: datetime | None) -> dict[str, Any] | None:
    """What the endpoint's tokens cost now, by a price of its own or a default; where `valid_from` is still to come,
    what it has said they cost from then on. None where the server cannot say, or has not been told.
    """
    try:
        found = api.call("GET", f"/endpoints/{name}/prices")
    except ApiError as error:
        if error.status in (404, 405):
            return None
        raise
    in_force: dict[str, Any] | None = found["in_force"]
    if valid_from is None or valid_from <= datetime.now(UTC):
        return in_force
    # newest first, down to where the name was last removed
    versions = takewhile(lambda row: not row.get("ends"), found["data"])
    return next((row for row in versions if datetime.fromisoformat(row["valid_from"]) == valid_from), None)


def _compared_prices(api: Api, manifest: EndpointManifest) -> tuple[dict[str, str], dict[str, Any] | None]:
    """The prices that are wanted, and those to compare them with. Stops where they should have begun before now, and
    others did.
    """
    if manifest.prices is None:
        return {}, None
    valid_from, prices = manifest.prices.valid_from, manifest.prices.body()
    now = _prices(api, manifest.name, valid_from)
    if valid_from is not None and valid_from <= datetime.now(UTC):
        del prices["valid_from"]
        if price_changes(prices, now):
            stop(
                f"prices.valid_from is {valid_from.isoformat()}, which is in the past, and other prices are in force: {TOO_LATE}",
                USAGE,
            )
    return prices, now


def _as_it_is_to_be(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """With the configuration that is on its way, where one is."""
    return row | (row.get("next") or {}) if row else None


def _execute(api: Api, plan: Plan, wanted: dict[str, Any], prices: dict[str, str]) -> dict[str, Any] | None:
    """Returns what was deployed, if anything."""
    deploy: dict[str, Any] | None = None
    if any(not field.startswith("prices.") for field in plan.changes):
        deploy = api.call("PUT", f"/endpoints/{plan.name}", json=wanted)["deploy"]
    if any(field.startswith("prices.") for field in plan.changes):
        try:
            api.call("PUT", f"/endpoints/{plan.name}/prices", json=prices)
        except ApiError as error:
            if error.status in (404, 405):
                stop(f"{plan.name} is applied, but its prices are not: {NO_PRICES}")
            raise
    return deploy


def _show(api: Api, plan: Plan, *, dry_run: bool) -> None:
    if not plan.changes:
        say(f"{plan.name} is as the manifest says: nothing to do")
    elif dry_run:
        say(f"{plan.name} would be {'changed' if plan.exists else 'created'}; nothing has been done")
    else:
        say(f"{plan.name} is {'changed' if plan.exists else 'created'}")
    if plan.changes:
        table = Table("field", "now", "after")
        for field, (now, after) in plan.changes.items():
            table.add_row(field, written(now), written(after))
        show(table)
    if not dry_run:
        say(f"{api.url}/e/{plan.name}/v1")


def _manifest_of(folder: Path, *, code: bool) -> Manifest:
    """What packing would give, without writing a byte; reads all of it."""
    from snapshots.pack import manifest_of

    with refusals(f"cannot pack {folder}"):
        return manifest_of(folder, code=code)
