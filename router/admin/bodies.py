"""What callers of the admin API may send: closed models, so that a misspelt field is an error that names it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from starlette.requests import Request

from router.errors import BadRequest, BodyTooLarge
from runtime.wire import Task

MAX_BODY_BYTES = 1 << 20
ENDPOINT_NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # a DNS label: the endpoint is also https://NAME.DOMAIN
TEN_YEARS = 10 * 365 * 86400


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float | bool):
        raise ValueError("must be text, a number, true or false")
    return value


Scalar = Annotated[str | int | float | bool, BeforeValidator(_scalar)]


class EndpointBody(Body):
    """PUT /api/v1/endpoints/NAME"""

    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    task: Task = "generate"
    engine_args: dict[str, Scalar] = {}
    min_replicas: int = Field(0, ge=0, le=1000)
    max_replicas: int = Field(1, ge=1, le=1000)
    idle_timeout_seconds: float = Field(60.0, ge=0, le=30 * 86400)
    slots: int = Field(64, ge=1, le=4096)
    hold_seconds: float = Field(300.0, gt=0, lt=600)  # client libraries give up after 600 s
    max_held: int = Field(1000, ge=0, le=1_000_000)

    @field_validator("max_replicas")
    @classmethod
    def _not_below_min(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min_replicas", 0):
            raise ValueError("must not be less than min_replicas")
        return value


class KeyBody(Body):
    """POST /api/v1/endpoints/NAME/keys"""

    name: str = Field("", max_length=200, pattern=r"^[^\x00]*$")
    expires_in_seconds: float | None = Field(None, gt=0, le=TEN_YEARS)


class UsageQuery(Body):
    """The query of GET /api/v1/usage"""

    endpoint: str | None = None
    limit: int = Field(100, ge=1, le=1000)
    since: float | None = None  # Unix seconds; also taken as ISO 8601

    @field_validator("since", mode="before")
    @classmethod
    def _from_iso(cls, value: str) -> float | str:
        try:
            moment = datetime.fromisoformat(value) if "-" in value else None
        except ValueError:
            raise ValueError("must be Unix seconds or an ISO 8601 time") from None
        if moment is None:
            return value
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


Given = TypeVar("Given", bound=Body)


async def read_body(request: Request, model: type[Given]) -> Given:
    """The request's body as `model`. Raises BadRequest, BodyTooLarge."""
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"the body has more than {MAX_BODY_BYTES} bytes")
    try:
        return model.model_validate_json(data or b"{}")
    except ValidationError as error:
        raise bad_request(error) from error


def read_query(request: Request, model: type[Given]) -> Given:
    """The request's query as `model`. Raises BadRequest."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise bad_request(error) from error


def bad_request(error: ValidationError) -> BadRequest:
    """All that is wrong in one message; `param` names the first field."""
    wrong = [(".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")) for item in error.errors()]
    return BadRequest("; ".join(f"{field}: {what}" if field else what for field, what in wrong), param=wrong[0][0] or None)
