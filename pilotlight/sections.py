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
    model_config = ConfigDict(extra="forbid", frozen=True)


class RouterSettings(Section):
    host: str = Field(default="127.0.0.1", description="Address the public HTTPS port listens on.")
    port: int = Field(default=8443, ge=1, le=65535, description="Public HTTPS port.")
    domain: str = Field(
        default="",
        description="Domain whose names are endpoints: https://ENDPOINT.DOMAIN/v1/…; its wildcard must resolve to this machine.",
    )
    names: Names = Field(
        default=(),
        description="Further DNS names and addresses that our own certificate is to be good for, such as the public address of this machine. In "
        "an environment variable they stand between commas.",
    )
    certificate: File = Field(
        default="",
        description="Certificate of your own for the public port, a PEM file with its chain behind it; taken up anew when the file changes. "
        "Empty: one of our local authority. Connections to localhost get that in any case.",
    )
    certificate_key: File = Field(
        default="",
        description="Its private key, a PEM file without a password. Empty: in the same file as the certificate.",
    )
    plain: Plain = Field(
        default="",
        description="Where plain HTTP is served besides, for a proxy on this machine: unix:/PATH, or a loopback address and port. Empty: nowhere.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Addresses and networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, and unix for those that come "
        "by a Unix socket. In an environment variable they stand between commas.",
    )
    admin: Literal["public", "loopback", "off"] = Field(
        default="public",
        description="Who reaches the admin API through the router: public (whoever has an admin key), loopback (connections from this machine "
        "that no proxy brings), off (nobody: the command line goes by a socket in the state folder).",
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
        description="Endpoints with series of their own in /metrics; the rest is told together, as (other).",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes sharing the port.")
    max_body_bytes: int = Field(
        default=8 << 20, ge=1024, description="Largest request body, in bytes; larger ones are answered 413."
    )
    max_connections: int = Field(
        default=8192,
        ge=1,
        description="Client connections of one worker at once, no more than half of its descriptors; beyond it idle ones of the address with most give way.",
    )
    max_connections_per_address: int = Field(
        default=4096,
        ge=1,
        description="Client connections of one worker from one address, or from one IPv6 network of 64 bits; beyond it its own idle ones give way.",
    )
    connections_per_second_per_address: float = Field(
        default=50.0,
        ge=0,
        description="Connections that bring no good key, a second and worker, whose TLS handshake is done for one address (an IPv6 network of 64 bits "
        "counts as one), ten seconds' worth at once; others wait, and are closed after router.handshake_seconds. 0: no limit.",
    )
    refusals_per_second_per_address: float = Field(
        default=20.0,
        ge=0,
        description="Refused requests without a good key that one address (a caller's, where a proxy is trusted) may send a second and worker, ten "
        "seconds' worth at once; beyond them it is answered 429, and cut. Requests with a good key are never counted or limited. 0: no limit.",
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
        description="Bodies of all requests held on this machine, and of all that come in, each, in bytes; over it whose key has most is answered 503.",
    )
    max_unread_bytes: int = Field(
        default=256 << 20,
        ge=1 << 20,
        description="Answers of one worker that wait for clients to read them, in bytes; over it a connection of who has most is cut.",
    )

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if self.certificate_key and not self.certificate:
            raise ValueError("certificate_key is given without certificate: name the certificate's file too")
        return self


class ActivatorSettings(Section):
    tick_seconds: float = Field(
        default=0.25, gt=0, description="How often time-based decisions (idle, backoff) are looked at, in seconds."
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
        description="Where fewer endpoints fit than are called: longest wait of one before another has to give way to it, in seconds.",
    )
    least_stay_seconds: float = Field(
        default=0.0,
        ge=0,
        description="How long a replica stays at least before it gives way to another endpoint's, in seconds; 0: four of its own starts.",
    )
    alone: bool = Field(
        default=False,
        description="Whether this installation has one activator machine, which then leads on from what it keeps on disk while the Postgres in "
        "DATABASE_URL is away, also after a restart. With the embedded Postgres it always does.",
    )
    keep_days: float = Field(
        default=30.0,
        gt=0,
        le=36500,
        description="How long Postgres keeps events, ended replicas, and what engines journalled for settled requests, in days. Revisions "
        "are kept for ever, and a node lets their snapshots go only where the origin has them: any can be rolled back to.",
    )
    audit_days: float = Field(
        default=730.0,
        ge=90,
        le=36500,
        description="How long Postgres keeps what operators did (`pilotlight audit`), in days; each act takes up to 10 KB, mostly less than 1.",
    )
    memory_fraction: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Part of a node's memory that standbys and replicas may have, private pages and KV cache counted.",
    )


class LedgerSettings(Section):
    journal_wait_seconds: float = Field(
        default=3600.0,
        gt=0,
        description="Last resort: how long a usage row waits for the journal of a replica whose node does not answer, in seconds; what "
        "comes later is a correction row.",
    )
    correction_seconds: float = Field(
        default=10.0,
        gt=0,
        description="How often the ledger looks for journals that came after their rows, in seconds.",
    )


class RuntimeSettings(Section):
    standbys: int = Field(default=1, ge=0, le=16, description="Rehearsed engine processes kept ready on this node.")
    kv_cache_bytes: int = Field(
        default=64 << 20,
        ge=1 << 20,
        description="KV cache of a replica on CPU, in bytes, unless its engine arguments say otherwise.",
    )
    threads: int = Field(
        default=0, ge=0, description="Threads a replica computes with on CPU; 0: one a core that we may use."
    )
    max_model_len: int = Field(
        default=0, ge=0, description="Longest context on CPU, in tokens; 0: as the model's config says."
    )
    untested_engine: bool = Field(
        default=False,
        description="Whether an engine version this release was not tested with may be started; what it bills is then yours to check.",
    )
    allow_engine_args: ArgumentNames = Field(
        default=(),
        description="Engine arguments that execute code or open files of the machine and that revisions may set here all the same, by name, "
        "such as chat-template or trust-remote-code; by default none. In an environment variable they stand between commas.",
    )
    silent_seconds: float = Field(
        default=5.0,
        ge=2,
        description="A standby, replica or engine core that says nothing for so long is hung, and replaced, in seconds.",
    )
    hang_seconds: float = Field(
        default=60.0,
        ge=5,
        description="A replica with work and no step of its engine for so long is hung, in seconds: longer than any prefill or graph capture.",
    )
    rehearsal_seconds: float = Field(
        default=300.0,
        ge=10,
        description="A standby that is not rehearsed after so long is hung, and replaced, in seconds.",
    )
    environment: str = Field(
        default="",
        description="Names of further environment variables that our processes and engines get, as LD_PRELOAD or NCCL_DEBUG, separated by "
        "blanks; all others but a short list are kept from them.",
    )
    standby_module: str = Field(
        default="runtime.fork.standby", description="The program that is a standby. Only tests name another."
    )


class SnapshotSettings(Section):
    origin: Store = Field(
        default="",
        description="Store a node fetches from what it does not have: s3://BUCKET/PREFIX (AWS_ENDPOINT_URL names another S3 server), or a folder.",
    )
    max_bytes: int = Field(
        default=0,
        ge=0,
        description="Disk a node's snapshots and baked copies may take together, in bytes; the longest unused go first. 0: the whole disk.",
    )
    model_code: bool = Field(
        default=False,
        description="Whether a model's own Python code may be packed and, where trust-remote-code is given, run, with all that this installation may do.",
    )


class LogSettings(Section):
    max_bytes: int = Field(
        default=16 << 20,
        ge=1 << 16,
        description="Size at which a log file is cut, in bytes, what it held kept beside it as NAME.log.1.",
    )
    old_files: int = Field(default=2, ge=0, le=100, description="How many older ones are kept of each log file.")
    total_bytes: int = Field(
        default=1 << 30,
        ge=1 << 16,
        description="All log files together, in bytes; beyond it the oldest kept ones go, then the largest are cut.",
    )


class DiskSettings(Section):
    floor_bytes: int = Field(
        default=64 << 20,
        ge=0,
        description="Space that must be free besides the reserve, in bytes; below it new calls are answered 503, and what runs may finish.",
    )
    reserve_bytes: int = Field(
        default=64 << 20,
        ge=0,
        description="Space kept for what runs when the disk is full (records, journals, logs), in bytes.",
    )
    postgres_reserve_bytes: int = Field(
        default=32 << 20,
        ge=0,
        description="Space kept for the embedded Postgres to start again on a full disk, in bytes.",
    )
    spool_bytes: int = Field(
        default=4 << 30,
        ge=1 << 20,
        description="Usage records of this machine that wait for Postgres, in bytes; at it new calls are answered 503.",
    )
    journal_bytes: int = Field(
        default=4 << 30,
        ge=1 << 20,
        description="Engines' journals that wait for Postgres, in bytes; at it new calls are answered 503.",
    )
    postgres_bytes: int = Field(
        default=16 << 30,
        ge=64 << 20,
        description="The database, in bytes; above it what need not be kept goes sooner than activator.keep_days says. Bills are never deleted.",
    )
    wal_bytes: int = Field(
        default=256 << 20,
        ge=16 << 20,
        description="The embedded Postgres' log of changes (its max_wal_size), in bytes.",
    )


class WatchSettings(Section):
    silent_seconds: float = Field(
        default=10.0,
        ge=0,
        description="A process of `up` whose event loop has not turned, or a Postgres that has not answered, for so long is killed and started again, in seconds; 0: never.",
    )
