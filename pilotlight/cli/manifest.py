"""An endpoint as a file: what may stand in `endpoint.toml`, strictly, and its published JSON Schema.

The bounds are those of the admin API (a test holds the two together), so that a mistake is found before anything is packed.
"""

from __future__ import annotations

import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from runtime.wire import Task, Zero

SCHEMA_ID = "https://pilotlight.dev/endpoint.schema.json"
ONE_OF = "give one of model (a folder) and digest (of a packed snapshot)"


class ManifestError(Exception):
    """A manifest cannot be read or says something that is not allowed; the text names the field."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float | bool):
        raise ValueError("must be text, a number, true or false")
    return value


def _money(value: object) -> object:
    """TOML's floats as they were written: 0.1 is Decimal("0.1")."""
    if isinstance(value, bool):
        raise ValueError("must be a number or a decimal string")
    return repr(value) if isinstance(value, float) else value


Scalar = Annotated[str | int | float | bool, BeforeValidator(_scalar)]
Money = Annotated[Decimal, BeforeValidator(_money), Field(ge=0, le=1_000_000, max_digits=20, decimal_places=10)]


class Prices(Strict):
    """US dollars per million tokens."""

    input: Money = Field(description="Per million input tokens, in US dollars; a number or a decimal string.")
    cached: Money = Field(description="Per million input tokens found in the cache, in US dollars.")
    output: Money = Field(description="Per million output tokens, in US dollars.")

    def body(self) -> dict[str, str]:
        """As PUT /api/v1/endpoints/NAME/prices takes it."""
        return {f"{kind}_per_million": format(getattr(self, kind), "f") for kind in ("input", "cached", "output")}


class EndpointManifest(Strict):
    """An endpoint of Pilotlight, for `pilotlight apply -f`."""

    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="Public name: 1 to 63 of a-z, 0-9 and inner hyphens; part of its URL."
    )
    model: str | None = Field(None, description="Folder of a Hugging Face model, relative to this file; it is packed. Else give digest.")
    digest: str | None = Field(
        None, pattern=r"^sha256:[0-9a-f]{64}$", description="Snapshot to serve, as `pilotlight snapshot ls` lists it."
    )
    task: Task = Field("generate", description="What the model does.")
    engine_args: dict[str, Scalar] = Field({}, description='Arguments of vLLM\'s serve command, such as "max-model-len" = 2048.')
    min_replicas: int = Field(0, ge=0, le=1000, description="Replicas kept running without a call; 0: the endpoint goes to zero.")
    max_replicas: int = Field(1, ge=1, le=1000, description="Most replicas at once.")
    idle_timeout_seconds: float = Field(60.0, ge=0, le=30 * 86400, description="Without a call for so many seconds, it goes to zero.")
    slots: int = Field(64, ge=1, le=4096, description="Requests a replica works on at once.")
    target_concurrency: int = Field(
        0, ge=0, le=4096, description="Requests a replica is meant to have at once; with more, another starts. 0: as many as slots."
    )
    zero: Zero = Field(
        "standby",
        description='Where it rests without a call: "parked" (one replica stays built, its memory given back; wakes soonest), "standby" '
        '(nothing of it runs), "staged" (where every endpoint says so, not even a standby is kept ready for its start).',
    )
    hold_seconds: float = Field(300.0, gt=0, lt=600, description="Longest wait of a request for a slot, in seconds.")
    max_held: int = Field(1000, ge=0, le=1_000_000, description="Most requests waiting at once; one more is answered 503.")
    prices: Prices | None = Field(None, description="What its tokens cost from now on; without it, prices stay as they are.")

    @model_validator(mode="after")
    def _fits(self) -> EndpointManifest:
        if (self.model is None) == (self.digest is None):
            raise ValueError(ONE_OF)
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) must not be less than min_replicas ({self.min_replicas})")
        return self

    def configuration(self) -> dict[str, Any]:
        """What of it PUT /api/v1/endpoints/NAME takes, but for the digest."""
        return self.model_dump(exclude={"name", "model", "digest", "prices"})


def read_manifest(text: str, source: str) -> EndpointManifest:
    """Raises ManifestError, which names `source` and every field that is wrong."""
    try:
        return EndpointManifest.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{source} is no TOML: {error}") from None
    except ValidationError as error:
        wrong = "; ".join(_explain(item) for item in error.errors())
        raise ManifestError(f"{source}: {wrong} (`pilotlight apply --schema` says what is allowed)") from None


def schema() -> str:
    """The JSON Schema of a manifest, as published in docs/endpoint.schema.json."""
    found = EndpointManifest.model_json_schema()
    one_of = [{"required": ["model"]}, {"required": ["digest"]}]
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **found, "oneOf": one_of}, indent=2)


def model_folder(manifest: EndpointManifest, file: Path) -> Path:
    """Where its model lies: relative to the manifest, or to here where that came from stdin."""
    assert manifest.model is not None
    return (Path() if str(file) == "-" else file.parent) / Path(manifest.model).expanduser()


def _explain(error: Any) -> str:
    field = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "there is no such field"
    elif field and error["type"] != "missing":
        message += f" (got {error['input']!r})"
    return f"{field}: {message}" if field else message
