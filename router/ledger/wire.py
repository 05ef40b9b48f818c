"""What the ledger process says and hears: the contract between router workers and the machine's one ledger.

A worker connects to `paths.address("ledger")`, gets a whole `Policy` at once and again on every change (the ledger
LISTENs on Postgres' channel `policy`), and tells how far its spool has grown. The ledger also keeps the newest policy in
`paths.policy` as JSON of the same frame, so that a worker can start, and a restart can serve, without ledger or Postgres.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pilotlight.frames import Frame


class KeyRow(Frame):
    hash: str  # hex of HMAC-SHA-256 over the key, under the installation's pepper
    key_id: str
    org_id: str
    endpoint_id: str  # "" for an admin key
    scope: Literal["inference", "admin"]
    expires_at: float = 0.0  # Unix seconds; 0: never


class Policy(Frame):
    kind: Literal["policy"] = "policy"
    version: int
    keys: tuple[KeyRow, ...]


class Alive(Frame):
    kind: Literal["alive"] = "alive"


class WorkerHello(Frame):
    kind: Literal["worker"] = "worker"
    worker_id: str  # the stem of its spool files: "<worker_id>.<n>.jsonl"
    pid: int


class Spooled(Frame):
    """The worker's spool file has this many bytes now."""

    kind: Literal["spooled"] = "spooled"
    file: str
    bytes: int


ToLedger = Annotated[WorkerHello | Spooled | Alive, Field(discriminator="kind")]
FromLedger = Annotated[Policy | Alive, Field(discriminator="kind")]
