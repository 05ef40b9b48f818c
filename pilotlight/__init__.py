"""Pilotlight's ground floor, which every part stands on, and on the top floor its command line.

structlog imports rich where it finds it, to draw tracebacks in colours: 80 modules and 4 MB that no service uses. It
imports greenlet, too, which comes with the database's migrations: 1 MB. So it is imported as if there were neither.
It is imported only once somebody logs. A command that shows a line of text must be there in 0.2 s, and structlog takes
half of that. pydantic looks for plugins among all that is installed. That takes 2 MB of every process, and would run
code of others in ours. So it is told that there are none. Every package of ours imports this one first. Who wants any
of these later has it.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

PLUGINS = "pydantic.plugin._loader"
UNUSED = ("rich", "greenlet")  # what structlog would use if it were there


class _Alone(SourceFileLoader):
    """Loads structlog while nothing it could use can be found."""

    def exec_module(self, module: ModuleType) -> None:
        hidden = {name: sys.modules.get(name) for name in UNUSED}
        for name in UNUSED:
            sys.modules[name] = None  # type: ignore[assignment]
        try:
            super().exec_module(module)
        finally:
            for name, was in hidden.items():
                del sys.modules[name]
                if was is not None:
                    sys.modules[name] = was


class _NoPlugins(SourceFileLoader):
    """In place of pydantic's module that looks for plugins."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["get_plugins"] = tuple  # called, it gives none


class _Lean:
    """A finder that knows these two alone."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == PLUGINS:
            return ModuleSpec(name, _NoPlugins(name, ""))
        if name != "structlog":
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is not None and found.origin is not None:
            found.loader = _Alone(name, found.origin)
        return found


if "structlog" not in sys.modules:
    sys.meta_path.insert(0, _Lean)
