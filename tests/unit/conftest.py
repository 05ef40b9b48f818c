"""The unit tests run in forks of the process that has collected them: collecting costs as much as a third of running
them all.

A run of unit tests alone is spread over the cores, file by file; each fork takes the next file when it is done with
one. (pytest-xdist starts processes that each import and collect everything anew: three seconds twice, to save six.) A
small selection, `-x`, `--pdb` and `-s` run as ever, and so does a run with other tests in it. What must not happen: a
fork that dies and takes its tests with it unnoticed.
"""

from __future__ import annotations

import gc
import json
import os
from collections import defaultdict
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile(
    "unit", max_examples=50
)  # half of hypothesis' own: unit tests alone have ten seconds; `--hypothesis-profile` has its way

FEWEST = 200  # tests; a fork or two more is not worth it for less
HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    if config.option.hypothesis_profile is None and all(
        Path(argument.partition("::")[0]).resolve().is_relative_to(HERE) for argument in config.args
    ):
        settings.load_profile("unit")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    gc.collect()
    gc.freeze()  # what every test stands on lives to the end: the collector need not look at it again and again
    option = session.config.option
    alone = session.testsfailed or option.collectonly or option.maxfail or option.usepdb or option.capture == "no"
    if alone or len(session.items) < FEWEST or not all(HERE in item.path.parents for item in session.items):
        return None
    files: dict[Path, list[pytest.Item]] = defaultdict(list)
    for item in session.items:
        files[item.path].append(item)
    _run(session, sorted(files.values(), key=lambda items: sum(map(_weight, items)), reverse=True))
    return True


def _weight(item: pytest.Item) -> int:
    """About how long it takes beside a usual one: what is long must not come last, when the other forks have nothing
    left.
    """
    if hasattr(getattr(item, "cls", None), "settings"):  # hypothesis' state machines
        return 150
    return 30 if getattr(getattr(item, "function", None), "is_hypothesis_test", False) else 1


def _run(session: pytest.Session, files: list[list[pytest.Item]]) -> None:
    hook = session.config.hook
    todo, more = os.pipe()
    os.write(more, bytes(range(len(files))))  # whoever reads a byte runs that file
    os.close(more)
    forks: dict[Connection, int] = {}
    for _ in range((os.cpu_count() or 1) + 2):  # one more than cores: some wait now and then
        ours, theirs = Pipe(duplex=False)
        if (pid := os.fork()) == 0:
            try:
                _work(session, files, todo, theirs)
            finally:
                os._exit(1)
        theirs.close()
        forks[ours] = pid
    reported = set()
    while forks:
        for ours in [fork for fork in wait(list(forks)) if isinstance(fork, Connection)]:
            try:
                report = hook.pytest_report_from_serializable(config=session.config, data=json.loads(ours.recv_bytes()))
            except EOFError:
                os.waitpid(forks.pop(ours), 0)
                continue
            reported.add(report.nodeid)
            hook.pytest_runtest_logreport(report=report)
    os.close(todo)
    if lost := [item.nodeid for file in files for item in file if item.nodeid not in reported]:
        pytest.exit(f"a fork died; not run to their end: {', '.join(lost)}", returncode=3)


def _work(session: pytest.Session, files: list[list[pytest.Item]], todo: int, tell: Connection) -> None:
    """A fork's life: its reports go to the parent, which alone speaks to the terminal."""
    hook, plugins = session.config.hook, session.config.pluginmanager

    class Teller:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            tell.send_bytes(
                json.dumps(hook.pytest_report_to_serializable(config=session.config, report=report)).encode()
            )

    plugins.unregister(plugins.getplugin("terminalreporter"))
    plugins.register(Teller())
    while byte := os.read(todo, 1):
        items = files[byte[0]]
        for item, following in zip(items, [*items[1:], None], strict=True):
            hook.pytest_runtest_protocol(item=item, nextitem=following)
    os._exit(0)
