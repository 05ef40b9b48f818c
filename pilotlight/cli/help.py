"""What the command line says of itself: its version, and `pilotlight help COMMAND`, for those who do not think of
`--help` first.
"""

from __future__ import annotations

from typing import Any

from pilotlight.cli.options import USAGE, print_json, stop
from pilotlight.installed import installed_version


def print_version(*, as_json: bool = False) -> None:
    """Of Pilotlight, alone on stdout, for scripts; `pilotlight doctor` tells of Python and the engine."""
    version = installed_version()
    if as_json:
        print_json({"version": version})
    else:
        print(f"pilotlight {version}")


def print_help(context: Any, words: list[str]) -> None:
    """The help of the command that `words` name; of all where they name none. Stops where there is no such command."""
    context = context.find_root()
    for word in words:
        command = getattr(context.command, "commands", {}).get(word)
        if command is None:
            there = ", ".join(
                sorted(name for name, each in getattr(context.command, "commands", {}).items() if not each.hidden)
            )
            rest = f"there are {there}" if there else f"`{context.command_path}` has no commands of its own"
            stop(f"{context.command_path} has no command {word!r}: {rest}", USAGE)
        context = type(context)(command, info_name=word, parent=context)
    print(context.get_help())
