"""`/openapi.json`: it names what is served, and says of every field what its rule does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from router.admission.fields import Wants
from router.admission.openai import read
from router.admission.routes import ROUTES, Route
from router.edge import api_document
from router.errors import BadRequest
from tests.router_world import world

DOCUMENT = api_document.document()
FIELDS = [(route, field) for route in ROUTES.values() for field in route.fields]
SIMPLE = ({"type", "minimum", "maximum"}, {"type", "maxLength"}, {"type"}, {"enum"})


def probes(schema: Any) -> Iterator[Any]:
    """Values of every kind, and those at the edges of a schema."""
    yield from (
        True,
        False,
        0,
        1,
        -1,
        7,
        1 << 40,
        -(1 << 40),
        1 << 70,
        0.5,
        1e300,
        "",
        "x",
        "auto",
        "none",
        "float",
        "x" * 3000,
        [],
        ["a"],
        [1],
    )
    yield from (
        [[1]],
        [[]],
        [None],
        [1.5],
        ["a"] * 200,
        {},
        {"a": 1},
        {"a": "b"},
        {"type": "text"},
        {"type": "json_object"},
        {"name": 5},
    )
    if isinstance(schema, dict):
        yield from schema.get("enum", ())
        for bound in (schema.get("minimum"), schema.get("maximum")):
            if bound is not None:
                yield from (bound, bound - 1, bound + 1)
        if "maxLength" in schema:
            yield from ("x" * schema["maxLength"], "x" * (schema["maxLength"] + 1))


def takes(route: Route, field: str, value: Any) -> bool:
    try:
        if route.texts and field == route.needs:  # its rule is `openai.py`'s to carry out
            read(json.dumps({field: value}).encode(), route)
        else:
            route.fields[field](value, field, Wants())
    except BadRequest:
        return False
    return True


def allows(schema: Any, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize(("route", "field"), FIELDS, ids=[f"{route.path} {field}" for route, field in FIELDS])
def test_the_document_says_of_a_field_what_its_rule_does(route: Route, field: str) -> None:
    schema = route.fields[field].schema
    exact = schema is False or (isinstance(schema, dict) and set(schema) in SIMPLE)
    for value in probes(schema):
        taken, allowed = takes(route, field, value), allows(schema, value)
        assert allowed or not taken, f"the document forbids what is served: {str(value)[:99]}"
        if exact and not isinstance(value, list | dict):
            assert taken or not allowed or _is_whole_as_a_float(value), (
                f"the document allows what is refused: {str(value)[:99]}"
            )


def _is_whole_as_a_float(value: Any) -> bool:
    """JSON Schema takes 1e300 for an integer; nobody writes one so."""
    return isinstance(value, float) and value.is_integer()


def test_every_route_is_in_it_and_nothing_that_is_not_served() -> None:
    for prefix in ("/v1", "/e/{endpoint}/v1"):
        for name, route in ROUTES.items():
            operation = DOCUMENT["paths"][f"{prefix}/{name}"]["post"]
            assert {"200", "400", "401", "403", "404", "413", "503"} <= set(operation["responses"])
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            reference = body["$ref"] if "$ref" in body else body["allOf"][0]["$ref"]
            found = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
            assert set(found["properties"]) == {
                field for field, rule in route.fields.items() if rule.schema is not False
            }
            assert route.needs in found["required"] and not found["additionalProperties"]


def test_references_lead_somewhere_and_names_are_told_once() -> None:
    operations = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations if "operationId" in operation]
    assert len(names) == len(set(names))
    for reference in _references(DOCUMENT):
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


async def test_it_is_served_to_everybody() -> None:
    async with world() as w:
        client = await w.client()
        client.send(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n")
        reply = await client.answer()
        assert (reply.status, reply.headers["content-type"], reply.json) == (200, "application/json", DOCUMENT)
