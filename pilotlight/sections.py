"""The sections of the settings, one for each process or matter: every setting, typed, with its unit in its name.

A setting is one field here, with its bounds and one sentence of help. The environment, the file, `config explain` and
the reference are made of these fields (`settings.py` reads them). The failure to survive is a value that no process
could work with: the bounds refuse it before anything starts.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pilotlight.networks import Networks, Plain
from pilotlight.origins import Origins
from pilotlight.setting_kinds import ArgumentNames, File, Names, Store


class Section(BaseModel):
    """A group of settings. Values do not change; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RouterSettings(Section):
    """Of the public port and the admin API."""

    host: str = Field(default="127.0.0.1", description="Address the public HTTPS port listens on.")
    port: int = Field(default=8443, ge=1, le=65535, description="Public HTTPS port.")
    domain: str = Field(
        default="",
        description="Domain whose names are endpoints: https://ENDPOINT.DOMAIN/v1/…; its wildcard must resolve to this machine.",
    )
    names: Names = Field(
        default=(),
        description="Further DNS names and addresses for our own certificate, such as the public address of this machine. In an environment variable "
        "they stand between commas.",
    )
    certificate: File = Field(
        default="",
        description="Certificate of your own for the public port, a PEM file with its chain behind it. It is read again when the file changes. Empty:"
        " one of our local authority, which connections to localhost get in any case.",
    )
    certificate_key: File = Field(
        default="",
        description="Its private key, a PEM file without a password. Empty: in the same file as the certificate.",
    )
    plain: Plain = Field(
        default="",
        description="Where plain HTTP is also served, for a proxy on this machine: unix:/PATH, or a loopback address and port. Empty: nowhere.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Addresses and networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; unix for those that come by a Unix "
        "socket. In an environment variable they stand between commas.",
    )
    admin: Literal["public", "loopback", "off"] = Field(
        default="public",
        description="Who reaches the admin API through the router. public: whoever has an admin key. loopback: connections from this machine that no "
        "proxy brings. off: nobody; the command line uses a socket in the state folder.",
    )
    metrics_port: int = Field(
        default=9464,
        ge=1,
        le=65535,
        description="Private port of /metrics, loopback only; worker n serves on it plus n.",
    )
    metrics_endpoints: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Endpoints with their own series in /metrics; all others count together, as (other).",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes sharing the port.")
    max_body_bytes: int = Field(
        default=8 << 20, ge=1024, description="Largest request body, in bytes; larger ones are answered 413."
    )
    max_connections: int = Field(
        default=8192,
        ge=1,
        description="Client connections of one worker at once, at most half of its descriptors. Above it, idle ones of the address with most are "
        "closed.",
    )
    max_connections_per_address: int = Field(
        default=4096,
        ge=1,
        description="Client connections of one worker from one address, or from one IPv6 network of 64 bits. Above it, its own idle ones are closed.",
    )
    connections_per_second_per_address: float = Field(
        default=50.0,
        ge=0,
        description="Rate a second and worker of TLS handshakes for one address, of connections that bring no good key; ten seconds' worth at once. "
        "An IPv6 network of 64 bits counts as one address. Others wait, and are closed after router.handshake_seconds. 0: no limit.",
    )
    refusals_per_second_per_address: float = Field(
        default=20.0,
        ge=0,
        description="Rate a second and worker of refused requests without a good key from one address; ten seconds' worth at once. Where a proxy is "
        "trusted, the address is the caller's. Above it, requests are answered 429 and the connection is closed. Requests with a good key"
        " are never counted or limited. 0: no limit.",
    )
    handshake_seconds: float = Field(
        default=10.0, gt=0, description="Longest time a client may take for TLS' handshake, in seconds."
    )
    header_seconds: float = Field(
        default=10.0,
        gt=0,
        description="Longest time a client may take for the head of a request, and for each 64 KiB of its body, in seconds.",
    )
    upload_seconds: float = Field(
        default=120.0, gt=0, description="Longest time a client may take for a whole request, in seconds."
    )
    unread_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How long an answer waits for a client that does not read it, before it is cut, in seconds.",
    )
    keep_alive_seconds: float = Field(
        default=75.0, gt=0, description="How long an idle client connection is kept, in seconds."
    )
    drain_seconds: float = Field(
        default=30.0, ge=0, description="After SIGTERM, how long running answers may go on, in seconds."
    )
    cors_origins: Origins = Field(
        default=(),
        description="Origins of web pages that may call every endpoint from a browser, such as https://app.example.org, or *; by default none. "
        "In an environment variable they stand between commas. An endpoint's own are its `cors_origins`.",
    )
    max_held_bytes: int = Field(
        default=256 << 20,
        ge=1 << 20,
        description="Bodies of all requests held on this machine, in bytes; as much again for bodies that come in. Above it, the key with most is "
        "answered 503.",
    )
    max_unread_bytes: int = Field(
        default=256 << 20,
        ge=1 << 20,
        description="Answers of one worker that wait for clients to read them, in bytes. Above it, a connection of the caller with most is cut.",
    )

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if self.certificate_key and not self.certificate:
            raise ValueError("certificate_key is given without certificate: name the certificate's file too")
        return self


class ActivatorSettings(Section):
    """Of scaling, and of what Postgres keeps."""

    tick_seconds: float = Field(
        default=0.25, gt=0, description="How often decisions that depend on time (idle, backoff) are made, in seconds."
    )
    silent_router_seconds: float = Field(
        default=30.0, gt=0, description="How long the last demand of a silent router still counts, in seconds."
    )
    settle_seconds: float = Field(
        default=10.0,
        ge=0,
        description="After a start, no scale-down before this many seconds or the known routers' reports.",
    )
    start_deadline_seconds: float = Field(
        default=300.0, gt=0, description="A replica not ready after this many seconds is given up."
    )
    drain_seconds: float = Field(
        default=30.0, ge=0, description="How long a draining replica may finish what it runs, in seconds."
    )
    backoff_seconds: float = Field(
        default=0.5,
        gt=0,
        description="First pause after a failed start, in seconds; doubles up to backoff_max_seconds.",
    )
    backoff_max_seconds: float = Field(
        default=30.0, gt=0, description="Longest pause after repeated failed starts, in seconds."
    )
    turn_seconds: float = Field(
        default=10.0,
        ge=0,
        description="Where fewer endpoints fit than are called: longest wait of one before another has to make room for it, in seconds.",
    )
    least_stay_seconds: float = Field(
        default=0.0,
        ge=0,
        description="How long a replica stays at least before it makes room for another endpoint's, in seconds; 0: four of its own starts.",
    )
    alone: bool = Field(
        default=False,
        description="Whether this installation has one activator machine. It then goes on leading from what it keeps on disk while the Postgres in "
        "DATABASE_URL is away, also after a restart. With the embedded Postgres it always does.",
    )
    keep_days: float = Field(
        default=30.0,
        gt=0,
        le=36500,
        description="How long Postgres keeps events, ended replicas, and engines' journals of settled requests, in days. Revisions are kept for ever,"
        " and a node removes their snapshots only where the origin has them: a rollback to any stays possible.",
    )
    audit_days: float = Field(
        default=730.0,
        ge=90,
        le=36500,
        description="How long Postgres keeps what operators did (`pilotlight audit`), in days. An act takes up to 10 KB, mostly less than 1.",
    )
    memory_fraction: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Part of a node's memory that standbys and replicas may have, private pages and KV cache counted.",
    )


class LedgerSettings(Section):
    """Of settling usage."""

    journal_wait_seconds: float = Field(
        default=3600.0,
        gt=0,
        description="Longest wait of a usage row for the journal of a replica whose node does not answer, in seconds. What comes later is a "
        "correction row.",
    )
    correction_seconds: float = Field(
        default=10.0,
        gt=0,
        description="How often the ledger looks for journals that came after their rows, in seconds.",
    )


class RuntimeSettings(Section):
    """Of a node: its standbys and its replicas."""

    standbys: int = Field(default=1, ge=0, le=16, description="Rehearsed engine processes kept ready on this node.")
    kv_cache_bytes: int = Field(
        default=64 << 20,
        ge=1 << 20,
        description="KV cache of a replica on CPU, in bytes, unless its engine arguments say otherwise.",
    )
    threads: int = Field(default=0, ge=0, description="Threads of a replica on CPU; 0: one a core that we may use.")
    max_model_len: int = Field(
        default=0, ge=0, description="Longest context on CPU, in tokens; 0: as the model's config says."
    )
    untested_engine: bool = Field(
        default=False,
        description="Whether an engine version that this release was not tested with may be started. Its usage counts are then yours to check.",
    )
    allow_engine_args: ArgumentNames = Field(
        default=(),
        description="Names of engine arguments that revisions may set although they execute code or open files of the machine, such as chat-template "
        "or trust-remote-code. By default none. In an environment variable they stand between commas.",
    )
    silent_seconds: float = Field(
        default=5.0,
        ge=2,
        description="A standby, replica or engine core that says nothing for this long counts as hung and is replaced, in seconds.",
    )
    hang_seconds: float = Field(
        default=60.0,
        ge=5,
        description="A replica with work, but without a step of its engine for this long, counts as hung, in seconds. Longer than any prefill or "
        "graph capture.",
    )
    rehearsal_seconds: float = Field(
        default=300.0,
        ge=10,
        description="A standby that is not rehearsed after this long counts as hung and is replaced, in seconds.",
    )
    environment: str = Field(
        default="",
        description="Names of further environment variables for our processes and engines, such as LD_PRELOAD or NCCL_DEBUG, separated by blanks. "
        "Without it they get only those of a short list.",
    )
    standby_module: str = Field(
        default="runtime.fork.standby", description="The program that is a standby. Only tests name another."
    )


class SnapshotSettings(Section):
    """Of where snapshots come from and what they may take."""

    origin: Store = Field(
        default="",
        description="Store from which a node fetches snapshots that it does not have: s3://BUCKET/PREFIX (AWS_ENDPOINT_URL names another S3 server), "
        "or a folder.",
    )
    max_bytes: int = Field(
        default=0,
        ge=0,
        description="Disk that a node's snapshots and baked copies may take together, in bytes; the longest unused are removed first. 0: the whole "
        "disk.",
    )
    model_code: bool = Field(
        default=False,
        description="Whether a model's own Python code may be packed. Where trust-remote-code is given it then runs, with all rights of this "
        "installation.",
    )


class LogSettings(Section):
    """Of log files and their sizes."""

    max_bytes: int = Field(
        default=16 << 20,
        ge=1 << 16,
        description="Size at which a log file is cut, in bytes; its content is kept beside it as NAME.log.1.",
    )
    old_files: int = Field(default=2, ge=0, le=100, description="How many older files are kept of each log.")
    total_bytes: int = Field(
        default=1 << 30,
        ge=1 << 16,
        description="All log files together, in bytes. Above it the oldest kept ones are removed, then the largest are cut.",
    )


class DiskSettings(Section):
    """Of the disk: bounds, the floor for new calls, the reserve."""

    floor_bytes: int = Field(
        default=64 << 20,
        ge=0,
        description="Space that must be free besides the reserve, in bytes. Below it new calls are answered 503, and running ones may finish.",
    )
    reserve_bytes: int = Field(
        default=64 << 20,
        ge=0,
        description="Space kept for running calls when the disk is full (records, journals, logs), in bytes.",
    )
    postgres_reserve_bytes: int = Field(
        default=32 << 20,
        ge=0,
        description="Space kept for the embedded Postgres to start again on a full disk, in bytes.",
    )
    spool_bytes: int = Field(
        default=4 << 30,
        ge=1 << 20,
        description="Usage records of this machine that wait for Postgres, in bytes. At this size new calls are answered 503.",
    )
    journal_bytes: int = Field(
        default=4 << 30,
        ge=1 << 20,
        description="Engines' journals that wait for Postgres, in bytes. At this size new calls are answered 503.",
    )
    postgres_bytes: int = Field(
        default=16 << 30,
        ge=64 << 20,
        description="The database, in bytes. Above it, rows that need not be kept are deleted sooner than activator.keep_days says. Usage rows are "
        "never deleted.",
    )
    wal_bytes: int = Field(
        default=256 << 20,
        ge=16 << 20,
        description="The embedded Postgres' log of changes (its max_wal_size), in bytes.",
    )


class WatchSettings(Section):
    """Of processes that stand still."""

    silent_seconds: float = Field(
        default=10.0,
        ge=0,
        description="A process of `up` whose event loop stands still for this long, or a silent Postgres, is killed and started again, "
        "in seconds. 0: never.",
    )
