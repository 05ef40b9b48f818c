"""One request's usage record: opened before anything is dispatched, closed exactly once, however it ended. Step 12.

The engine's own counts come in band: a header on JSON answers, a comment in the last event of streams. Without them
(the client left, the replica died) the events relayed are counted. That is an estimate, which the ledger replaces by
the engine's journal. A whole answer whose tokens nobody counted is an error, told in the log and in a metric of its
own. It never counts as 0 tokens of the engine's. Lines are written by hand, being on the path of every request; a test
holds them to the contract.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quoted
from typing import Literal

import structlog

from pilotlight.sealed import sealed
from router.admission.auth import Tenant
from router.finish import Finish
from router.hold.pool import Upstream
from router.hold.replicas import Endpoint, Replica
from router.metrics import Metrics
from router.spool.record import NO_TOKENS, Tokens
from router.spool.spool import Spool
from runtime.forms import DONE, TOKEN
from runtime.wire import Phase

_COUNTS = rb"(?:none|(\d{1,18});(\d{1,18});(\d{1,18}))"
_COMMENT = re.compile(rb"(?:^|\n): pilotlight-usage " + _COUNTS + rb"(?: (broken)\n\n?|\n\n|\n\n?data: \[DONE\]\n\n)$")
_HEADER = re.compile(_COUNTS)

log = structlog.get_logger()


def waited_for(start: tuple[Phase, ...], admitted: float, dispatched: float) -> tuple[Phase, ...]:
    """What a request waited for, in phases that add up: those of the replica's start as far as the request was there,
    and as `hold` the rest, until it was dispatched. All times in seconds on the host's monotonic clock."""
    shared = []
    for phase in start:
        begin = max(phase.at, admitted)
        if (seconds := min(phase.at + phase.seconds, dispatched) - begin) > 0:
            shared.append(phase.model_copy(update={"at": begin, "seconds": seconds}))
    rest = dispatched - admitted - sum(phase.seconds for phase in shared)
    return (Phase(name="hold", at=admitted, seconds=max(rest, 0.0)), *shared)


def reported_tokens(upstream: Upstream) -> Tokens | None:
    """The engine's counts in a complete answer; NO_TOKENS where its replica says that nobody counted it."""
    match = _HEADER.fullmatch(upstream.usage) if upstream.usage else _COMMENT.search(upstream.tail)
    if match is None:
        return None
    if match[1] is None:
        return NO_TOKENS
    prompt, cached, output, *broken = match.groups()
    return Tokens(int(prompt), int(cached), int(output), "engine", bool(broken and broken[0]))


def has_last_event(upstream: Upstream) -> bool:
    """Whether the last event of a stream is here; only its last chunk may be missing."""
    if upstream.token == TOKEN["openai"]:
        return upstream.tail.endswith(DONE)
    found = _COMMENT.search(upstream.tail)
    return found is not None and found[4] is None


def estimated_tokens(upstream: Upstream | None, choices: int = 1) -> Tokens:
    """What has passed by: one token an event, but for the first of each of a chat's choices, which only names the
    role.
    """
    if upstream is None or not upstream.heard:
        return NO_TOKENS
    named = choices if upstream.token == TOKEN["openai"] else 0
    return Tokens(output=max(upstream.events - named, 0), source="relayed")


class Meter:
    """`close` is for the owner's one way out; a second call does nothing."""

    __slots__ = (
        "_closed", "_dispatched", "_endpoint", "_first_byte", "_metrics", "_monotonic", "_opened", "_spool",
        "cold", "event_id", "held_seconds", "number", "phases", "replica_id", "revision_id", "rung", "streamed",
    )  # fmt: skip

    def __init__(
        self,
        spool: Spool,
        metrics: Metrics,
        tenant: Tenant,
        endpoint: Endpoint,
        event_id: str,
        path: str,
        streamed: bool,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Writes the open record. Raises SpoolFull; then there is nothing to close."""
        self._spool = spool
        self._metrics = metrics
        self._endpoint = endpoint.row.name
        self._monotonic = monotonic
        self.event_id = event_id
        self.revision_id = ""
        self.replica_id = ""
        self.rung = ""
        self.held_seconds = 0.0
        self.cold = self._closed = False
        self.phases: tuple[Phase, ...] = ()
        self._first_byte: float | None = None
        self.streamed = streamed
        self._dispatched = 0.0
        self._opened = monotonic()
        self.number = spool.open(
            sealed(
                f'{{"kind":"open","event_id":"{event_id}",{tenant.spooled},"endpoint_id":{quoted(endpoint.row.endpoint_id)},'
                f'"path":"{path}","streamed":{"true" if streamed else "false"},"admitted_at":{wall():.6f}'.encode()
            )
        )

    def dispatched(self, revision_id: str, replica: Replica, cold: bool) -> None:
        """It goes to this replica; `cold`: the request waited for its start."""
        self.revision_id = revision_id
        self.replica_id = replica.row.replica_id
        self.cold = cold
        self._dispatched = self._monotonic()
        if cold:
            self.rung = replica.row.rung or ""
            self.phases = waited_for(replica.row.phases, self._opened, self._dispatched)

    def undispatched(self, *, cold: bool) -> None:
        """It ends without having been at a replica that took it; `cold`: there was none when it came."""
        self.cold, self.rung = cold, ""
        self.phases = waited_for((), self._opened, self._monotonic()) if cold else ()

    def undelivered(self) -> None:
        """The replica never had it: nothing was made there, and no journal will name it."""
        self.revision_id = self.replica_id = ""

    @property
    def age(self) -> float:
        """Seconds since admission."""
        return self._monotonic() - self._opened

    def first_byte(self) -> None:
        """The first byte of the body is here: of a stream, the first token."""
        now = self._monotonic()
        self._first_byte = now - self._opened
        if self.cold:
            self.phases += (Phase(name="first_token", at=self._dispatched, seconds=now - self._dispatched),)

    def close(self, *, status: int, finish: Finish, tokens: Tokens = NO_TOKENS) -> None:
        """Write the end record. Before the last byte of the answer."""
        if self._closed:
            return
        self._closed = True
        if finish == "complete" and tokens.source != "engine":
            tokens = NO_TOKENS
            self._metrics.uncounted(self._endpoint)
            log.error(
                "an answer that nobody counted",
                action="usage_uncounted",
                event_id=self.event_id,
                replica_id=self.replica_id,
            )
        total = self._monotonic() - self._opened
        start: Literal["warm", "cold"] = "cold" if self.cold else "warm"
        first = "null" if self._first_byte is None else "%.3f" % (self._first_byte * 1000)
        held = "%.3f" % (self.held_seconds * 1000) if self.held_seconds else "0.0"
        phases = ",".join([phase.model_dump_json() for phase in self.phases]) if self.phases else ""
        self._spool.end(
            sealed(
                (
                    f'{{"kind":"end","event_id":"{self.event_id}","revision_id":{quoted(self.revision_id)},'
                    f'"replica_id":{quoted(self.replica_id)},"status":{status},"finish":"{finish}","start":"{start}","hold_ms":{held},'
                    f'"first_byte_ms":{first},"total_ms":{"%.3f" % (total * 1000)},"phases":[{phases}],"input_tokens":{tokens.input},'
                    f'"cached_tokens":{tokens.cached},"output_tokens":{tokens.output},"count_source":"{tokens.source}"'
                ).encode()
            )
        )
        self._metrics.ended(
            self._endpoint,
            status=status,
            start=start,
            rung=self.rung,
            held=self.held_seconds,
            first_token=self._first_byte if self.streamed else None,
            total=total,
            phases=self.phases,
            tokens=tokens,
        )
