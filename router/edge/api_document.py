"""Writes `/openapi.json`: what this port serves to those who call models, as OpenAPI 3.1 has it. Step 1; pure.

Nothing of it is written twice: routes, their fields and bounds, and the errors are asked of the tables that the router
obeys. The failure to survive is a document that says what is not so. A test sends what it allows and what it forbids,
and finds no answer that it does not name. The admin API is not in it.
"""

from __future__ import annotations

from typing import Any

from router import errors
from router.admission.fields import Table
from router.admission.routes import ROUTES, Route
from router.errors import RouterError

VERSION = "3.1.0"
WHERE = {
    "/v1": "`model` names the endpoint.",
    "/e/{endpoint}/v1": "The URL names the endpoint, and `model` may be left out.",
}
JSON, EVENTS = "application/json", "text/event-stream"
Schema = dict[str, Any]


def document() -> Schema:
    """All of it."""
    paths: dict[str, Schema] = {}
    for prefix, where in WHERE.items():
        for route in ROUTES.values():
            paths[f"{prefix}/{route.name}"] = {"post": _inference(route, prefix, where)}
        given = _endpoint(prefix)
        paths[f"{prefix}/models"] = {
            "get": _page("List what this key may use.", "Models", given, (401, 403, 404, 429, 503))
        }
        model = [*given, _in_path("model", "The name of an endpoint.")]
        paths[f"{prefix}/models/{{model}}"] = {"get": _page("One of them.", "Model", model, (401, 403, 404, 429, 503))}
    given = _endpoint("/e/{endpoint}")
    paths["/e/{endpoint}/health"] = {
        "get": _page("Whether it is there; it is not woken.", "Status", given, (401, 403, 404, 429, 503))
    }
    paths["/healthz"] = {"get": _page("Whether this router lives.", "Status", [], (), key=False)}
    paths["/readyz"] = {
        "get": _page("Whether this router knows keys and endpoints.", "Status", [], (), key=False, unready=True)
    }
    paths["/openapi.json"] = {"get": _page("This document.", "Any", [], (), key=False)}
    return {
        "openapi": VERSION,
        "info": {"title": "Pilotlight", "version": "1", "description": "Models behind OpenAI's and Anthropic's APIs."},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"x-api-key": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": _keys(),
            "headers": {"request-id": _said("The id of this request.")},
        },
    }


def statuses(kind: type[RouterError] = RouterError) -> dict[int, list[str]]:
    """Every status an error of ours has, with its codes."""
    found: dict[int, list[str]] = {}
    for each in (kind, *_below(kind)):
        codes = found.setdefault(each.status, [])
        if each.code is not None and each.code not in codes:
            codes.append(each.code)
    return found


def body_of(table: Table, *needed: str) -> Schema:
    """The schema of a body with these fields. Null is as good as not given, but where a field is needed."""
    fields = {name: rule.schema for name, rule in table.items() if rule.schema is not False}
    kinds = {
        name: schema if name in needed or schema is True else {"anyOf": [schema, {"type": "null"}]}
        for name, schema in fields.items()
    }
    return {"type": "object", "properties": kinds, "required": list(needed), "additionalProperties": False}


def _inference(route: Route, prefix: str, where: str) -> Schema:
    body: Schema = {"$ref": f"#/components/schemas/{_title(route.name)}"}
    answer: Schema = {JSON: {"schema": {"type": "object", "required": list(route.answers)}}}
    if route.streams:
        answer[EVENTS] = {}  # with `stream`: events, one a token
    return {
        "summary": route.says,
        "description": where,
        "operationId": f"{'at_' if prefix != '/v1' else ''}{route.name.replace('/', '_')}",
        "parameters": _endpoint(prefix),
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"allOf": [body, {"required": ["model"]}]} if prefix == "/v1" else body}},
        },
        "responses": {"200": _answer("The answer.", answer), **_refusals(sorted(statuses()))},
    }


def _title(name: str) -> str:
    """chat/completions → BodyOfChatCompletions"""
    return "BodyOf" + "".join(word.capitalize() for word in name.replace("_", "/").split("/"))


def _page(
    says: str,
    schema: str,
    parameters: list[Schema],
    refusals: tuple[int, ...],
    *,
    key: bool = True,
    unready: bool = False,
) -> Schema:
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    page: Schema = {
        "summary": says,
        "parameters": parameters,
        "responses": {"200": _answer(says, content), **_refusals(refusals)},
    }
    if unready:
        page["responses"]["503"] = _answer("Not yet.", content)
    return page if key else {**page, "security": []}


def _answer(says: str, content: Schema) -> Schema:
    return {
        "description": says,
        "content": content,
        "headers": {"x-request-id": {"$ref": "#/components/headers/request-id"}},
    }


def _refusals(found: Any) -> Schema:
    known = statuses()
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        str(status): _answer(", ".join(f"`{code}`" for code in known.get(status, ())) or "An error.", content)
        for status in found
    }


def _endpoint(prefix: str) -> list[Schema]:
    return [_in_path("endpoint", "The endpoint's name.")] if "{endpoint}" in prefix else []


def _in_path(name: str, says: str) -> Schema:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": says,
        "schema": {"type": "string", "minLength": 1},
    }


def _said(says: str) -> Schema:
    return {"description": says, "schema": {"type": "string"}}


def _keys() -> Schema:
    return {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A key of the endpoint."},
        "x-api-key": {
            "type": "apiKey",
            "in": "header",
            "name": "x-api-key",
            "description": "The same key, as Anthropic's clients send it.",
        },
    }


def _schemas() -> Schema:
    text = {"type": "string"}
    error = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {
            "message": text,
            "type": text,
            "param": {"type": ["string", "null"]},
            "code": {"type": ["string", "null"]},
        },
    }
    model = {
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {"id": text, "object": {"const": "model"}},
    }
    return {
        **{
            _title(name): body_of(route.fields, *filter(None, (route.needs, route.also)))
            for name, route in ROUTES.items()
        },
        "Error": {"type": "object", "required": ["error"], "properties": {"error": error, "type": {"const": "error"}}},
        "Model": model,
        "Models": {
            "type": "object",
            "required": ["object", "data"],
            "properties": {"data": {"type": "array", "items": model}},
        },
        "Status": {"type": "object", "required": ["status"], "properties": {"status": text}},
        "Any": {"type": "object"},
    }


def _below(kind: type[RouterError]) -> list[type[RouterError]]:
    return [
        found
        for child in kind.__subclasses__()
        if child.__module__ == errors.__name__
        for found in (child, *_below(child))
    ]
