"""A manifest says what is wrong by field; its bounds are the server's; applying plans before it acts."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pilotlight.cli.apply import make_plan
from pilotlight.cli.manifest import EndpointManifest, ManifestError, model_folder, read_manifest
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
        "hold_seconds": 20.5,
        "max_held": 5,
    }
    assert manifest.prices is not None
    assert manifest.prices.body() == {"input_per_million": "0.1", "cached_per_million": "0.05", "output_per_million": "1"}
    assert PriceBody(**manifest.prices.body()).input_per_million == Decimal("0.1")  # type: ignore[arg-type]
    assert model_folder(manifest, Path("/etc/endpoints/chat.toml")) == Path("/etc/endpoints/models/qwen")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "name: Field required"),
        ('name = "chat"', "give one of model"),
        ('name = "chat"\nmodel = "a"\ndigest = "sha256:' + "a" * 64 + '"', "give one of model"),
        ('name = "Chat"\nmodel = "a"', "name: "),
        ('name = "chat"\nmodel = "a"\nslot = 3', "slot: there is no such field"),
        ('name = "chat"\nmodel = "a"\nslots = 0', "slots: Input should be greater than or equal to 1 (got 0)"),
        ('name = "chat"\nmodel = "a"\nslots = "many"', "slots: "),
        ('name = "chat"\nmodel = "a"\nmin_replicas = 3', "max_replicas (1) must not be less than min_replicas (3)"),
        ('name = "chat"\nmodel = "a"\nengine_args = {a = [1]}', "engine_args.a: must be text, a number, true or false"),
        ('name = "chat"\ndigest = "7db3"', "digest: "),
        ('name = "chat"\nmodel = "a"\n[prices]\ninput = -1\ncached = 0\noutput = 0', "prices.input: "),
        ('name = "chat"\nmodel = "a"\n[prices]\ninput = 1', "prices.cached: Field required"),
        ('name = "chat"\nmodel = "a"\nidle_timeout_seconds = nan', "idle_timeout_seconds: "),
        ("name = ", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(ManifestError, match=r"^endpoint\.toml") as caught:
        read_manifest(text, "endpoint.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_its_bounds_are_the_servers() -> None:
    """So that nothing is packed for a configuration the server then refuses."""
    ours, theirs = (_bare(model.model_json_schema()["properties"]) for model in (EndpointManifest, EndpointBody))
    told = set(theirs) - {"digest", "weight_bytes"}  # both are read from the packed snapshot
    assert {name: ours[name] for name in told} == {name: theirs[name] for name in told}


def _bare(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: {key: value for key, value in field.items() if key not in ("title", "description")} for name, field in properties.items()}


def test_a_plan_for_a_new_endpoint_has_every_field() -> None:
    plan = make_plan("chat", {"slots": 8, "task": "embed"}, {"input_per_million": "1"}, now=None, prices_now={"input_per_million": "0.1"})
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
