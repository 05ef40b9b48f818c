"""An installation in the background: `up --detach` starts it, `status` says how it stands, `down` stops it.

Who runs is told by the lock on the state folder (`running.py`), never by a file alone. The process is held by a
descriptor before it is signalled, so that no other one can have its number by then. What must survive is a start that
fails in the background: its last words are this command's.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pilotlight import children
from pilotlight.cli.drawn import line
from pilotlight.cli.exit_codes import FAILED, OK, UNREACHABLE, ApiError, printable, say
from pilotlight.cli.options import print_json, stop
from pilotlight.cli.running import pid_of
from pilotlight.cli.tables import Table, show
from pilotlight.cli.times import duration
from pilotlight.settings import Settings

LOOK_SECONDS = 0.5
MODULE = "pilotlight.cli.up.installation"
MODULES = (MODULE, "pilotlight.cli.up")  # the second: an `up` of the release before
AGAIN = "it goes on in the background: `pilotlight status` says how it stands, `pilotlight down` stops it"


def detach(settings: Settings, *, as_json: bool) -> int:
    """Starts everything, and returns once it is ready, or has failed."""
    from pilotlight.cli.up.supervise import environ

    if pid_of(settings.paths):
        say(f"pilotlight: it already runs on {settings.paths.state}: `pilotlight status` says how it stands")
        return FAILED
    settings.paths.make()
    log = settings.paths.logs / "up.log"
    with log.open("ab") as written:
        begun = written.tell()
        process = subprocess.Popen(
            children.python(MODULE, "--json"),
            env=environ(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=written,
            start_new_session=True,
        )
    try:
        ready = _until_ready(process, log, begun)
    except KeyboardInterrupt:
        say(f"pilotlight: {AGAIN}")
        raise
    if not ready:
        say(_last_words(log, begun) or f"pilotlight: it ended at once; see {log}")
        return process.wait()
    found = json.loads(ready)
    if as_json:
        print_json(found | {"pid": process.pid})
    else:
        show_files(found)
        say(f"pilotlight: {AGAIN}; its log is {log}")
    return OK


def _until_ready(process: subprocess.Popen[bytes], log: Path, begun: int) -> bytes:
    """The line it prints when it is ready; b"" where it has ended before."""
    assert process.stdout is not None
    with line() as draw:
        while not select.select([process.stdout], [], [], LOOK_SECONDS)[0]:
            draw(_last_words(log, begun) or "starting")
    return process.stdout.readline()


def _last_words(log: Path, begun: int) -> str:
    with log.open("rb") as written:
        written.seek(begun)
        said = [each for each in written.read().decode(errors="replace").splitlines() if each.strip()]
    return printable(said[-1]) if said else ""


def show_files(found: dict[str, Any]) -> None:
    print(f"API        {found['url']}/e/ENDPOINT/v1")
    for name, field in (
        ("CA file", "ca_file"),
        ("CA bundle", "ca_bundle"),
        ("admin key", "admin_key_file"),
        ("metrics", "metrics"),
        ("logs", "logs"),
    ):
        if field in found:
            print(f"{name:<10} {'in ' if field == 'admin_key_file' else ''}{found[field]}")


@contextmanager
def _held(pid: int) -> Iterator[int]:
    """A descriptor of the process, once it is known to be an `up`. Stops where it is none."""
    try:
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        stop("it has just ended")
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if not any(module.encode() in words for module in MODULES):
            stop(
                f"process {pid} is not `pilotlight up`: it runs in another container, or as another user; stop it there"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def take_down(settings: Settings, *, wait: bool, as_json: bool) -> None:
    """As Ctrl-C does in the foreground: running answers may finish, then everything ends in order. It is not a failure
    that nothing runs.
    """
    pid = pid_of(settings.paths)
    if not pid:
        if as_json:
            print_json({"was_running": False, "stopped": True})
        say(f"nothing runs on {settings.paths.state}")
        return
    if pid < 0:
        stop("it runs, but the release that started it does not say which process it is: stop it where it was started")
    with _held(pid) as descriptor:
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        except PermissionError:
            stop(f"process {pid} belongs to another user: stop it as that user")
        ended = _until_ended(descriptor) if wait else False
    if as_json:
        print_json({"was_running": True, "stopped": ended, "pid": pid})
    say("stopped" if ended else f"process {pid} is stopping: running answers may finish first")


def _until_ended(descriptor: int) -> bool:
    """Ctrl-C leaves it stopping."""
    begun = time.monotonic()
    with line() as draw:
        while not select.select([descriptor], [], [], LOOK_SECONDS)[0]:
            draw(f"stopping, for {time.monotonic() - begun:.0f} s: running answers may finish first")
    return True


def show_standing(settings: Settings, *, as_json: bool) -> int:
    """Whether it runs, and how. The exit code: 0 it answers, 3 it does not run or answer."""
    found = standing(settings)
    if as_json:
        print_json(found)
    else:
        rows = Table("what", prose="how it stands")
        for what, how in words_of(found):
            rows.add_row(what, how)
        show(rows)
    return OK if found["answers"] else UNREACHABLE


def standing(settings: Settings) -> dict[str, Any]:
    from pilotlight.cli.api import Api
    from pilotlight.installed import installed_version

    paths = settings.paths
    pid = pid_of(paths)
    found: dict[str, Any] = {
        "version": installed_version(),
        "state": str(paths.state),
        "running": bool(pid),
        "pid": max(pid, 0) or None,
        "answers": False,
    }
    if pid > 0:
        found["seconds"] = round(time.time() - (paths.run / "up.lock").stat().st_mtime)
    try:
        api = Api(paths, timeout=5.0)
        found["url"] = api.url
        status = api.call("GET", "/status")
    except ApiError as error:
        return found | {"reason": str(error)}
    return found | {"answers": True} | counted(status)


def counted(status: dict[str, Any]) -> dict[str, Any]:
    """What runs, in numbers. Pure."""
    endpoints = [each for each in status["endpoints"] if not each["removed"]]
    replicas = [
        replica for each in status["endpoints"] for revision in each["revisions"] for replica in revision["replicas"]
    ]
    awake = [
        each
        for each in endpoints
        if any(replica["state"] == "ready" for revision in each["revisions"] for replica in revision["replicas"])
    ]
    return {
        "endpoints": len(endpoints),
        "awake": len(awake),
        "replicas": len(replicas),
        "nodes": len(status["nodes"]),
        "nodes_connected": sum(bool(node["connected"]) for node in status["nodes"]),
        "standbys_ready": sum(node["standbys_ready"] for node in status["nodes"]),
    }


def words_of(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Pure."""
    yield "version", found["version"]
    yield "state", found["state"]
    process = f", process {found['pid']}" if found["pid"] else ""
    since = f", for {duration(found['seconds'])}" if found.get("seconds") else ""
    yield "running", f"yes{process}{since}" if found["running"] else "no: `pilotlight up` starts it"
    if "url" in found and found["running"]:
        yield "API", f"{found['url']}/e/ENDPOINT/v1" + ("" if found["answers"] else ", which does not answer")
    if found["answers"]:
        yield "endpoints", f"{found['endpoints']}, {found['awake']} awake with {found['replicas']} replicas"
        ready = found["standbys_ready"]
        yield (
            "wakes",
            f"fast: {ready} standby rehearsed"
            if ready
            else "slow: no standby is rehearsed (yet); `pilotlight ps` says why",
        )
    elif found["running"]:
        yield "trouble", found.get("reason", "")
