"""How the tests are spread over the cores: what needs no installation by forks (`tests/forked.py`), what starts real
processes by the workers of pytest-xdist, as `make test` calls it.

Files that share something dear go to one worker, one after the other: a folder with an installation (`shared` in
`tests/integration/system.py`), and the files that fork one imported vLLM (`tests/integration/forks.py`). Every other
file is a unit of its own. What takes longest begins first, so that no worker is left with it at the end.

And no example of Hypothesis has a time to keep, nor the making of it: a busy machine would fail tests by luck.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import forked
from tests.examples import ALL, FEW

settings.register_profile("default", deadline=None, max_examples=ALL, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("unit", settings.get_profile("default"), max_examples=FEW)
settings.load_profile("default")

FOLDER = Path(__file__).parent
UNIT = FOLDER / "unit"
FORKED = (UNIT, FOLDER / "slow", FOLDER / "sim")  # need no installation, so they are run by forks

HERE = "tests/integration"
SHARED = (f"{HERE}/killed", f"{HERE}/served", f"{HERE}/crowded")
FORKS = [f"{HERE}/test_{name}.py" for name in ("engine_known", "mapped", "metering_hooks", "ring", "shortcuts")]
LAST = f"{HERE}/killed/test_rungs.py"
LONGEST_FIRST = (
    *(
        f"{HERE}/killed",
        f"{HERE}/served",
        f"{HERE}/test_disks.py",
        "tests/acceptance/test_demo.py",
        "tests/acceptance/test_tour.py",
    ),
    *(FORKS[0], f"{HERE}/test_stored.py", f"{HERE}/crowded", f"{HERE}/test_ledger.py"),
)


FILES = pytest.StashKey[list[Path]]()


def pytest_configure(config: pytest.Config) -> None:
    """Unit tests alone have fewer examples of Hypothesis; `--hypothesis-profile=default` has its way."""
    given = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if config.option.hypothesis_profile is None and all(path.is_relative_to(UNIT) for path in given):
        settings.load_profile("unit")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> bool | None:
    session.config.stash[FILES] = files = forked.files_of(session.config, FORKED)
    return bool(files) or None


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if files := session.config.stash.get(FILES, []):
        forked.run(session, files)
    return bool(files) or None


def unit_of(file: str) -> str:
    """The folder or file whose tests stay together with those of this one."""
    folder = file.rpartition("/")[0]
    if folder in SHARED:
        return folder
    return FORKS[0] if file in FORKS else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`LAST` of its folder is what leaves no standby: the next file would wait for one."""
    place = {unit: number for number, unit in enumerate(LONGEST_FIRST)}

    def key(item: pytest.Item) -> tuple[int, bool]:
        file = item.nodeid.partition("::")[0]
        return place.get(unit_of(file), len(place)), file == LAST

    items.sort(key=key)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByUnit(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid.partition("::")[0])

    return ByUnit(config, log)
