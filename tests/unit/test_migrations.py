"""Migrations are one chain: two with the same number, made side by side, would leave every new installation without a
database.
"""

from __future__ import annotations

from pathlib import Path

from pilotlight.database import migrate

FOLDER = Path(migrate.__file__).parent / "migrations"


def test_every_number_is_used_once_by_a_step_and_its_statements() -> None:
    steps = sorted(path.stem for path in (FOLDER / "versions").glob("0*.py"))
    assert [name[:4] for name in steps] == [f"{number:04}" for number in range(1, len(steps) + 1)]
    assert [path.stem for path in sorted(FOLDER.glob("*.sql"))] == steps


def test_each_step_follows_the_one_before() -> None:
    for path in sorted((FOLDER / "versions").glob("0*.py")):
        number = int(path.stem[:4])
        said = path.read_text()
        before = "None" if number == 1 else f'"{number - 1:04}"'
        assert f'\nrevision = "{number:04}"\n' in said and f"\ndown_revision = {before}\n" in said, path
        assert f'run_sql("{path.stem}.sql")' in said, path
