"""Writes ARCHITECTURE.md: the numbered way by hand (below), one line a module from the modules themselves.

    python infra/architecture.py [--check]

A module's line is the first of its docstring; a test runs `--check`, so the page cannot fall behind the code.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
PACKAGES = ("pilotlight", "router", "activator", "runtime", "snapshots")

WAY = """# Architecture

Nouns: an **endpoint** is a public name with a URL and keys; its route leads to **revisions**, immutable configurations of a
**snapshot** (verified safetensors, tokenizer, config). A **node** runs **standbys**, processes that have imported and rehearsed
the engine; a **replica** is a fork of one that serves one revision. **Demand** is held + in-flight requests of a revision, now.
A **hold** is the bounded wait for a slot; a **phase** is one timed step of a cold start; a **usage record** is the one row a
request leaves.

## The way of one request

The module docstrings carry these numbers.

1. `router/edge/protocol.py` accepts the call; `router/app.py` is the pipeline, one line a stage.
2. `router/admission/auth.py` turns the API key into a tenant.
3. `router/admission/openai.py` reads what routing and billing need, and refuses what is malformed.
4. Limits and budgets: not built yet.
5. `router/hold/hold.py` waits, bounded, for a slot; the first waiter pushes demand at once.
6. `activator/reconciler.py` hears it and asks pure functions (`scaler.py`, `placement.py`, `lifecycle.py`) what to do.
7. `activator/launchers/` and `agents.py` keep a node's agent, `runtime/node/agent.py`, which keeps the standbys.
8. `runtime/fork/standby.py` forks; `runtime/engine/serving.py` builds the engine in the child and streams its phases back.
9. `snapshots/stage.py` gave it verified bytes.
10. `ready` is pushed through the activator to every router's `table.py`; the hold wakes as many waiters as there are slots.
11. `router/relay/relay.py` sends the request once and streams the answer back; `runtime/serving/gate.py` has the last word on slots.
12. `runtime/engine/metering.py` counts what the engine produced and `runtime/serving/usage.py` journals it; `router/relay/meter.py` closes the record exactly once; `router/ledger/`
    joins the two and settles one row in Postgres, once it is known by word (`runtime/node/watermark.py`) that the journal has no more to
    say; what comes later still is a row more, a correction. Of a replica that is lost, `runtime/node/last_counts.py` has the last count.

Imports run one way: `pilotlight.cli → router → activator → runtime → snapshots → pilotlight.{database, tls, keys, …}`. A caller
imports only `wire.py` and `client.py` of the package it calls, and router and gate share `runtime/forms.py`; torch and vllm are imported
by `runtime/engine/` and `runtime/loader/` alone, once a standby asks for them.
import-linter holds this in `make check`.

## Processes

| process | started by | what dies with it | who ends it when it hangs |
|---|---|---|---|
| `pilotlight up` | you | everything, in order; after its kill -9 the kernel tells the rest to stop | systemd, where it runs under it |
| Postgres | `up` | nothing; it is started again by the next `up` | `up`, which asks it for a connection |
| `python -m activator` | `up` | nothing: routers keep their table, the agent keeps the replicas, the next one adopts them | `up` (`pilotlight/watchdog.py`) |
| `python -m runtime` (agent) | the activator, in a session of its own | its standbys and replicas: their control sockets end | the activator, within a minute |
| `python -m runtime.fork.standby` | the agent | nothing: its replicas are sessions of their own | the agent, which asks it once a second |
| a replica: API process and engine core | a fork of the standby | its running requests; the agent ends and removes the rest within milliseconds | the agent, which hears it beat (`runtime/serving/pulse.py`) |
| `python -m router` | `up` | its running requests; their records are in the spool | `up`; a worker, the router's parent |
| `python -m router.ledger` | `up` | nothing: it reads the spool again | `up` |
| `python -m router.admission.reading_process` | a router worker, at its first large body | the call whose body it read: 503 | the worker, after 30 s a body |
| `python -m router.admin` | `up` | nothing | `up` |

## Modules
"""


def render() -> str:
    parts = [WAY]
    for package in PACKAGES:
        parts.append(f"\n### {package}/\n\n| module | |\n|---|---|\n")
        for file in sorted(
            (ROOT / package).rglob("*.py"), key=lambda file: (len(file.relative_to(ROOT).parts), str(file))
        ):
            if "migrations" in file.parts:
                continue
            if line := first_line(file):
                parts.append(f"| `{file.relative_to(ROOT / package)}` | {line} |\n")
    return "".join(parts)


def first_line(file: Path) -> str:
    """The docstring's first sentence line, joined when it is broken; empty for an empty module."""
    paragraph = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|").split(". ")[0].rstrip(".")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(
            0
            if PAGE.exists() and PAGE.read_text() == render()
            else "ARCHITECTURE.md is behind the code: run python infra/architecture.py"
        )
    PAGE.write_text(render())
