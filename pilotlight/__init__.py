"""Pilotlight's ground floor, on which every part stands; its top floor is the command line.

Every package of ours imports this one first, because it keeps rich away from structlog. structlog imports rich to draw
tracebacks in colours: 80 modules and 4 MB that no service uses. structlog itself is imported once somebody logs: it
takes half of the 0.2 s in which a command must show its text. Who wants rich later has it.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType


class _WithoutRich(SourceFileLoader):
    """Loads structlog while rich cannot be found."""

    def exec_module(self, module: ModuleType) -> None:
        hidden = sys.modules.get("rich")
        sys.modules["rich"] = None  # type: ignore[assignment]
        try:
            super().exec_module(module)
        finally:
            del sys.modules["rich"]
            if hidden is not None:
                sys.modules["rich"] = hidden


class _Structlog:
    """A finder that knows structlog alone."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "structlog":
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is not None and found.origin is not None:
            found.loader = _WithoutRich(name, found.origin)
        return found


if "structlog" not in sys.modules:
    sys.meta_path.insert(0, _Structlog)
