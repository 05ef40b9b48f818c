"""An endpoint as a file: what may stand in `endpoint.toml`, strictly, and its published JSON Schema.

Its configuration is the admin API's and the activator's own (`activator.wire.Configuration`), so that a mistake is
found before anything is packed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from activator.wire import Configuration
from pilotlight import endpoint_names
from pilotlight.parsed import toml_of

SCHEMA_ID = "https://pilotlight.dev/endpoint.schema.json"
ONE_OF = "give one of model (a folder, or hf://ORG/NAME) and digest (of a packed snapshot)"


class ManifestError(Exception):
    """A manifest cannot be read or says something that is not allowed; the text names the field."""


class Strict(BaseModel):
    """A part of a manifest: fields that it does not have are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _money(value: object) -> object:
    """TOML's floats as they were written: 0.1 is Decimal("0.1")."""
    if isinstance(value, bool):
        raise ValueError("must be a number or a decimal string")
    return repr(value) if isinstance(value, float) else value


def _written(value: object) -> object:
    """A date or a time, by TOML's own or as text; not a number."""
    if isinstance(value, bool | int | float):
        raise ValueError("must be a time such as 2026-12-01T00:00:00Z")
    return value


def _utc(value: datetime) -> datetime:
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time of the years 1 to 9999, in UTC too") from None


Moment = Annotated[datetime, BeforeValidator(_written), AfterValidator(_utc)]
Money = Annotated[Decimal, BeforeValidator(_money), Field(ge=0, le=1_000_000, max_digits=20, decimal_places=10)]


class Prices(Strict):
    """US dollars per million tokens."""

    input: Money = Field(description="Per million input tokens, in US dollars; a number or a decimal string.")
    cached: Money = Field(description="Per million input tokens found in the cache, in US dollars.")
    output: Money = Field(description="Per million output tokens, in US dollars.")

    valid_from: Moment | None = Field(
        None,
        description="From when on, a time such as 2026-12-01T00:00:00Z, in UTC unless it says otherwise; without it, from now on.",
    )

    def body(self) -> dict[str, str]:
        """As PUT /api/v1/endpoints/NAME/prices takes it."""
        moment = {} if self.valid_from is None else {"valid_from": self.valid_from.isoformat()}
        return {
            f"{kind}_per_million": format(getattr(self, kind), "f") for kind in ("input", "cached", "output")
        } | moment


class Named(Strict):
    """An endpoint's name, and the model it serves."""

    name: str = Field(
        pattern=f"^{endpoint_names.PATTERN}$", description=f"Public name: {endpoint_names.SAID}; part of its URL."
    )
    model: str | None = Field(
        None,
        description="Folder of a Hugging Face model, relative to this file, hf://ORG/NAME[@REVISION], or pilotlight://demo; it is packed. Else give digest.",
    )
    digest: str | None = Field(
        None, pattern=r"^sha256:[0-9a-f]{64}$", description="Snapshot to serve, as `pilotlight snapshot ls` lists it."
    )


class EndpointManifest(Configuration, Named):
    """An endpoint of Pilotlight, for `pilotlight apply -f`."""

    prices: Prices | None = Field(
        None, description="What its tokens cost, from now or from valid_from on; without it, prices stay as they are."
    )

    @model_validator(mode="after")
    def _is_one(self) -> EndpointManifest:
        if (self.model is None) == (self.digest is None):
            raise ValueError(ONE_OF)
        return self

    def configuration(self) -> dict[str, Any]:
        """What of it PUT /api/v1/endpoints/NAME takes, but for the digest."""
        # whoever paused it has a reason that no file knows
        stays = set() if "paused" in self.model_fields_set else {"paused"}
        return self.model_dump(mode="json", exclude={"name", "model", "digest", "prices"} | stays)


def read_manifest(text: str, source: str) -> EndpointManifest:
    """Raises ManifestError, which names `source` and every field that is wrong."""
    try:
        return EndpointManifest.model_validate(toml_of(text))
    except ValidationError as error:
        raise ManifestError(f"{source}: {explain(error)} (`pilotlight apply --schema` says what is allowed)") from None
    except ValueError as error:
        raise ManifestError(f"{source} is not TOML: {error}") from None


def schema() -> str:
    """The JSON Schema of a manifest, as published in docs/endpoint.schema.json."""
    found = EndpointManifest.model_json_schema()
    one_of = [{"required": ["model"]}, {"required": ["digest"]}]
    return json.dumps(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **found, "oneOf": one_of},
        indent=2,
    )


def explain(error: ValidationError) -> str:
    """All that is wrong, by field, on one line."""
    return "; ".join(_explain(item) for item in error.errors())


def _explain(error: Any) -> str:
    field = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        near = get_close_matches(field, EndpointManifest.model_fields, n=1)
        message = "there is no such field" + (f"; {near[0]} may be meant" if near else "")
    elif field and error["type"] != "missing":
        message += f" (got {error['input']!r})"
    return f"{field}: {message}" if field else message
