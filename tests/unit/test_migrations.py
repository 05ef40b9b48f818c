"""Migrations are one chain: two with the same number, made side by side, would leave every new installation without a database."""

from __future__ import annotations

from pathlib import Path

from pilotlight.database import migrate

FOLDER = Path(migrate.__file__).parent / "migrations"


def test_every_number_is_used_once_by_a_step_and_its_statements() -> None:
    steps = sorted(path.stem for path in (FOLDER / "versions").glob("0*.py"))
    assert [name[:4] for name in steps] == [f"{number:04}" for number in range(1, len(steps) + 1)]
    assert [path.stem for path in sorted(FOLDER.glob("*.sql"))] == steps


def test_the_chain_has_one_end() -> None:
    last = max(path.stem for path in (FOLDER / "versions").glob("0*.py"))
    assert migrate.newest() == last[:4]
