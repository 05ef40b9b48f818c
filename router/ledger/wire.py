"""What the ledger process says and hears: the contract between router workers, or the admin API, and the machine's one
ledger.

A worker connects to `paths.address("ledger")` and gets all of the policy at once, as `PolicyPart`s. Then it gets every
change as a `PolicyChange` (the ledger LISTENs on Postgres' channel `policy`). One of the release before gets a whole
`Policy` each time. A worker tells how far its spool has grown. The ledger also keeps the newest policy in
`paths.policy` as JSON of the same frame. So a worker can start, and a restart can serve, without ledger or Postgres. A
worker says `Applied` when it serves by a policy. `AwaitKey`, in place of a hello, asks when all of them do.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pilotlight.frames import PROTOCOL, Frame


class KeyRow(Frame):
    hash: str  # hex of HMAC-SHA-256 over the key, under the installation's pepper
    key_id: str
    org_id: str
    endpoint_id: str  # "" for an admin key
    scope: Literal["inference", "admin"]
    expires_at: float = 0.0  # Unix seconds by Postgres' clock; 0: never


class Policy(Frame):
    kind: Literal["policy"] = "policy"
    version: int
    keys: tuple[KeyRow, ...]
    ahead_seconds: float = 0.0  # Postgres' clock, of this machine's


class PolicyPart(Frame):
    """Some keys of a whole policy; it counts when the `last` is here."""

    kind: Literal["policy_part"] = "policy_part"
    version: int
    first: bool
    last: bool
    keys: tuple[KeyRow, ...]
    ahead_seconds: float = 0.0


class PolicyChange(Frame):
    """What makes the policy `base` the policy `version`. A key that is put takes the place of the one of its hash."""

    kind: Literal["policy_change"] = "policy_change"
    version: int
    base: int
    put: tuple[KeyRow, ...] = ()
    gone: tuple[str, ...] = ()  # hashes


class Alive(Frame):
    kind: Literal["alive"] = "alive"


class WorkerHello(Frame):
    kind: Literal["worker"] = "worker"
    worker_id: str  # the stem of its spool files: "<worker_id>.<n>.jsonl"
    pid: int
    takes_changes: bool = False  # and a whole policy in parts
    protocol: int = PROTOCOL


class Spooled(Frame):
    """The worker's spool file has this many bytes now."""

    kind: Literal["spooled"] = "spooled"
    file: str
    bytes: int


class Applied(Frame):
    """The worker serves by the policy of this version."""

    kind: Literal["applied"] = "applied"
    version: int


class AwaitKey(Frame):
    """Answer when every worker of this machine knows the key (or, `live` false, knows it no more), or after
    `seconds`.
    """

    kind: Literal["await_key"] = "await_key"
    key_id: str
    live: bool
    seconds: float


class KeyTold(Frame):
    """`everywhere`: it is so at every worker; false: the time was over."""

    kind: Literal["key_told"] = "key_told"
    everywhere: bool


ToLedger = Annotated[WorkerHello | Spooled | Applied | AwaitKey | Alive, Field(discriminator="kind")]
FromLedger = Annotated[Policy | PolicyPart | PolicyChange | KeyTold | Alive, Field(discriminator="kind")]
