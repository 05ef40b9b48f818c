"""`pilotlight`: the command line. Data goes to stdout, talk to stderr; exit codes are in the help of this command.

Each subject is a folder with its `commands.py`; what several subjects need is a module beside them. A command imports
what it needs when it runs, for `pilotlight --help` must be there in 0.2 s. No command but `up` may need Postgres
drivers or an engine. Whatever is refused, by us, by the kernel or on the network, is one line on stderr here, never a
traceback.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Annotated, Any

import typer

from pilotlight.cli import machine_commands
from pilotlight.cli.bench import commands as bench_commands
from pilotlight.cli.endpoints import commands as endpoint_commands
from pilotlight.cli.endpoints import revision_commands
from pilotlight.cli.exit_codes import (
    EXIT_CODES,
    FAILED,
    INTERRUPTED,
    OK,
    UNREACHABLE,
    ApiError,
    Unreachable,
    explain_os_error,
    one_line,
    settle_in,
    unread,
)
from pilotlight.cli.keys import commands as key_commands
from pilotlight.cli.snapshot import commands as snapshot_commands
from pilotlight.cli.talk import commands as talk_commands
from pilotlight.cli.usage import commands as usage_commands

app = typer.Typer(
    name="pilotlight",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},  # of every command below it, too
    help="Serve LLM endpoints that cost nothing while nobody calls them.\n\n"
    "Data goes to stdout, talk to stderr; --json where a command prints data; NO_COLOR is heeded.\n\n"
    "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
)


def _version(asked: bool) -> None:
    if asked:
        from pilotlight.cli.help import print_version

        print_version()
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version, and do nothing else.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


for register in (
    machine_commands.register,
    endpoint_commands.register,
    revision_commands.register,
    talk_commands.register,
    usage_commands.register,
):
    register(app)
app.add_typer(key_commands.app, name="keys")
app.add_typer(usage_commands.app, name="usage")
app.add_typer(snapshot_commands.app, name="snapshot")
app.add_typer(machine_commands.config, name="config")
app.add_typer(bench_commands.app, name="bench")


@cache
def command() -> Any:
    """The whole command line as typer makes it of `app`: made once, for it takes some 50 ms."""
    return typer.main.get_command(app)


def main() -> None:
    settle_in()
    try:
        command()()
    except SystemExit as end:
        sys.exit(_read_to_the_end(end))
    except Unreachable as error:
        _end(str(error), UNREACHABLE)
    except ApiError as error:
        _end(str(error), FAILED)
    except OSError as error:
        _end(explain_os_error(error), FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _read_to_the_end(end: SystemExit) -> str | int | None:
    """The exit code. Whoever reads stdout may have enough of it (`| head -1`): typer and rich end with 1 there, but
    nothing failed.
    """
    if isinstance(end.__context__, BrokenPipeError):
        unread()
        return OK
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        unread()
    return end.code


def _end(message: str, code: int) -> None:
    print(f"pilotlight: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
