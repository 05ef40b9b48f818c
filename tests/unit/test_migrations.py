<<<<<<< HEAD
"""Migrations are one chain: two with the same number, made side by side, would leave every new installation without a database."""

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
=======
"""Migrations are one chain: each has a number of its own and follows the one before it."""

from __future__ import annotations

import importlib

from pilotlight.database.migrate import MIGRATIONS, newest


def test_every_migration_follows_the_one_before_it() -> None:
    files = sorted((MIGRATIONS / "versions").glob("[0-9]*_*.py"))
    numbers = [file.name.partition("_")[0] for file in files]
    assert numbers == [f"{number:04}" for number in range(1, len(files) + 1)], "two of them have one number, or one is missing"
    assert newest() == numbers[-1]
    for before, file in zip([None, *numbers], files, strict=False):
        module = importlib.import_module(f"pilotlight.database.migrations.versions.{file.stem}")
        assert (module.revision, module.down_revision) == (file.name.partition("_")[0], before)
        assert (MIGRATIONS / f"{file.stem}.sql").is_file()
>>>>>>> 9174cb4 (tests: migrations are one chain)
