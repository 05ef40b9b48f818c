"""Writes docs/reference.md and docs/endpoint.schema.json: every command, setting, metric, route, header, error and
admin path.

    python infra/reference.py [--check]

All of it comes from the code: commands, settings, metrics, the error tree, and the routes of both APIs. An error's
meaning is its class's docstring; that of headers and admin paths is in `reference_meanings.py`. A test runs `--check`,
and holds that nothing is without a meaning.
"""

from __future__ import annotations

import ast
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.reference_meanings import ABSTRACT, ADMIN, HEADERS, INTERNAL, NAMES, OF_REQUESTS, REQUEST_HEADERS
from pilotlight.exposition import Family

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PAGE, SCHEMA = ROOT / "docs" / "reference.md", ROOT / "docs" / "endpoint.schema.json"

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
    return " ".join((kind.__doc__ or "").split())


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
    app = make_app(
        store=nothing,
        activator="unix:/nowhere",
        ledger="unix:/nowhere",
        admin_key="",
        pepper=b"",
        snapshots=nothing,
        audit=Audit(nothing, ROOT),
    )
    mount: Any = app.routes[0]
    routes = mount.routes or []
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
