"""The data path: every stage of an inference call, in order, one line a stage. Steps 2 to 5, 11 and 12.

A `Call` is one request from admission to its closed record. Synchronous callbacks all the way: nothing here awaits, and
a warm request makes no task. Whatever happens (an answer, an error, a client that leaves, a bug in a callback), it ends
in `_close`, once: the record is closed, the slot released, the hold left.
"""

from __future__ import annotations

import random
import time
from typing import Protocol

import structlog

from activator.wire import SHARED_CACHE
from router.admission import openai
from router.admission.auth import Keys, Tenant
from router.admission.body_reader import InPlace, Reads
from router.admission.cors import Cors
from router.admission.proxies import Proxies
from router.admission.request import Request, new_event_id
from router.admission.routes import wrong_task
from router.admission.strangers import Strangers
from router.clock import Clock
from router.errors import BadRequest, Draining, Forbidden, ModelNotFound, NotReady, RouterError, UpstreamError, quoted
from router.finish import Finish
from router.hold.budget import Budget
from router.hold.hold import Hold, Mark, Slot
from router.hold.machine import Alone, Machine
from router.hold.replicas import Endpoint, Revision
from router.hold.table import RouteTable
from router.ledger.spool import Spool
from router.metrics import Metrics
from router.relay import engine_words
from router.relay.answer import Answer, Sink
from router.relay.keepalive import WAITING_SECONDS, Waiting, comment
from router.relay.meter import NOTHING, Meter, Tokens, relayed, told, whole
from router.relay.relay import Relay
from runtime.wire import TURN_HEADER, Phase

# of a head
OURS = b"x-request-id: %s\r\nx-pilotlight-start: %s\r\nx-pilotlight-hold-ms: %.1f\r\nopenai-processing-ms: %d\r\n%s"
# where it never waited
WARM = b"x-request-id: %s\r\nx-pilotlight-start: warm\r\nx-pilotlight-hold-ms: 0.0\r\nopenai-processing-ms: %d\r\n"
CUT_OFF = (
    "This answer was cut off: its replica is not wanted any more (its endpoint was removed or deployed anew, needs fewer, or Pilotlight "
    "shuts down), and the time it had to end what it was working on is over. Send the request again."
)

log = structlog.get_logger()


class Upload(Protocol):
    """Whoever has bytes here that are coming in, or going out."""

    def give_way(self) -> None:
        """They are too many: end it."""


class Router:
    """What all calls of a worker share. `max_uploading`: bytes of bodies that come in; `max_unread`: that clients do
    not read.
    """

    def __init__(
        self,
        *,
        keys: Keys,
        table: RouteTable,
        hold: Hold,
        spool: Spool,
        metrics: Metrics,
        clock: Clock,
        waiting_seconds: float = WAITING_SECONDS,
        domain: str = "",
        machine: Machine | None = None,
        cors_origins: tuple[str, ...] = (),
        max_uploading: int = 256 << 20,
        max_unread: int = 256 << 20,
        trusted_proxies: tuple[str, ...] = (),
        refusals_per_second: float = 0.0,
        reader: Reads | None = None,
    ) -> None:
        self.keys, self.table, self.hold, self.spool, self.metrics, self.clock = (
            keys,
            table,
            hold,
            spool,
            metrics,
            clock,
        )
        self.waiting_seconds = waiting_seconds
        self.domain = domain.lower().strip(".")  # `ENDPOINT.DOMAIN` is an endpoint's own host
        self.proxies = Proxies(trusted_proxies)
        self.strangers = Strangers(refusals_per_second, self.proxies, clock)
        self.reader: Reads = reader or InPlace()
        self.cors = Cors(cors_origins, at=self._origins_of)
        self.draining = False
        self._machine: Machine = machine or Alone()
        self.uploads: Budget[Upload] = Budget(
            max_uploading,
            give_way=lambda upload: upload.give_way(),
            workers=self._machine.workers,
            shared=self._machine.uploading,
        )
        self.unread: Budget[Upload] = Budget(max_unread, give_way=lambda connection: connection.give_way())

    @property
    def ready(self) -> bool:
        return self.keys.known and self.table.whole and not self.draining

    def _origins_of(self, name: str) -> tuple[str, ...]:
        """Web pages that may call the endpoint of this name."""
        endpoint = self.table.endpoints.get(name)
        return endpoint.row.cors_origins if endpoint else ()

    def endpoint(self, tenant: Tenant, name: str) -> Endpoint:
        """The endpoint the tenant means, if it may. Another org's is as if there were none."""
        if not self.table.whole:
            raise NotReady("This router has just started and does not know its endpoints yet. Try again in a moment.")
        endpoint = self.table.endpoints.get(name)
        if endpoint is None or endpoint.row.org_id != tenant.org_id:
            raise ModelNotFound(
                f"The model '{quoted(name)}' does not exist. `GET /v1/models` lists what this key can use.",
                param="model",
            )
        if endpoint.row.endpoint_id != tenant.endpoint_id:
            raise Forbidden(f"This key belongs to another endpoint. Use a key of '{name}'.")
        return endpoint


class Call:
    """One inference call: the hold's waiter and the relay's handler."""

    __slots__ = (
        "_answer", "_body", "_choices", "_closed", "_disk_slow", "_event_id", "_held_at", "_meter", "_paused", "_relay", "_request", "_revision",
        "_router", "_slot", "_tenant", "_waiting", "deadline", "entered_at", "held_bytes", "held_in", "sequences", "user",
    )  # fmt: skip

    def __init__(self, router: Router, request: Request, tenant: Tenant, sink: Sink) -> None:
        self._router, self._request, self._tenant, self._choices = router, request, tenant, 1
        self._answer = Answer(sink, router.spool, self._hold_back, request.route.form)
        self._event_id = new_event_id()
        self._meter: Meter | None = None
        self._slot: Slot | None = None
        self._relay: Relay | None = None
        self._waiting: Waiting | None = None
        self._held_at: float | None = None
        self._revision: Revision | None = None  # it came for
        self._closed = self._paused = self._disk_slow = False
        self.held_in: Revision | None = None
        self.held_bytes = 0
        self.entered_at = router.clock.time()
        self.user = tenant.user
        self.deadline = 0.0
        self.sequences = 1
        self._body = b""

    def run(self, asked: openai.Asked | None = None) -> None:
        """Steps 3 to 12, once the body is here. `asked`: what is in it, where that has been read. May be over when it
        returns.
        """
        router, request = self._router, self._request
        try:
            router.keys.check(self._tenant)  # 2, again: uploading takes a while
            asked = asked or openai.read(
                request.body, request.route
            )  # 3: before the endpoint is looked for: `model` may name it
            self._choices, self.sequences = asked.choices, asked.sequences
            name = request.endpoint or asked.model
            if name is None:
                raise BadRequest(
                    "'model' is missing. Name the endpoint in it, or use its URL: /e/ENDPOINT/v1/…", param="model"
                )
            endpoint = router.endpoint(self._tenant, name)
            revision = self._revision = self._route(
                endpoint
            )  # before the hold: what does not fit the task wakes nothing
            if asked.wants.allowances or asked.wants.hosts:
                asked.check_allowed(revision.row.allow, revision.row.media_hosts)
            body = openai.body_for(name, asked, request.body, self._own(revision))
            self._body = request.upstream(self._event_id, body, asked.sequences)
            request.body, self.held_bytes = b"", len(self._body)  # what is held is held once
            self._meter = self._open(endpoint, asked.stream)  # 12: before anything is dispatched, or waits
            slot = router.hold.ask(revision, self)  # 5
        except RouterError as error:
            self._fail(error)
            return
        if slot is not None:
            self.granted(slot)  # 11: the warm path
        else:
            self._begin_waiting()

    # The hold's news

    def granted(self, slot: Slot) -> None:
        """A slot is ours: send the request."""
        self._slot, cold = slot, False
        assert self._meter is not None
        if self._held_at is not None:
            # The clock counts milliseconds: what waited for a replica may have come in the one in which that was first
            # seen.
            cold = slot.replica.seen_at >= self.entered_at
            self._end_waiting()
            try:
                self._router.keys.check(self._tenant)  # 2, once more: its key may have been revoked while it was held
            except RouterError as error:
                self._fail(error)
                return
        self._meter.dispatched(slot.revision.revision_id, slot.replica, cold)
        request = in_turn(self._body, slot.turn) if slot.turn else self._body
        relay = self._relay = Relay(request, slot.replica.pool, self._answer, self, self._request.route.form)
        relay.start()
        if self._paused or self._disk_slow:
            relay.pause()

    def refused(self, error: RouterError) -> None:
        self._end_waiting()
        self._fail(error)

    # The relay's news

    def answering(self) -> bytes:
        meter, self._body = self._meter, b""
        assert meter is not None
        if not meter.held_seconds:
            return WARM % (self._event_id.encode(), meter.age * 1000)
        timing = b"server-timing: %s\r\n" % timings(meter.phases) if meter.cold else b""
        return OURS % (
            self._event_id.encode(),
            b"cold" if meter.cold else b"warm",
            meter.held_seconds * 1000,
            meter.age * 1000,
            timing,
        )

    def first_byte(self) -> None:
        assert self._meter is not None
        self._meter.first_byte()

    def timing(self) -> bytes:
        assert self._meter is not None
        start, held = b"cold" if self._meter.cold else b"warm", self._meter.held_seconds * 1000
        return b": pilotlight start=%s hold-ms=%.1f timing=%s\n" % (start, held, timings(self._meter.phases))

    def turned_away(self, mark: Mark) -> None:
        slot, self._slot, self._relay = self._slot, None, None
        assert slot is not None and self._meter is not None
        self._meter.turned_away()
        self._begin_waiting()  # the first time, maybe: a call of the warm path has not waited before
        slot.back(self, mark)  # last: it may grant or refuse at once

    def refused_there(self, status: int, body: bytes) -> None:
        """The engine's error: it bills nothing, its words go to the log, and the caller is told in ours."""
        error = engine_words.error_of(status, body, request_id=self._event_id)
        words = engine_words.for_operators(body)
        log.warning(
            "the engine did not serve a request",
            action="engine_refused",
            event_id=self._event_id,
            status=status,
            words=words,
        )
        assert self._meter is not None
        self._meter.close(status=self._answer.status or error.status, finish=error.finish, tokens=NOTHING)
        self._fail(error)

    def failed(self, error: RouterError) -> None:
        """The replica broke the answer off. Where that was about to be ended anyway, the caller hears of it."""
        if self._slot is not None and self._relay is not None and self._relay.broken:
            self._slot.broke()
        if self._slot is not None and self._slot.replica.draining and isinstance(error, UpstreamError):
            error = UpstreamError(CUT_OFF)
        self._fail(error)

    def ending(self, status: int, tokens: Tokens | None) -> None:
        broken = tokens is not None and tokens.broken
        finish: Finish = "upstream_error" if status >= 500 or broken else "refused" if status >= 400 else "complete"
        assert self._meter is not None
        self._meter.close(status=status, finish=finish, tokens=tokens or NOTHING)

    def ended(self) -> None:
        self._close()

    # The client's news

    def gone(self) -> None:
        """The client has left: nothing more is done for it, here or at the replica."""
        if self._closed:
            return
        self._end_waiting()
        self._router.hold.leave(self)
        if self._relay is not None:
            self._relay.stop()
        if self._meter is not None:
            self._say_what_it_waited_for()
            whole = self._whole()
            finish: Finish = "client_disconnect" if whole is None else "complete"
            self._meter.close(status=self._answer.status, finish=finish, tokens=whole or self._relayed())
            self._router.spool.flush()
        self._close()

    def drained(self) -> None:
        """The router ends, and this call has had its time."""
        if not self._closed:
            self._end_waiting()
            self._router.hold.leave(self)
            self._fail(Draining("This router is shutting down. Send the request again."))

    def pause(self) -> None:
        self._paused = True
        if self._relay is not None:
            self._relay.pause()

    def resume(self) -> None:
        self._paused = False
        self._go_on()

    # The disk's news

    def _hold_back(self, full: bool) -> None:
        """So much waits for the open record to be durable that no more is read from the replica; or it is durable
        now.
        """
        self._disk_slow = full
        if full and self._relay is not None:
            self._relay.pause()
        elif not full:
            self._go_on()

    def _go_on(self) -> None:
        if self._relay is not None and not self._paused and not self._disk_slow:
            self._relay.resume()

    # Stages

    def _route(self, endpoint: Endpoint) -> Revision:
        revision = endpoint.routed(random.random())
        name, route = endpoint.row.name, self._request.route
        if revision is None:
            raise NotReady(f"'{name}' has no revision to serve it yet. Deploy one, or try again in a moment.")
        if revision.row.task not in route.tasks:
            raise wrong_task(name, revision.row.task, route)
        seconds, wait = (
            endpoint.row.hold_seconds,
            self._request.wait_seconds if b"prefer" in self._request.headers else None,
        )
        self.deadline = self.entered_at + (seconds if wait is None else min(wait, seconds))
        return revision

    def _own(self, revision: Revision) -> bytes:
        """Fields of ours in front of the caller's.

        What one key's prompts leave in the engine's cache, no other key's find. And the engine counts a response under
        the id in its body.
        """
        salt = b"" if SHARED_CACHE in revision.row.allow else self._tenant.salt or self._router.keys.salt(self._tenant)
        return (
            salt + openai.own_field("request_id", f"resp_{self._event_id}")
            if self._request.route.form == "responses"
            else salt
        )

    def _open(self, endpoint: Endpoint, streamed: bool) -> Meter:
        router, path = self._router, self._request.route.path
        meter = Meter(router.spool, router.metrics, self._tenant, endpoint, self._event_id, path, streamed)
        self._answer.open(meter.number)
        return meter

    def _begin_waiting(self) -> None:
        assert self._meter is not None
        self._held_at = time.monotonic()
        if self._waiting is not None:
            self._waiting.start()
        elif self._meter.streamed and self._request.wait_seconds is None:  # `Prefer: wait` never commits early
            router, fields = self._router, ((b"x-request-id", self._event_id.encode()),)
            self._waiting = Waiting(
                clock=router.clock,
                seconds=router.waiting_seconds,
                answer=self._answer,
                fields=fields,
                describe=self._describe,
            )

    def _end_waiting(self) -> None:
        if self._held_at is not None and self._meter is not None:
            self._meter.held_seconds += time.monotonic() - self._held_at
            self._held_at = None
        if self._waiting is not None:
            self._waiting.stop()

    def _describe(self) -> bytes:
        """What a waiting client is told now: which phase of the start it waits for, and how long that may still
        take.
        """
        revision = self.held_in
        if revision is not None and revision.waits_for:
            return comment("place", 0, waits_for=revision.waits_for)
        if revision is None or not (revision.row.starting or revision.row.phase):
            return comment("hold", 0)
        return comment(
            revision.row.phase or "place", revision.remaining(self._router.clock.time()), revision.row.fetched
        )

    def _say_what_it_waited_for(self) -> None:
        """It ends, and no replica has it: its start was cold where it found none that could have taken it."""
        if self._meter is not None and self._relay is None and self._revision is not None:
            found = self._revision.replicas.values()
            warm = any(
                replica.seen_at < self.entered_at and not (replica.draining or replica.dead) for replica in found
            )
            self._meter.undispatched(cold=not warm)

    # The one way out

    def _fail(self, error: RouterError) -> None:
        if self._closed:
            return
        if self._relay is not None:
            self._relay.stop()
        if self._meter is not None:
            self._say_what_it_waited_for()
            self._meter.close(status=self._answer.status or error.status, finish=error.finish, tokens=self._relayed())
        else:
            self._router.metrics.refused(error.status)
        self._answer.fail(error, request_id=self._event_id.encode())
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        slot, self._slot = self._slot, None
        self._relay = self._waiting = None
        self._answer.over()
        if slot is not None:
            slot.release()

    def _whole(self) -> Tokens | None:
        """The engine's counts where a stream has been relayed up to its last word: clients leave there, before its last
        chunk.
        """
        upstream = self._relay.upstream if self._relay is not None else None
        return told(upstream) if upstream is not None and whole(upstream) else None

    def _relayed(self) -> Tokens:
        return relayed(self._relay.upstream, self._choices) if self._relay is not None else NOTHING


def in_turn(request: bytes, turn: bytes) -> bytes:
    """The request, with the name of the turn it comes in."""
    first, _, rest = request.partition(b"\r\n")
    return b"%s\r\n%s: %s\r\n%s" % (first, TURN_HEADER.encode(), turn, rest)


def timings(phases: tuple[Phase, ...]) -> bytes:
    """The phases as Server-Timing has them, in milliseconds."""
    return ", ".join(f"{phase.name};dur={phase.seconds * 1000:.1f}" for phase in phases).encode()
