"""What a process logs is one JSON object a line, from us and from libraries alike, and no key leaves it."""

from __future__ import annotations

import json
import subprocess
import sys

from pilotlight import keys

SPEAKER = """
import logging, sys
import structlog
from pilotlight import logs

log = structlog.get_logger()
logs.configure("router")
logs.configure("router")
log.info("ready", action="ready", replica_id="r1", path="/x", key=sys.argv[1])
log.debug("not shown")
logging.getLogger("uvicorn.error").warning("from a library %s", sys.argv[1])
try:
    prompt = "a secret prompt"
    1 / 0
except ZeroDivisionError:
    log.exception("it crashed", action="crash")
structlog.contextvars.bind_contextvars(request_id="q1")
log.info("bound")
sys.stderr.close()
log.info("to nobody")
print("still alive")
"""


def test_lines() -> None:
    key = keys.mint()
    done = subprocess.run([sys.executable, "-c", SPEAKER, key], capture_output=True, text=True, check=True)
    assert done.stdout == "still alive\n"
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    ready, library, crash, bound = lines
    assert {name: ready[name] for name in ("event", "action", "replica_id", "process", "level")} == {
        "event": "ready",
        "action": "ready",
        "replica_id": "r1",
        "process": "router",
        "level": "info",
    }
    assert ready["time"].endswith("Z")
    assert ready["key"] == f"{key[:5]}…{key[-4:]}"
    assert (library["level"], library["process"]) == ("warning", "router")
    assert "ZeroDivisionError" in crash["exception"]
    assert bound["request_id"] == "q1"
    assert key not in done.stderr
    assert "a secret prompt" not in done.stderr.replace('prompt = "a secret prompt"', "")
