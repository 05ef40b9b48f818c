"""How the command line ends and talks: exit codes, one line on stderr, and what the kernel refused in words.

Apart from `options.py` because `pilotlight up` lives as long as the machine, and would keep typer in memory for
nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

OK, FAILED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = {
    OK: "done",
    FAILED: "it failed, and the message says what to do",
    USAGE: "wrong usage, or a malformed setting or manifest",
    UNREACHABLE: "Pilotlight, its database or its store is not running or not reachable",
    INTERRUPTED: "interrupted with Ctrl-C",
}


def settle_in() -> None:
    """Before anything is said or written: whatever locale and umask the shell has, no character of ours ends a command,
    and our files are ours to read and nobody else's to write.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    os.umask(os.umask(0o077) & 0o077 | 0o022)


class ApiError(Exception):
    """The installation refused; the text is its own message."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status  # of HTTP; 0 where it was none


class Unreachable(ApiError):
    """Nobody answers there; the text says what to do."""


def printable(text: str) -> str:
    """One line without control characters: what a stranger has written moves no cursor and paints nothing."""
    return "".join(
        each if each.isprintable() else " " if each in "\t\n\r" else "\N{REPLACEMENT CHARACTER}" for each in text
    )


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def say(text: str) -> None:
    """A line for whoever watches. Where nobody reads any more (`2>&1 | head`) it is lost: that ends nothing."""
    with contextlib.suppress(OSError, ValueError):
        print(*map(printable, text.split("\n")), sep="\n", file=sys.stderr, flush=True)


def unread() -> None:
    """Nobody reads stdout any more: what is still to be written there, by Python at the end too, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def explain_os_error(error: OSError) -> str:
    """What the kernel refused, where, and what to do about it."""
    import errno

    place = error.filename if isinstance(error.filename, str) else os.fsdecode(error.filename) if error.filename else ""
    remedies = {
        errno.ENOSPC: "the disk is full: free some space, or choose another folder with --state; nothing that was complete is lost",
        errno.EDQUOT: "the disk quota is used up: free some space, or choose another folder with --state",
        errno.EACCES: "run as the user who owns it, or choose another folder",
        errno.EPERM: "run as the user who owns it, or choose another folder",
        errno.EROFS: "the file system is read-only: choose another folder with --state",
        errno.ENOTDIR: "something on this path is a file where a folder must be: choose another folder with --state",
        errno.EEXIST: "a file of that name is there already: choose another name",
        errno.ENOENT: "it is missing: correct the path, or restore it from a backup",
    }
    what = error.strerror or str(error)
    remedy = remedies.get(error.errno or 0, "")
    return f"{place}: {what}" + (f"; {remedy}" if remedy else "") if place else what + (f"; {remedy}" if remedy else "")
