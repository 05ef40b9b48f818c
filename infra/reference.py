"""Writes docs/reference.md and docs/endpoint.schema.json: every command, setting, metric, route, header, error and
admin path.

    python infra/reference.py [--check]

All of it is asked of the code: of typer's commands, of the settings' fields, of what the router's collector collects,
of the error tree, of the admin API's routes. Only the meaning of headers and errors is written here; a test runs
`--check` and holds that nothing the code has is without one.
"""

from __future__ import annotations

import ast
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pilotlight.exposition import Family

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PAGE, SCHEMA = ROOT / "docs" / "reference.md", ROOT / "docs" / "endpoint.schema.json"

HEADERS = {
    "x-request-id": "The request's id: in the usage row, in `GET /api/v1/requests/ID`, in the logs. On every answer, errors too.",
    "x-pilotlight-start": "`warm`, or `cold` where the request waited for a replica to start. Not on a stream whose head went out while it was held.",
    "x-pilotlight-hold-ms": "How long the request waited for a slot, in milliseconds.",
    "server-timing": "After a cold start its phases, in milliseconds, as browsers' developer tools read them.",
    "openai-processing-ms": "From admission to the head of the answer, in milliseconds, as OpenAI's servers tell it.",
    "retry-after": "With 503: seconds after which to try again, at least 1, from what cold starts took so far. With 429 likewise.",
    "www-authenticate": "With 401: `Bearer`.",
    "cache-control": "`no-store` with a new key; `no-cache` on event streams.",
    "x-accel-buffering": "`no` on event streams: a proxy on the way is to pass them on as they come.",
    "allow": "With 405: the methods the path takes.",
    "access-control-allow-origin": "To a web page whose origin `router.cors_origins` or the endpoint's `cors_origins` has: on every answer, errors too; all our headers may be read.",
    "accept-encoding": "With 415: the encodings that a body may have.",
}
REQUEST_HEADERS = {
    "authorization": "`Bearer` and an API key of the endpoint.",
    "x-api-key": "The same key, as Anthropic's clients send it; where both are there, `authorization` counts.",
    "expect": "`100-continue`: the body is asked for once the key is known to be good.",
    "content-encoding": "`gzip`, `deflate` or `zstd`: the body is unpacked, to `router.max_body_bytes` at most. Any other is answered 415; the admin API takes none.",
    "origin": "Of a web page: see access-control-allow-origin. A preflight needs no key, and is 403 where the origin is let in nowhere.",
    "prefer": "`wait=N`: wait at most N seconds for a slot, then 503.",
    "transfer-encoding": "`chunked`, or none. What is packed hop by hop is answered 415.",
    "traceparent": "Passed on to the engine, as W3C Trace Context has it.",
    "tracestate": "Passed on to the engine.",
}
INTERNAL = {
    "x-pilotlight-refused": "`full` or `draining`: the replica did not begin; the request goes back to the head of the hold.",
    "x-pilotlight-usage": "What the engine counted, with an answer that is not streamed.",
}
OF_REQUESTS = {
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-pilotlight-by",
}  # relayed to the admin process, or dropped
# What is ours to describe: HTTP's own (content-length, connection) are not.
NAMES = "x-[a-z-]*[a-z]|server-timing|retry-after|www-authenticate|openai-[a-z-]+|cache-control|allow|access-control-allow-origin|accept-encoding"
ERRORS = {
    "RouterError": "An error of ours; the log of the router or the admin process has it.",
    "BadRequest": "The body, the path or the query is malformed, or not for this endpoint; `param` names the field.",
    "TooLong": "Prompt and answer together have more tokens than the model's context.",
    "EngineRefused": "The engine does not take the request; the message says what of it, or has an id to ask the operator about.",
    "Unauthorized": "No key, a wrong, expired or revoked one.",
    "Forbidden": "The key is another endpoint's; or a preflight's origin is in no `cors_origins`.",
    "NotFound": "There is no such path, endpoint, key or settled request.",
    "ModelNotFound": "`model` names no endpoint.",
    "WrongMethod": "The path is there, the method is not.",
    "TooSlow": "Head, or the next part of the body, did not come within `router.header_seconds`, or all of it within `router.upload_seconds`.",
    "BodyTooLarge": "The body has more than `router.max_body_bytes`.",
    "UrlTooLong": "The URL is too long.",
    "UnsupportedEncoding": "The body's `Content-Encoding` is none of gzip, deflate and zstd, or there are several.",
    "TooMany": "More requests without a good key have come from this address than `router.refusals_per_second_per_address`. With a key nothing changes.",
    "HeadTooLarge": "The headers are too large.",
    "Unavailable": "The activator or the database is away for the moment.",
    "NotReady": "This router does not know the endpoints and keys yet.",
    "Draining": "This router is stopping.",
    "SpoolFull": "This router cannot write usage records: its disk fails.",
    "DiskFull": "The disk is full, or the spool or the journals have all they may; the message says how much is free and needed.",
    "QueueFull": "`max_held` requests of the endpoint wait already; or bodies that wait, or come in, have `router.max_held_bytes`, and this key's most of them.",
    "HoldTimeout": "No slot became free within `hold_seconds`; where there was no room for a replica, the message says what it waited for.",
    "EndpointPaused": "The endpoint's operator has paused it (`pilotlight pause`).",
    "StartFailed": "A replica could not be started, or is larger than any node; `pilotlight ps` has the reason.",
    "UpstreamError": "The replica broke off before it answered.",
    "EngineFailed": "The engine failed at the request; the router's log has its own words under the request's id.",
}
ABSTRACT = {"Refused"}
ADMIN = {
    "GET /endpoints": "All endpoints, each with the revision it leads to.",
    "GET /endpoints/{name}": "One of them.",
    "PUT /endpoints/{name}": "Make the endpoint, or put it on another configuration; what is not given stays as it is, and the same again changes nothing. The old revision serves until the new one is ready (`at_once`: not), and goes on where that fails: `deploy` in the answer, then `next` and `last_failed` of the endpoint, say how it stands.",
    "GET /endpoints/{name}/revisions": "Every revision it ever had, newest first: number, when, by whom, its state, and what differs from the one before.",
    "POST /endpoints/{name}/rollback": "Deploy what an earlier revision was: `to` its number, or the one before what serves that has served and was not rolled back from; a deploy that is on its way is dropped. Repeated while it is on its way it changes nothing; repeated once it serves, and without `to`, it goes one further back.",
    "DELETE /endpoints/{name}": "Remove it: its replicas drain, its keys are revoked, its own prices end; usage and history stay.",
    "POST /endpoints/{name}/wake": "Start a replica as a call would, and answer at once, 202; `ready`: one was there already. It goes back to rest after its idle timeout.",
    "GET /status": "Every endpoint, revision, replica and node, as the activator sees them now.",
    "GET /endpoints/{name}/events": "What happened to it that you should hear of, newest first: deploys that served or failed, wrong answers that were caught.",
    "POST /endpoints/{name}/keys": "Make a key; the answer is the only time it is shown, and comes when this machine's routers know it.",
    "GET /endpoints/{name}/keys": "All keys it ever had, without the keys themselves.",
    "GET /keys": "All keys of all endpoints, without the keys themselves.",
    "POST /keys/{key_id}/rotate": "Make a key in its place; the old one ends after `grace_seconds`, a day unless given.",
    "DELETE /keys/{key_id}": "Revoke a key, at once and for ever.",
    "GET /endpoints/{name}/prices": "Its prices, newest first (one that `ends`: it was removed), and the one in force, which may be a default.",
    "PUT /endpoints/{name}/prices": "A new price, from now or from `valid_from` on; no row is ever changed.",
    "GET /usage": "The newest rows up to `limit`, by `endpoint`, `since` and `until`, and totals over all that match.",
    "GET /usage/sums": "Sums `by` endpoint, key, day and month (with commas between them; in UTC), by `endpoint`, `since` and `until`.",
    "GET /usage/export": "All rows as `format` csv or jsonl, by `endpoint`, `since` and `until`, streamed.",
    "GET /requests/{event_id}": "The row of one request, with its phases; the beginning of its id will do, where that names one.",
    "GET /audit": "Who changed what, newest first, by `since` and `until`: every act that changes something, with its outcome. No row is ever changed; each is kept `activator.audit_days`. Who asks may say his name in `x-pilotlight-by`: it stands beside the key, which alone is proved.",
    "GET /cold-starts": "Past cold starts, failed ones too, with rung and phases, by `endpoint`, `since` and `until`.",
}
INTRODUCTION = """# Reference

Made from the code by `python infra/reference.py`; a test holds it complete. What the words mean: [ARCHITECTURE.md](../ARCHITECTURE.md).
"""


def render() -> str:
    parts = (
        INTRODUCTION,
        *commands(),
        *manifest(),
        *settings(),
        *metrics(),
        *routes(),
        *headers(),
        *errors(),
        *admin(),
    )
    return "\n".join(parts)


def commands() -> Iterator[str]:
    import typer

    from pilotlight.cli.main import app
    from pilotlight.cli.options import EXIT_CODES

    yield "## Commands\n"
    yield "Data goes to stdout, talk to stderr; `--json` prints data as JSON; `NO_COLOR` is heeded; progress bars appear only on a"
    yield "terminal, and tables are as wide as it is (elsewhere one line a row, or as wide as `COLUMNS` says). `-h` or `pilotlight help COMMAND` explains a"
    yield "command, `--version` prints the version. `pilotlight --install-completion` teaches your shell the commands and the names of your endpoints.\n"
    yield from table(("exit code", "meaning"), ((str(code), meaning) for code, meaning in EXIT_CODES.items()))
    for path, command in leaves(typer.main.get_command(app), ("pilotlight",)):
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        usage = " ".join(
            (*path, *(name if item.required else f"[{name}]" for item in arguments for name in [metavar(item)]))
        )
        yield f"### `{usage}`\n"
        said, _, example = (command.help or "").partition("Example: ")
        yield " ".join(said.split())
        if example:
            yield f"\n    {example.strip()}"
        yield ""
        rows = [
            (f"`{spelled(item)}`", default(item), item.help or "")
            for item in command.params
            if item.name not in ("help",)
        ]
        yield from table(("parameter", "default", "meaning"), rows)


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from leaves(child, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command


def metavar(parameter: Any) -> str:
    return str(parameter.name).upper()


def spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return metavar(parameter)
    return ", ".join(parameter.opts) + (f" (${parameter.envvar})" if parameter.envvar else "")


def default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    return "" if value is None or value is False or value in ("", []) or callable(value) else f"`{value}`"


def manifest() -> Iterator[str]:
    from pilotlight.cli.endpoints.manifest import EndpointManifest, Prices
    from pilotlight.cli.tables import written

    yield "## Manifest of an endpoint\n"
    yield "TOML, for `pilotlight apply -f`; its JSON Schema is [endpoint.schema.json](endpoint.schema.json).\n"
    rows = []
    for prefix, model in (("", EndpointManifest), ("prices.", Prices)):
        for name, field in model.model_fields.items():
            if name != "prices":
                value = (
                    "required"
                    if field.is_required()
                    else ""
                    if field.default in (None, {}, ())
                    else f"`{written(field.default)}`"
                )
                rows.append((f"`{prefix}{name}`", value, field.description or ""))
    yield from table(("field", "default", "meaning"), rows)


def settings() -> Iterator[str]:
    from pilotlight.settings import Settings

    yield "## Settings\n"
    yield "Flag > environment > `pilotlight.toml` (or the file `PILOTLIGHT_CONFIG` names) > default. `pilotlight config explain` shows"
    yield "what holds and why.\n"
    yield from table(("setting", "variable", "default", "meaning"), fields(Settings, ()))


def fields(model: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    from pydantic import BaseModel

    from pilotlight.cli.explain import variable_of
    from pilotlight.cli.tables import written

    for name, field in model.model_fields.items():
        here = (*path, name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, here)
        else:
            value = (
                "/var/lib/pilotlight for root, else ~/.local/share/pilotlight" if name == "state_dir" else field.default
            )
            shown = "" if value in ("", ()) else f"`{written(value)}`"
            yield f"`{'.'.join(here)}`", f"`{variable_of(here)}`", shown, field.description or ""


def families() -> Iterator[Family]:
    """Of every process."""
    from activator.edges import metrics as of_activator
    from router.ledger import metrics as of_ledger
    from router.metrics import Metrics
    from runtime.node import metrics as of_agent

    yield from Metrics().collect()
    yield from of_activator.collect(None, {}, 0)
    yield from of_ledger.collect(keys=0, workers=0, waiting=0, unpriced=0, settled=0, corrected=0, rejected=0)
    yield from of_agent.collect(None)


def metrics() -> Iterator[str]:
    yield "## Metrics\n"
    yield "On `http://127.0.0.1:METRICS_PORT/metrics` of the first router worker, and on the ports after it of the others; those of"
    yield "activator, ledger and agent are told by the first. What several workers count adds up: `sum without (instance) (…)`. Times are"
    yield "in seconds. A counter's name ends in `_total`, a histogram has `_bucket`, `_sum` and `_count`. The endpoint `(other)` is all those"
    yield "beyond `router.metrics_endpoints`, and those that were removed before their last request had ended.\n"
    rows = []
    for family in families():
        labels = ", ".join(family.labels)
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.append((f"`{name}`", family.type, labels, family.documentation))
    yield from table(("metric", "type", "labels", "meaning"), rows)


def headers() -> Iterator[str]:
    found = headers_in_code()
    yield "## Headers\n"
    yield "Of answers:\n"
    rows = ((f"`{name}`", HEADERS.get(name, "")) for name in sorted(found - set(INTERNAL)))
    yield from table(("header", "meaning"), rows)
    yield "Of requests, these are read:\n"
    yield from table(
        ("header", "meaning"), ((f"`{name}`", REQUEST_HEADERS.get(name, "")) for name in request_headers())
    )
    yield "Between router and replica only:\n"
    yield from table(("header", "meaning"), ((f"`{name}`", INTERNAL[name]) for name in sorted(found & set(INTERNAL))))


def request_headers() -> list[str]:
    from router.admission.request import KEPT

    return sorted(name.decode() for name in KEPT - {b"content-length", b"host"})


def headers_in_code() -> set[str]:
    """What is named as a header in the router and in the replica's gate."""
    files = [*(ROOT / "router").rglob("*.py"), ROOT / "runtime" / "serving" / "gate.py"]
    return {name for file in files for name in headers_named(file.read_text())} - OF_REQUESTS - set(REQUEST_HEADERS)


def headers_named(source: str) -> set[str]:
    """Headers in the source of a module: a literal that is the name, or one that holds lines of a head, `name: …`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            found |= set(re.findall(rf"(?:^|\n)({NAMES})(?=: |\Z)", text))
    return found


def errors() -> Iterator[str]:
    yield "## Errors\n"
    yield 'On every path, 404 and 405 included: `{"error": {"message", "type", "param", "code"}}`. The message says what to do. With 503'
    yield 'comes `Retry-After`. In a stream whose head has been sent an error is an event, `data: {"error": …}`. What the engine itself'
    yield "refuses is told in one sentence, with the field; what only an operator can change goes to the router's log, under the id that the"
    yield "message has. On `/v1/messages` an error has Anthropic's shape besides, and its types.\n"
    rows = (
        (str(kind.status), f"`{kind.code}`" if kind.code else "–", f"`{kind.type}`", meaning(kind))
        for kind in error_tree()
    )
    yield from table(("status", "code", "type", "meaning"), sorted(rows, key=lambda row: row[0]))


def error_tree() -> list[Any]:
    from router.errors import RouterError

    def below(kind: Any) -> Iterator[Any]:
        yield kind
        for child in kind.__subclasses__():
            if child.__module__ == RouterError.__module__:
                yield from below(child)

    return [kind for kind in below(RouterError) if kind.__name__ not in ABSTRACT]


def meaning(kind: Any) -> str:
    return ERRORS.get(kind.__name__, "")


def routes() -> Iterator[str]:
    from router.admission.routes import ROUTES

    yield "## Inference routes\n"
    yield "Below `/e/ENDPOINT`, where `model` may be left out, or with the endpoint's name as `model`. `/openapi.json` has every field with its bounds.\n"
    rows = (
        (
            f"`POST /v1/{route.name}`",
            ", ".join(route.tasks),
            ", ".join(f"`{field}`" for field in (route.needs, route.also) if field),
            "yes" if route.streams else "no",
            route.says,
        )
        for route in ROUTES.values()
    )
    yield from table(("route", "task", "needed", "streams", "what it does"), rows)


def admin() -> Iterator[str]:
    yield "## Admin API\n"
    yield "Through the router, with `Authorization: Bearer` and the key in `STATE/secrets/admin.key`.\n"
    yield from table(
        ("method", "path", "what it does"),
        ((method, f"`/api/v1{path}`", said) for method, path, said in admin_routes()),
    )


def admin_routes() -> list[tuple[str, str, str]]:
    """(method, path, meaning) of every one."""
    from router.admin.app import make_app
    from router.admin.audit import Audit

    nothing: Any = None
    routes = (
        make_app(
            store=nothing,
            activator="unix:/nowhere",
            ledger="unix:/nowhere",
            admin_key="",
            pepper=b"",
            snapshots=nothing,
            audit=Audit(nothing, ROOT),
        )
        .routes[0]
        .routes
        or []
    )
    return [
        (method, route.path, ADMIN.get(f"{method} {route.path}", ""))
        for route in routes
        for method in sorted(set(getattr(route, "methods", None) or {"GET"}) - {"HEAD"})
    ]


def table(heads: tuple[str, ...], rows: typing.Iterable[tuple[str, ...]]) -> Iterator[str]:
    found = list(rows)
    if not found:
        return
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in found:
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |"
    yield ""


def pages() -> dict[Path, str]:
    from pilotlight.cli.endpoints.manifest import schema

    return {PAGE: render(), SCHEMA: schema() + "\n"}


if __name__ == "__main__":
    if "--check" in sys.argv:
        behind = [
            str(file.relative_to(ROOT))
            for file, text in pages().items()
            if not file.exists() or file.read_text() != text
        ]
        sys.exit(f"{' and '.join(behind)} fell behind the code: run python infra/reference.py" if behind else 0)
    PAGE.parent.mkdir(exist_ok=True)
    for file, text in pages().items():
        file.write_text(text)
