"""A manifest says what is wrong by field; its bounds are the server's; applying plans before it acts."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer

from pilotlight.cli.api import Api
from pilotlight.cli.endpoints.apply import _compared_prices, make_plan, price_changes
from pilotlight.cli.endpoints.manifest import EndpointManifest, ManifestError, read_manifest
from router.admin.bodies import EndpointBody, PriceBody

WHOLE = """
name = "chat"
model = "models/qwen"
task = "generate"
min_replicas = 1
max_replicas = 2
idle_timeout_seconds = 30
slots = 8
hold_seconds = 20.5
max_held = 5
[engine_args]
"max-model-len" = 2048
[prices]
input = 0.1
cached = "0.05"
output = 1
"""


def test_a_whole_manifest() -> None:
    manifest = read_manifest(WHOLE, "endpoint.toml")
    assert manifest.configuration() == {
        "task": "generate",
        "engine_args": {"max-model-len": 2048},
        "min_replicas": 1,
        "max_replicas": 2,
        "idle_timeout_seconds": 30.0,
        "slots": 8,
        "target_concurrency": 0,
        "zero": "standby",
        "allow": [],
        "media_hosts": [],
        "hold_seconds": 20.5,
        "finish_seconds": 3600.0,
        "max_held": 5,
        "cors_origins": [],
    }
    assert manifest.prices is not None
    assert manifest.prices.body() == {
        "input_per_million": "0.1",
        "cached_per_million": "0.05",
        "output_per_million": "1",
    }
    assert PriceBody(**manifest.prices.body()).input_per_million == Decimal("0.1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "name: Field required"),
        ('name = "chat"', "give one of model"),
        ('name = "chat"\nmodel = "a"\ndigest = "sha256:' + "a" * 64 + '"', "give one of model"),
        ('name = "Chat"\nmodel = "a"', "name: "),
        ('name = "chat"\nmodel = "a"\nslot = 3', "slot: there is no such field; slots may be meant"),
        ('name = "chat"\nmodel = "a"\nslots = 0', "slots: Input should be greater than or equal to 1 (got 0)"),
        ('name = "chat"\nmodel = "a"\nslots = "many"', "slots: "),
        ('name = "chat"\nmodel = "a"\nmin_replicas = 3', "max_replicas (1) must not be less than min_replicas (3)"),
        ('name = "chat"\nmodel = "a"\nengine_args = {a = [1]}', "engine_args.a: must be text, a number, true or false"),
        ('name = "chat"\ndigest = "7db3"', "digest: "),
        ('name = "chat"\nmodel = "a"\n[prices]\ninput = -1\ncached = 0\noutput = 0', "prices.input: "),
        ('name = "chat"\nmodel = "a"\n[prices]\ninput = 1', "prices.cached: Field required"),
        ('name = "chat"\nmodel = "a"\nidle_timeout_seconds = nan', "idle_timeout_seconds: "),
        ('name = "chat"\nmodel = "a"\nidle_timeout_seconds = 604801', "idle_timeout_seconds: "),
        (
            'name = "chat"\nmodel = "a"\nslots = 4\ntarget_concurrency = 5',
            "target_concurrency (5) must not be more than slots (4)",
        ),
        (
            'name = "chat"\nmodel = "a"\ntask = "embed"\nzero = "parked"',
            "only a replica with the task generate can be parked",
        ),
        (
            'name = "chat"\nmodel = "a"\ntask = "classify"',
            "task: Input should be 'generate', 'embed' or 'score' (got 'classify')",
        ),
        ('name = "chat"\nmodel = "a"\nengine_args = {a = nan}', "engine_args.a: must be a finite number"),
        (
            'name = "chat"\nmodel = "a"\n[prices]\ninput = 1\ncached = 1\noutput = 1\nvalid_from = 5',
            "prices.valid_from: must be a time",
        ),
        ('name = "chat"\nmodel = "a"\nallow = ["beam_search"]', "allow.0: "),
        ('name = "chat"\nmodel = "a"\nallow = 3', "allow: "),
        (
            'name = "chat"\nmodel = "a"\nmedia_hosts = ["a.example"]',
            'media_hosts names hosts, and allow has no "media"',
        ),
        ('name = "chat"\nmodel = "a"\nallow = ["media"]\nmedia_hosts = ["https://a.example"]', "media_hosts.0: "),
        ('name = "chat"\nmodel = "a"\nallow = ["media"]\nmedia_hosts = ["localhost"]', "media_hosts.0: "),
        ('name = "chat"\nmodel = "a"\nallow = ["media"]\nmedia_hosts = ["169.254.169.254"]', "media_hosts.0: "),
        ("name = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(ManifestError, match=r"^endpoint\.toml") as caught:
        read_manifest(text, "endpoint.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "written",
    ["2999-01-01T00:00:00Z", "2999-01-01T01:00:00+01:00", "2999-01-01T00:00:00", "2999-01-01", '"2999-01-01"'],
)
def test_a_price_may_begin_later(written: str) -> None:
    manifest = read_manifest(
        f'name = "c"\nmodel = "a"\n[prices]\ninput = 1\ncached = 1\noutput = 1\nvalid_from = {written}', "f"
    )
    assert manifest.prices and manifest.prices.body()["valid_from"] == "2999-01-01T00:00:00+00:00"
    assert PriceBody.model_validate(manifest.prices.body()).valid_from == manifest.prices.valid_from


def test_its_bounds_are_the_servers() -> None:
    """So that nothing is packed for a configuration the server then refuses."""
    ours, theirs = (_bare(model.model_json_schema()["properties"]) for model in (EndpointManifest, EndpointBody))
    how = {"merge_engine_args", "unset_engine_args", "at_once", "by"}  # of the deploy, not of the endpoint
    told = set(theirs) - {"digest", "weight_bytes"} - how  # those two are read from the packed snapshot
    assert {name: ours[name] for name in told} == {name: theirs[name] for name in told}


def _bare(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in field.items() if key not in ("title", "description")}
        for name, field in properties.items()
    }


def test_a_plan_for_a_new_endpoint_has_every_field() -> None:
    plan = make_plan(
        "chat",
        {"slots": 8, "task": "embed"},
        {"input_per_million": "1"},
        now=None,
        prices_now={"input_per_million": "0.1"},
    )
    assert plan.changes == {"slots": (None, 8), "task": (None, "embed"), "prices.input": ("0.1", "1")}
    assert plan.shown()["action"] == "create"


def test_a_plan_has_only_what_differs() -> None:
    now = {"slots": 8, "task": "embed", "created_at": "…"}
    plan = make_plan("chat", {"slots": 9, "task": "embed"}, {}, now=now, prices_now=None)
    assert plan.changes == {"slots": (8, 9)}
    assert plan.shown()["action"] == "change"


def test_applied_again_there_is_nothing_to_do() -> None:
    prices = {"input_per_million": "0.10"}
    plan = make_plan("chat", {"slots": 8}, prices, now={"slots": 8}, prices_now={"input_per_million": "0.1000000000"})
    assert not plan.changes
    assert plan.shown()["action"] == "nothing"


def priced(in_force: str, *later: tuple[str, str | None]) -> dict[str, Any]:
    """As GET /endpoints/NAME/prices says it: versions newest first, (price, from when; None: here it was removed)."""
    rows = [
        {"ends": when is None, "valid_from": when or "2020-01-01T00:00:00+00:00", **amounts(price)}
        for price, when in later
    ]
    return {"in_force": {"valid_from": "2020-01-01T00:00:00+00:00", **amounts(in_force)}, "data": rows}


def amounts(price: str) -> dict[str, str]:
    return {f"{kind}_per_million": price for kind in ("input", "cached", "output")}


LATER = "2999-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("answer", "valid_from", "changes", "why"),
    [
        (priced("1"), LATER, 4, "the same, but from another moment on"),
        (priced("1", ("1", LATER)), LATER, 0, "that was said before"),
        (priced("1", ("2", LATER), ("1", LATER)), LATER, 3, "the last word of that moment counts"),
        (priced("1", ("0", None), ("1", LATER)), LATER, 4, "what was said before it was removed counts no more"),
        (priced("1"), "2020-01-01T00:00:00Z", 0, "it has begun"),
        (priced("2"), "2020-01-01T00:00:00Z", None, "it should have begun, and has not"),
    ],
)
def test_a_price_with_a_date_is_applied_once(
    answer: dict[str, Any], valid_from: str, changes: int | None, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'name = "c"\nmodel = "a"\n[prices]\ninput = 1\ncached = 1\noutput = 1\nvalid_from = {valid_from}'
    api = cast(Api, SimpleNamespace(call=lambda method, path: answer))
    if changes is None:
        with pytest.raises(typer.Exit):
            _compared_prices(api, read_manifest(text, "f"))
        assert "earlier requests keep their price" in capsys.readouterr().err, why
    else:
        assert len(price_changes(*_compared_prices(api, read_manifest(text, "f")))) == changes, why


@pytest.mark.parametrize(
    "given", ['"media, echo_logprobs"', '["media", "echo_logprobs", "media"]', '"echo_logprobs,MEDIA"']
)
def test_what_is_allowed_is_a_set_however_it_is_written(given: str) -> None:
    manifest = read_manifest(f'name = "chat"\nmodel = "a"\nallow = {given}', "endpoint.toml")
    assert manifest.allow == ("echo_logprobs", "media")
