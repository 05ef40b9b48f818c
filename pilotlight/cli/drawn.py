"""A line on stderr that says how something stands while one waits for it, and the words for what a wake waits for.

On a terminal the line is drawn anew, and gone at the end. Elsewhere each new kind of news is a line, once. What must
survive is the wait itself: an installation that cannot say how it stands is asked again.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pilotlight.cli.exit_codes import ApiError, printable, say
from pilotlight.cli.tables import cells

LOOK_SECONDS = 0.5  # between two looks at a wake: the admin API does not push
QUIET_SECONDS = 2.0  # a shorter wait is not news where stderr is not a terminal
REHEARSES = "first rehearsal of the engine"


class Drawn(Protocol):
    """Draws a text in place of the one before."""

    def __call__(self, text: str) -> None: ...


@contextmanager
def line() -> Iterator[Drawn]:
    """A text drawn in place of the one before."""
    if not can_draw():
        said: set[str] = set()

        def once(text: str) -> None:
            kind = text.partition(", for ")[0]  # how long it has lasted is not news
            if kind not in said:
                said.add(kind)
                say(text)

        yield once
        return
    try:
        yield lambda text: _draw(text)
    finally:
        _draw("")


def can_draw() -> bool:
    """Whether stderr is a terminal that can take a line back."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _draw(text: str) -> None:
    sys.stderr.write(f"\r\033[K{fitting(printable(text), shutil.get_terminal_size().columns - 1)}")
    sys.stderr.flush()


def fitting(text: str, width: int) -> str:
    """As much of a line as a terminal shows, in whole words, with … where it goes on. Pure."""
    if cells(text) <= width:
        return text
    while text and cells(text) >= width - 1:
        text = text.rpartition(" ")[0] if " " in text else text[:-1]
    return f"{text} …"


@contextmanager
def while_held(ask: Callable[[], dict[str, Any]], name: str) -> Iterator[Callable[[], None]]:
    """Draws what a call of the endpoint waits for, until what it yields is called, or the end. `ask`: the status of the
    installation.
    """
    over, lock = threading.Event(), threading.Lock()
    with line() as draw:

        def look() -> None:
            pause = LOOK_SECONDS if can_draw() else QUIET_SECONDS
            while not over.wait(pause):
                pause = LOOK_SECONDS
                try:
                    text = held_by(ask(), name)
                except ApiError:
                    continue  # the call that is waited for says what is wrong
                with lock:
                    if text and not over.is_set():
                        draw(text)

        def stop() -> None:
            with lock:
                if not over.is_set():
                    over.set()
                    if can_draw():
                        draw("")

        threading.Thread(target=look, daemon=True, name="wait").start()
        try:
            yield stop
        finally:
            stop()


def held_by(status: dict[str, Any], name: str) -> str:
    """What a call of the endpoint waits for; "" where a replica is ready, or nobody knows. Pure."""
    endpoint = next((each for each in status["endpoints"] if each["name"] == name and not each["removed"]), None)
    led = [part[0] for part in endpoint["route"] if part[1]] if endpoint else []
    revisions = [each for each in endpoint["revisions"] if each["revision_id"] in led] if endpoint else []
    if not revisions or any(replica["state"] == "ready" for each in revisions for replica in each["replicas"]):
        return ""
    return f"{name} {standing(revisions[0], status.get('nodes', ()))}"


def standing(revision: dict[str, Any] | None, nodes: Any = (), *, beside: bool = False) -> str:
    """How a revision that is to start stands, in words; `beside`: beside the one that serves. Pure."""
    if revision is None:
        return "is on its way"
    if waits_for := revision.get("waits_for"):
        if revision.get("waits_for_node"):
            return f"waits: {waits_for}"
        return f"waits, for there is no room for both: {waits_for}" if beside else f"waits for room: {waits_for}"
    starting = [replica for replica in revision["replicas"] if replica["state"] == "starting"]
    unrehearsed = bool(nodes) and not any(node.get("standbys_ready") for node in nodes)
    if not starting:
        return f"is on its way: {REHEARSES}" if unrehearsed else "is on its way"
    phases = sorted(starting[0]["phases"], key=lambda phase: phase["at"])
    done = f", {phases[-1]['name']} done" if phases else ""
    about = f" of about {revision['expected_seconds']:.0f} s" if revision.get("expected_seconds", 0) >= 1 else ""
    if unrehearsed and (not phases or phases[-1]["name"] in ("place", "fetch")):
        return f"starts, for {starting[0]['age_seconds']:.0f} s{about}: {REHEARSES}"
    return f"starts, for {starting[0]['age_seconds']:.0f} s{about}{done}"
