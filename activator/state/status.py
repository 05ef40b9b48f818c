"""What an operator sees: every endpoint, revision, replica and node, as the reconciler sees them now. Pure.

    {"epoch": 3, "routers": 2,
     "endpoints": [{"name", "endpoint_id", "org_id", "created", "removed", "route": [[revision_id, weight]], "next",
     "max_held", "hold_seconds", "finish_seconds", "cors_origins", "paused",
       "revisions": [{"revision_id", "number", "digest", "task", "engine_args", "min_replicas", "max_replicas",
         "idle_timeout_seconds", "slots", "target_concurrency", "weight_bytes", "zero", "allow", "media_hosts",
         "created_by", "outcome", "demand", "reason", "failure", "failures", "deaths", "retry_in_seconds",
         "expected_seconds", "needs_bytes", "waits_for_room", "waits_for", "waits_for_node",
         "bad_rungs": [[node_id, "parked" | "standby"]],
         "replicas": [{"replica_id", "node_id", "state", "rung", "climb", "address", "slots", "in_flight",
           "private_bytes", "kv_cache_bytes", "needs_bytes", "pid", "devices", "age_seconds",
           "phases": [{"name", "at", "seconds"}]}]}]}],
     "nodes": [{"node_id", "connected", "environment": {"engine", "version", "device"}, "memory_bytes", "budget_bytes",
       "committed_bytes", "devices", "standbys_ready", "standby_bytes", "standby_reason"}]}

A revision's `outcome` is "proved", "failed" or, before it was tried, empty; an endpoint's `next` gets the route once it
is ready. `reason` says why a revision should have as many replicas as that. `waits_for` says why a start that is wanted
cannot be made now: for want of a node (`waits_for_node`) or of room. `failure` stays after its pause, until a start
succeeds; `failures` and `deaths` are in a row. `bad_rungs` gave a wrong answer and are passed over for now. A replica's
`rung` is where its last start began, and `climb` how often it has come up from `parked`.

Bytes are of a node's memory: `memory_bytes` all of it, `budget_bytes` what standbys and replicas may have,
`committed_bytes` what they need. A revision's `needs_bytes` is what its last replica needed, 0 for none measured.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from activator.catalogue import Endpoint, Revision
from activator.policy import scaler
from activator.policy.lifecycle import Replica
from activator.policy.scaler import Facts, Load, bounds_of
from activator.state.cluster import ClusterState
from activator.state.nodes import Node
from activator.state.table import start_seconds


def status(state: ClusterState, now: float) -> dict[str, Any]:
    """JSON-able; see the module's docstring for its shape."""
    shown = [each for each in state.catalogue if not each.removed or any(map(state.replicas.has, _ids(each)))]
    return {
        "epoch": state.fence.epoch,
        "routers": state.demand.connected(),
        "endpoints": [_endpoint(endpoint, state, now) for endpoint in sorted(shown, key=lambda e: e.name)],
        "nodes": [_node(node, state.nodes.budget(node)) for node in state.nodes.known.values()],
    }


def _ids(endpoint: Endpoint) -> list[str]:
    return [revision.revision_id for revision in endpoint.revisions]


def _endpoint(endpoint: Endpoint, state: ClusterState, now: float) -> dict[str, Any]:
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
        "revisions": [_revision(endpoint, revision, state, now) for revision in endpoint.revisions],
    }


def _revision(endpoint: Endpoint, revision: Revision, state: ClusterState, now: float) -> dict[str, Any]:
    revision_id = revision.revision_id
    history = state.failures.of(revision_id)
    replicas = list(state.replicas.of(revision_id))
    waits_for = state.waits.reason(revision_id)
    known = {key: value for key, value in asdict(revision).items() if key not in ("endpoint_id", "org_id")}
    return {
        **known,
        "engine_args": dict(revision.engine_args),
        "target_concurrency": revision.concurrency,
        "demand": state.demand.total(revision_id),
        "reason": _reason(endpoint, revision, state, now),
        "failure": history.client_error(now) or history.last or revision.failure,
        "failures": history.failed_starts,
        "deaths": history.deaths,
        "retry_in_seconds": round(max(0.0, history.retry_at - now), 3),
        "expected_seconds": start_seconds(revision, replicas, state.estimates),
        "needs_bytes": state.memory.measured.get(revision_id, 0),
        "waits_for_room": bool(waits_for),
        "waits_for": waits_for,
        "waits_for_node": state.waits.is_for_node(revision_id),
        "bad_rungs": [list(each) for each in state.quarantine.of(revision_id, now)],
        "replicas": [_replica(replica, now) for replica in replicas],
    }


def _reason(endpoint: Endpoint, revision: Revision, state: ClusterState, now: float) -> str:
    """Why it has, or is to have, as many replicas as that: of the last decision, or of one at rest."""
    if target := state.targets.get(revision.revision_id):
        return target.reason
    routed = endpoint.routes_to(revision.revision_id)
    facts = Facts(
        bounds=bounds_of(revision, routed),
        load=Load(requests=0, complete=True),
        live=0,
        now=now,
        routed=routed,
        coming=endpoint.next == revision.revision_id,
        paused=endpoint.paused,
        removed=endpoint.removed,
        closing=state.tenure.is_closing,
    )
    return scaler.decide(facts).reason


def _replica(replica: Replica, now: float) -> dict[str, Any]:
    return {
        "replica_id": replica.replica_id,
        "node_id": replica.node_id,
        "state": replica.state,
        "rung": replica.rung,
        "climb": replica.unparks,
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
