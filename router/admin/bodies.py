"""What callers of the admin API may send: closed models, so that a misspelt field is an error that names it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from starlette.requests import Request

from activator.wire import Changes
from router.errors import BadRequest, BodyTooLarge, quoted

MAX_BODY_BYTES = 1 << 20
MOST_WRONG = 10  # fields that one refusal names
SUMS_BY = ("month", "day", "endpoint", "key")
TEN_YEARS = 10 * 365 * 86400
CLOCKS_DIFFER_SECONDS = 60.0


WHO = "admin key"
Who = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")
]  # who asks, as `pilotlight revisions` tells it


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EndpointBody(Changes):
    """PUT /api/v1/endpoints/NAME"""

    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] = ""  # none: as it is, where there is one
    weight_bytes: int = Field(0, ge=0, le=1 << 50)  # of the snapshot's tensors; 0: unknown
    merge_engine_args: bool = False  # those given are added to what it has; else they are all it has
    unset_engine_args: tuple[str, ...] = ()
    at_once: bool = False  # the route changes now, whatever becomes of the new revision
    by: Who = WHO


class RollbackBody(Body):
    """POST /api/v1/endpoints/NAME/rollback"""

    to: int | None = Field(None, ge=1, le=2**31 - 1)  # none: the one before what serves that has served
    at_once: bool = False
    by: Who = WHO


class KeyBody(Body):
    """POST /api/v1/endpoints/NAME/keys"""

    name: str = Field("", max_length=200, pattern=r"^[^\x00]*$")
    expires_in_seconds: float | None = Field(None, gt=0, le=TEN_YEARS)


class RotateBody(Body):
    """POST /api/v1/keys/KEY_ID/rotate"""

    grace_seconds: float = Field(86400.0, ge=0, le=TEN_YEARS)  # how long the old key goes on working; 0: not at all
    # of the new one; none: as long as the old one was given
    expires_in_seconds: float | None = Field(None, gt=0, le=TEN_YEARS)


def _iso(value: str) -> datetime | None:
    """In UTC, which it also is where it does not say; None: it is none."""
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _unix(value: object) -> object:
    if not isinstance(value, str) or "-" not in value:
        return value
    moment = _iso(value)
    if moment is None:
        raise ValueError("must be Unix seconds or an ISO 8601 time")
    return moment.timestamp()


Moment = Annotated[float, BeforeValidator(_unix), Field(ge=0, lt=253402300800)]
"""Unix seconds, before the year 10000; also taken as ISO 8601."""


class Times(Body):
    """What a query may say of when."""

    since: Moment | None = None
    until: Moment | None = None  # what was admitted, or began, before it

    @field_validator("until")
    @classmethod
    def _not_before_since(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and value < (info.data.get("since") or value):
            raise ValueError("must not be before since")
        return value


class UsageQuery(Times):
    """The query of GET /api/v1/usage"""

    endpoint: str | None = None
    limit: int = Field(100, ge=1, le=1000)


class SumsQuery(Times):
    """The query of GET /api/v1/usage/sums"""

    by: str = "endpoint"  # names with commas between them
    endpoint: str | None = None
    limit: int = Field(1000, ge=1, le=10_000)

    @field_validator("by")
    @classmethod
    def _known(cls, value: str) -> str:
        unknown = [name for name in value.split(",") if name not in SUMS_BY]
        if unknown:
            raise ValueError(f"must be some of {', '.join(SUMS_BY)}, with commas between them")
        return value


class EventQuery(Body):
    """The query of GET /api/v1/endpoints/NAME/events and /revisions"""

    limit: int = Field(100, ge=1, le=1000)


class ColdStartQuery(UsageQuery):
    """The query of GET /api/v1/cold-starts"""


class AuditQuery(Times):
    """The query of GET /api/v1/audit"""

    limit: int = Field(100, ge=1, le=1000)


class ExportQuery(Times):
    """The query of GET /api/v1/usage/export"""

    format: Literal["csv", "jsonl"] = "csv"
    endpoint: str | None = None


def _money(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("must be a number, or a number as text")
    return value


Dollars = Annotated[Decimal, BeforeValidator(_money), Field(ge=0, le=1_000_000, max_digits=20, decimal_places=10)]


class PriceBody(Body):
    """PUT /api/v1/endpoints/NAME/prices: dollars a million tokens"""

    input_per_million: Dollars
    cached_per_million: Dollars
    output_per_million: Dollars
    valid_from: datetime | None = None  # ISO 8601, UTC unless it says otherwise; none: from now on

    @field_validator("valid_from", mode="before")
    @classmethod
    def _moment(cls, value: object) -> datetime | None:
        if value is None:
            return None
        moment = _iso(value) if isinstance(value, str) else None
        if moment is None:
            raise ValueError("must be an ISO 8601 time")
        if moment.timestamp() < time.time() - CLOCKS_DIFFER_SECONDS:
            raise ValueError("must not be in the past: what was used has its price")
        return moment


Given = TypeVar("Given", bound=BaseModel)


async def read_bytes(request: Request) -> bytes:
    """May be asked for again. Raises BodyTooLarge."""
    if not hasattr(request.state, "body"):
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > MAX_BODY_BYTES:
                raise BodyTooLarge(f"the body has more than {MAX_BODY_BYTES} bytes")
        request.state.body = bytes(data)
    body: bytes = request.state.body
    return body


async def read_body(request: Request, model: type[Given], *, exact: bool = False) -> Given:
    """The request's body as `model`; `exact`: its numbers as Decimal, to the last digit sent. Raises BadRequest,
    BodyTooLarge.
    """
    data = await read_bytes(request)
    try:
        return model.model_validate(_decimals(data)) if exact else model.model_validate_json(data or b"{}")
    except ValidationError as error:
        raise bad_request(error) from error


def _decimals(data: bytes) -> Any:
    """JSON with no float in it. Raises BadRequest."""
    try:
        return json.loads(data or b"{}", parse_float=_decimal, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {quoted(str(error))}") from error


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent that no Decimal has
        raise ValueError(f"{quoted(text)} is not a number that can be kept") from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{quoted(text)} is not a number")


def read_query(request: Request, model: type[Given]) -> Given:
    """The request's query as `model`. Raises BadRequest."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise bad_request(error) from error


def bad_request(error: ValidationError) -> BadRequest:
    """All that is wrong in one message; `param` names the first field."""
    found = error.errors()
    wrong = [(quoted(".".join(map(str, item["loc"]))), item["msg"].removeprefix("Value error, ")) for item in found]
    param = wrong[0][0] or found[0].get("ctx", {}).get("field")
    message = "; ".join(f"{field}: {what}" if field else what for field, what in wrong[:MOST_WRONG])
    return BadRequest(message, param=param)
