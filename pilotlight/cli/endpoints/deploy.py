"""What deploy and rm do: pack, ask the admin API, say how it went."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from activator.wire import Changes
from pilotlight.cli.acts import who
from pilotlight.cli.api import Api, warn_unconfirmed
from pilotlight.cli.endpoints.manifest import explain
from pilotlight.cli.endpoints.meant_for import meant_for
from pilotlight.cli.endpoints.rollouts import Outcome, end, follow, until_ready
from pilotlight.cli.options import USAGE, print_json, say, stop
from pilotlight.cli.packing import find_snapshot, pack_model
from pilotlight.settings import Settings


def deploy_endpoint(
    settings: Settings,
    name: str,
    model: str | None,
    wanted: dict[str, Any],
    *,
    digest: str | None = None,
    unset: list[str],
    at_once: bool = False,
    wait: bool = True,
    as_json: bool = False,
) -> None:
    """Pack, then deploy, then wait until it serves. A model already packed is not packed again; a digest must be in the
    store, or at the origin; neither: the snapshot it has. Engine arguments given are added to those it has, and those
    in `unset` are taken away.

    `wanted` is judged before anything is packed, by the bounds the server has.
    """
    try:
        Changes.model_validate(wanted)
    except ValidationError as error:
        stop(explain(error), USAGE)
    api = Api(settings.paths)
    snapshot: dict[str, Any] = {}
    if model or digest:
        manifest = find_snapshot(settings, digest) if digest else pack_model(settings, str(model))
        snapshot = {"digest": manifest.digest, "weight_bytes": manifest.tensor_bytes}
        if "task" not in wanted and (meant := meant_for(manifest)) is not None:
            task, why = meant
            wanted = wanted | {"task": task}
            say(f"{name} is deployed with --task {task}, for {why}")
    how = {"merge_engine_args": True, "unset_engine_args": unset, "at_once": at_once, "by": who()}
    done = api.call("PUT", f"/endpoints/{name}", json=snapshot | wanted | how)
    deploy = done["deploy"]
    outcome = follow(api, name, deploy, wait=wait, at_once=at_once)
    if deploy["pending"] and wait:
        done = api.call("GET", f"/endpoints/{name}") | {"deploy": deploy | {"pending": False}}
    end(outcome, done, as_json=as_json)
    if as_json:
        return
    if outcome.kind != "on its way":
        replicas = f", {done['min_replicas']} to {done['max_replicas']} replicas" if "max_replicas" in done else ""
        revision = (
            ", as it was" if not deploy["changed"] else f", revision {deploy['number']}" if deploy["number"] > 1 else ""
        )
        tried = (
            "; not started yet: its first call, or `pilotlight wake`, shows whether it serves"
            if outcome.kind == "not tried"
            else ""
        )
        say(f"{name} is deployed: {done.get('digest', '')[:19]}…{replicas}{revision}{tried}")
    print(f"{api.url}/e/{name}/v1")
    say(f'next: pilotlight run {name} "…"   or   pilotlight keys create {name}')


def wake_endpoint(settings: Settings, name: str, *, wait: bool, as_json: bool) -> None:
    api = Api(settings.paths)
    woken = api.call("POST", f"/endpoints/{name}/wake")
    deploy = {"number": woken["number"], "revision_id": woken["revision_id"]}
    if not (woken["ready"] or wait):
        outcome = Outcome("on its way")
    else:
        outcome = Outcome("serves") if woken["ready"] else until_ready(api, name, deploy)
    end(outcome, woken | {"ready": outcome.kind == "serves"}, as_json=as_json)
    if not as_json:
        say(
            f"{name} {'was awake' if woken['ready'] else 'is awake' if outcome.kind == 'serves' else 'starts; `pilotlight ps` shows it'}"
        )


def set_paused(settings: Settings, name: str, *, paused: bool, as_json: bool) -> None:
    """Of an endpoint there is; one that is so already stays so, and that is not a failure."""
    api = Api(settings.paths)
    api.call("GET", f"/endpoints/{name}")  # a name that is none is told as such
    done = api.call("PUT", f"/endpoints/{name}", json={"paused": paused, "by": who()})
    if as_json:
        print_json(done)
    elif paused:
        say(
            f"{name} is paused: running answers may finish, and callers get 503. `pilotlight resume {name}` serves it again."
        )
    else:
        say(f"{name} is served again: its next call wakes it")


def fields_given(pairs: list[str]) -> dict[str, Any]:
    """FIELD=VALUE as the configuration's own types; stops where a field is none, or its value not allowed. Hyphens may
    be underscores.
    """
    known = {field for field in Changes.model_fields if field != "engine_args"}
    given: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        field = name.strip().replace("-", "_")
        if not equals:
            stop(f"{pair!r} is not FIELD=VALUE, such as idle_timeout_seconds=7", USAGE)
        if field not in known:
            near = get_close_matches(field, known, n=1)
            meant = f"; {near[0]} may be meant" if near else ""
            stop(
                f"there is no field {name!r} to set{meant}: there are {', '.join(sorted(known))}; engine arguments are set with --engine-arg",
                USAGE,
            )
        given[field] = value
    try:
        return Changes.model_validate(given).model_dump(exclude_unset=True)
    except ValidationError as error:
        stop(explain(error), USAGE)


def remove_endpoint(settings: Settings, name: str, *, as_json: bool) -> None:
    done = Api(settings.paths).call("DELETE", f"/endpoints/{name}")
    if as_json:
        print_json(done)
        return
    keys = done.get("revoked_keys", 0)
    revoked = f"{keys} live {'key is' if keys == 1 else 'keys are'} revoked" if keys else "it had no live key"
    prices = "its own prices are over" if done.get("prices_ended") else "it had no prices of its own"
    say(
        f"{name} is removed: {revoked}, {prices}; usage and history stay. Deployed again, the name begins without them."
    )
    warn_unconfirmed(done)
