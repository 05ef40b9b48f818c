"""What an operator sees: every endpoint, revision, replica and node, as the reconciler sees them now. Pure.

{"epoch": 3, "routers": 2,
     "endpoints": [{"name", "endpoint_id", "org_id", "created", "removed", "route": [[revision_id, weight]], "next",
     "max_held", "hold_seconds", "finish_seconds", "cors_origins", "paused",
       "revisions": [{"revision_id", "number", "digest", "task", "engine_args", "min_replicas", "max_replicas",
         "idle_timeout_seconds", "slots", "target_concurrency", "weight_bytes", "zero", "allow", "media_hosts",
         "created_by", "outcome", "demand", "failure", "failures", "deaths", "retry_in_seconds", "expected_seconds",
         "needs_bytes", "waits_for_room", "waits_for", "bad_rungs": [[node_id, "parked" | "standby"]], "replicas":
         [{"replica_id", "node_id", "state", "rung", "climb", "address", "slots", "in_flight", "private_bytes",
         "kv_cache_bytes",
           "needs_bytes", "pid", "devices", "age_seconds", "phases": [{"name", "at", "seconds"}]}]}]}],
     "nodes": [{"node_id", "connected", "environment": {"engine", "version", "device"}, "memory_bytes", "budget_bytes",
       "committed_bytes", "devices", "standbys_ready", "standby_bytes", "standby_reason"}]}

`next` is the revision that gets the route once it is ready; a revision's `outcome` is "proved", "failed" or, before it
was tried, empty. A replica's `rung` is where its last climb began, and `climb` how often it has come up from `parked`.
`bad_rungs` gave a wrong answer and are passed over for now. `failure` stays after its pause, until a start succeeds;
`failures` and `deaths` are in a row; `waits_for` says why a start that is wanted cannot be made now. Bytes are of a
node's memory: `memory_bytes` all of it, `budget_bytes` what standbys and replicas may have, `committed_bytes` what they
need; a revision's `needs_bytes` is what its last replica needed, 0 for none measured.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from activator.catalogue import Catalogue, Endpoint, Revision
from activator.fleet import Fleet
from activator.policy.failures import Trouble
from activator.policy.lifecycle import Replica
from activator.state.demand import DemandBook
from activator.state.nodes import Node
from activator.state.table import start_seconds


def status(catalogue: Catalogue, book: DemandBook, fleet: Fleet, *, epoch: int, now: float) -> dict[str, Any]:
    """JSON-able; see the module's docstring for its shape."""
    endpoints = [endpoint for endpoint in catalogue if not endpoint.removed or any(map(fleet.has, _ids(endpoint)))]
    return {
        "epoch": epoch,
        "routers": book.connected(),
        "endpoints": [_endpoint(endpoint, book, fleet, now) for endpoint in sorted(endpoints, key=lambda e: e.name)],
        "nodes": [_node(node, fleet.nodes.budget(node)) for node in fleet.nodes.known.values()],
    }


def _ids(endpoint: Endpoint) -> list[str]:
    return [revision.revision_id for revision in endpoint.revisions]


def _endpoint(endpoint: Endpoint, book: DemandBook, fleet: Fleet, now: float) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "endpoint_id": endpoint.endpoint_id,
        "org_id": endpoint.org_id,
        "created": endpoint.created,
        "removed": endpoint.removed,
        "route": [list(part) for part in endpoint.route],
        "next": endpoint.next,
        "max_held": endpoint.max_held,
        "hold_seconds": endpoint.hold_seconds,
        "finish_seconds": endpoint.finish_seconds,
        "cors_origins": list(endpoint.cors_origins),
        "paused": endpoint.paused,
        "revisions": [_revision(revision, book, fleet, now) for revision in endpoint.revisions],
    }


def _revision(revision: Revision, book: DemandBook, fleet: Fleet, now: float) -> dict[str, Any]:
    trouble = fleet.troubles.get(revision.revision_id, Trouble())
    return {
        **{
            key: value for key, value in asdict(revision).items() if key not in ("endpoint_id", "org_id", "engine_args")
        },
        "engine_args": dict(revision.engine_args),
        "target_concurrency": revision.concurrency,
        "demand": book.total(revision.revision_id),
        "failure": trouble.shown(now) or trouble.last or revision.failure,
        "failures": trouble.failures,
        "deaths": trouble.deaths,
        "retry_in_seconds": round(max(0.0, trouble.retry_at - now), 3),
        "expected_seconds": start_seconds(revision, fleet.of(revision.revision_id), fleet.expected),
        "needs_bytes": fleet.memory.measured.get(revision.revision_id, 0),
        "waits_for_room": bool(fleet.waits.reason(revision.revision_id)),
        "waits_for": fleet.waits.reason(revision.revision_id),
        "bad_rungs": [list(each) for each in fleet.rungs.bad(revision.revision_id, now)],
        "replicas": [_replica(replica, now) for replica in fleet.of(revision.revision_id)],
    }


def _replica(replica: Replica, now: float) -> dict[str, Any]:
    return {
        "replica_id": replica.replica_id,
        "node_id": replica.node_id,
        "state": replica.state,
        "rung": replica.rung,
        "climb": replica.climb,
        "address": replica.address,
        "slots": replica.slots,
        "in_flight": replica.in_flight,
        "private_bytes": replica.private_bytes,
        "kv_cache_bytes": replica.kv_cache_bytes,
        "needs_bytes": replica.needs_bytes,
        "pid": replica.pid,
        "devices": list(replica.devices),
        "age_seconds": round(now - replica.started_at, 3),
        "phases": [phase.model_dump() for phase in replica.place + replica.phases],
    }


def _node(node: Node, budget_bytes: int) -> dict[str, Any]:
    return {
        "node_id": node.node_id,
        "connected": node.connection is not None,
        "environment": node.environment.model_dump(),
        "memory_bytes": node.memory_bytes,
        "budget_bytes": budget_bytes,
        "committed_bytes": node.committed_bytes,
        "devices": list(node.devices),
        "standbys_ready": node.standbys_ready,
        "standby_bytes": node.standby_bytes,
        "standby_reason": node.standby_reason,
    }
