"""The fork runner of pytest: tests that need no installation are collected and run in forks of one process.

A fork takes the next file when it is done with one, so collecting is spread over the cores too. (Workers of
pytest-xdist each import everything and collect every file: that alone is longer than a run of the unit tests.) What
the forks have in common is imported before them, once. A small selection, `-x`, `--pdb`, `-s` and `--lf` run as ever.
What must not happen: a fork dies, and takes its tests with it unnoticed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import pytest

FEWEST = 8  # files; forks are not worth it for less
COMMON = sorted(f"tests.{file.stem}" for file in Path(__file__).parent.glob("*.py") if file.stem != "__init__")


def files_of(config: pytest.Config, folders: Sequence[Path]) -> list[Path]:
    """The files to run in forks, the longest first. Empty where pytest is to run as ever."""
    option = config.option
    as_ever = (
        option.collectonly
        or option.maxfail
        or option.usepdb
        or option.capture == "no"
        or option.ignore
        or option.ignore_glob
        or getattr(option, "lf", False)
        or getattr(option, "failedfirst", False)
        or getattr(option, "numprocesses", None)
        or hasattr(config, "workerinput")
    )
    given = [Path(argument).resolve() for argument in config.args]
    if as_ever or not all(any(path.is_relative_to(folder) for folder in folders) for path in given):
        return []
    found = {file for path in given for file in ([path] if path.is_file() else path.rglob("test_*.py"))}
    return sorted(found, key=lambda file: (-_weight(file), file)) if len(found) >= FEWEST else []


def _weight(file: Path) -> int:
    """About how long it takes: what is long must not come last, when the other forks have nothing left."""
    text = file.read_text()
    return len(text) + 20_000 * text.count("@given") + 400_000 * text.count("RuleBasedStateMachine)")


def run(session: pytest.Session, files: list[Path]) -> None:
    """Collect and run these files, and report as if pytest itself had."""
    for name in COMMON:
        importlib.import_module(name)
    reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
    reporter._show_progress_info = False  # per cent of what? How many there are is not known before the end
    gc.collect()
    gc.freeze()  # what every test stands on lives to the end: the collector need not look at it again and again
    todo, more = os.pipe()
    # a fork reads a number, runs that file
    os.write(more, b"".join(number.to_bytes(2) for number in range(len(files))))
    os.close(more)
    forks: dict[Connection, _Fork] = {}
    for _ in range((os.cpu_count() or 1) + 1):  # one more than cores: some wait now and then
        ours, theirs = Pipe(duplex=False)
        if (pid := os.fork()) == 0:
            try:
                _work(session, files, todo, theirs)
            finally:
                os._exit(1)
        theirs.close()
        forks[ours] = _Fork(session, pid)
    lost: list[str] = []
    while forks:
        for ours in [fork for fork in wait(list(forks)) if isinstance(fork, Connection)]:
            try:
                forks[ours].heard(json.loads(ours.recv_bytes()))
            except EOFError:
                lost += forks.pop(ours).end()
    while number := os.read(todo, 2):  # all forks died before this one
        lost.append(str(files[int.from_bytes(number)]))
    os.close(todo)
    if lost:
        pytest.exit(f"a fork died; not run to their end: {', '.join(lost)}", returncode=3)


class _Fork:
    """What the parent knows of a fork: the file it is at, and the tests of it that are not reported yet."""

    def __init__(self, session: pytest.Session, pid: int) -> None:
        self._session, self._pid = session, pid
        self._left: set[str] = set()

    def heard(self, said: dict[str, Any]) -> None:
        config = self._session.config
        if "file" in said:
            self._left = {said["file"]}
        elif "tests" in said:
            self._left = set(said["tests"])
            self._session.testscollected += len(self._left)
        else:
            report = config.hook.pytest_report_from_serializable(config=config, data=said)
            if isinstance(report, pytest.CollectReport):
                config.hook.pytest_collectreport(report=report)
                return
            if report.when == "teardown":
                self._left.discard(report.nodeid)
            config.hook.pytest_runtest_logreport(report=report)

    def end(self) -> list[str]:
        """What it has left undone."""
        os.waitpid(self._pid, 0)
        return sorted(self._left)


def _work(session: pytest.Session, files: list[Path], todo: int, tell: Connection) -> None:
    """A fork's life: its reports go to the parent, which alone speaks to the terminal."""
    config = session.config
    hook, plugins = config.hook, config.pluginmanager

    def say(fields: dict[str, Any]) -> None:
        tell.send_bytes(json.dumps(fields).encode())

    class Teller:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            say(hook.pytest_report_to_serializable(config=config, report=report))

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if not report.passed:
                say(hook.pytest_report_to_serializable(config=config, report=report))

    plugins.unregister(plugins.getplugin("terminalreporter"))
    plugins.register(Teller())
    while number := os.read(todo, 2):
        file = str(files[int.from_bytes(number)])
        say({"file": file})
        config.args = [file]
        hook.pytest_collection(session=session)
        say({"tests": [item.nodeid for item in session.items]})
        for item, following in zip(session.items, [*session.items[1:], None], strict=False):
            hook.pytest_runtest_protocol(item=item, nextitem=following)
    os._exit(0)
