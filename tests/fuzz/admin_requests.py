"""Bodies and queries of the admin API: believed as the models have them, or refused by the field's name; the note that
an act leaves of its body; and texts from elsewhere in its exports.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request

from pilotlight.audit import LARGEST, noted
from router.admin import bodies
from router.admin.bodies import read_body, read_query
from router.admin.export import COLUMNS, FORMULA, csv_lines, json_lines
from router.errors import RouterError

BODIES: tuple[type[BaseModel], ...] = (
    bodies.EndpointBody, bodies.RollbackBody, bodies.KeyBody, bodies.RotateBody, bodies.PriceBody,
)  # fmt: skip
QUERIES: tuple[type[BaseModel], ...] = (
    bodies.UsageQuery, bodies.SumsQuery, bodies.EventQuery, bodies.ColdStartQuery, bodies.AuditQuery, bodies.ExportQuery,
)  # fmt: skip
SEEDS = (
    b'\x00{"digest":"sha256:'
    + b"0" * 64
    + b'","engine_args":{"seed":1},"min_replicas":0,"allow":["media"],"rest":"parked"}',
    b'\x01{"to":1,"at_once":true,"by":"me"}',
    b'\x03{"grace_seconds":1e400,"expires_in_seconds":NaN}',
    b'\x04{"input_per_million":0.1,"cached_per_million":"0.05","output_per_million":1e-30,"valid_from":"9999-12-31T23:59:59-23:59"}',
    b"\x05since=0001-01-01T00:00:00%2B23:59&until=2026-12-01&limit=9&endpoint=%00",
    b"\x06by=day,key&since=1e308&limit=1",
    b"\x0aformat=csv&until=nan",
)

_loop = asyncio.new_event_loop()


def target(data: bytes) -> None:
    """The first byte chooses the model."""
    if not data:
        return
    number = data[0] % (len(BODIES) + len(QUERIES))
    try:
        if number < len(BODIES):
            exact = BODIES[number] is bodies.PriceBody
            _loop.run_until_complete(read_body(_request(body=data[1:]), BODIES[number], exact=exact))
        else:
            read_query(_request(query=data[1:]), QUERIES[number - len(BODIES)])
    except RouterError as error:
        assert error.status == 400 and len(error.message) < 2500, error.message
    _noted(data[1:])
    _exported(data[1:].decode("utf-8", "replace"))


def _request(*, body: bytes = b"", query: bytes = b"") -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "method": "PUT", "path": "/", "query_string": query, "headers": []}, receive)


def _noted(body: bytes) -> None:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return
    note = noted(
        act="a", object=str(asked), who="w", origin="o", at=1.0, asked=asked if isinstance(asked, dict) else {}
    )
    text = note.bytes()
    assert len(text) < 2 * LARGEST and b"\n" not in text and b"\\u0000" not in text, text


def _exported(text: str) -> None:
    """A row is a row, and no cell begins as a formula does."""
    row = dict.fromkeys(COLUMNS, text)
    (read,) = csv.reader(io.StringIO(csv_lines([row]), newline=""))
    assert read == ["'" + text if text.startswith(FORMULA) else text] * len(COLUMNS), read
    assert json.loads(json_lines([row])) == row
