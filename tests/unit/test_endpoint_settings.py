"""A setting of endpoints is in every place it passes through: what is missing in one of them is lost there without a
word.

Whoever adds one adds it to `activator.wire.Configuration` and runs this: each failure names the next place.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from activator.catalogue import Catalogue, Endpoint, Revision
from activator.policy.deploy import OF_THE_ENDPOINT
from activator.state import status
from activator.store.catalogue import SQL
from activator.wire import Configuration, Deploy
from pilotlight.cli.endpoints import commands as endpoint_commands
from pilotlight.cli.main import app
from tests.activator_world import World
from tests.fakes_activator import endpoint, revision

ROOT = Path(__file__).resolve().parent.parent.parent
FIELDS = tuple(Configuration.model_fields)
OF_A_REVISION = tuple(field for field in FIELDS if field not in OF_THE_ENDPOINT)
BY_COMMANDS_OF_THEIR_OWN = {"paused"}


def names(of: type[Any]) -> set[str]:
    return {field.name for field in fields(of)}


def named(sql: str) -> set[str]:
    return set(re.findall(r"\w+", sql))


def test_the_activator_is_told_of_each() -> None:
    assert set(FIELDS) <= set(Deploy.model_fields)
    assert all(Deploy.model_fields[field].default is None for field in FIELDS), "not said: as it is"


def test_each_belongs_to_the_endpoint_or_to_its_revisions() -> None:
    assert set(OF_THE_ENDPOINT) <= set(FIELDS)
    assert set(OF_THE_ENDPOINT) <= names(Endpoint) and set(OF_A_REVISION) <= names(Revision)


def test_each_is_stored_and_read_again() -> None:
    for statement in ("endpoints", "put_endpoint"):
        assert set(OF_THE_ENDPOINT) <= named(SQL[statement]), f"catalogue.sql, {statement}"
    assert all(f"excluded.{field}" in SQL["put_endpoint"] for field in OF_THE_ENDPOINT), (
        "catalogue.sql: one that is known changes too"
    )
    for statement in ("revisions", "add_revision"):
        assert set(OF_A_REVISION) <= named(SQL[statement]), f"catalogue.sql, {statement}"


def test_each_is_shown_by_the_admin_api() -> None:
    folder = ROOT / "router" / "admin" / "sql"
    endpoints, revisions = ((folder / f"list_{what}.sql").read_text() for what in ("endpoints", "revisions"))
    assert all(f"e.{field}" in endpoints for field in OF_THE_ENDPOINT)
    assert all(f"r.{field}" in endpoints and f"'{field}', n.{field}" in endpoints for field in OF_A_REVISION), (
        "what serves, and what is next"
    )
    assert set(OF_A_REVISION) <= named(revisions)


def test_each_is_in_the_status_and_in_what_is_said_of_it() -> None:
    world = World(endpoint("a", revision("a")))
    [told] = world.status()["endpoints"]
    assert set(OF_THE_ENDPOINT) <= set(told) and set(OF_A_REVISION) <= set(told["revisions"][0])
    assert all(f'"{field}"' in (status.__doc__ or "") for field in FIELDS)
    assert isinstance(world.reconciler.state.catalogue, Catalogue)


def test_the_command_line_has_an_option_for_each() -> None:
    source = inspect.getsource(endpoint_commands.deploy)
    assert {field for field in FIELDS if f'"{field}": ' not in source} == BY_COMMANDS_OF_THEIR_OWN


def defaults() -> list[tuple[str, str]]:
    """(option, what its help says a new endpoint has)."""
    command: Any = typer.main.get_command(app)
    found = [
        (option.name, re.search(r"For a new endpoint ([\w.]+)", option.help or ""))
        for option in command.commands["deploy"].params
    ]
    return [(name, said[1].rstrip(".")) for name, said in found if said]


@pytest.mark.parametrize(("option", "said"), defaults())
def test_what_the_help_says_of_a_new_endpoint_is_so(option: str, said: str) -> None:
    [field] = [field for field in FIELDS if field in (option, f"{option}_seconds", f"{option}s")]
    default = Configuration.model_fields[field].default
    assert {"none": (), "nothing": ()}.get(said, said) == (
        default if isinstance(default, tuple) else f"{default:g}" if isinstance(default, float) else str(default)
    )
