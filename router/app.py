"""The data path: every stage of an inference call, in order, one line a stage. Steps 2 to 5, 11 and 12.

`open_call` takes a request whose body is here as far as its open record. What is refused until then is raised, and
leaves no record. From then on it is a `Call`, which ends in `_close`, once, whatever happens. That may be an answer, an
error, a client that leaves, or a bug in a callback. Nothing here awaits, and a warm request makes no task.

    open_call ─→ asked ──granted──→ sent ──response_headers──→ answering ──complete──→ closed
                   │                │  ↑                           │
            no slot is free  undelivered granted                   │
                   │                ↓  │                           │
                   └─────────────→ held                            │
                                    │                              │
          refused (by the hold) ────┴──── failed, engine_refused ──┴── gone, drained (from any state) ─→ closed

Five words name what ends, each one thing. The relay says `complete` when an answer is whole. An answer and its sink
`finish` when all is written. The record and then the call `close`. A slot is `release`d. A connection's `turn_over`
begins its next request.
"""

from __future__ import annotations

import time

import structlog

from activator.wire import SHARED_CACHE
from router.admission import openai
from router.admission.auth import Tenant
from router.admission.openai import Asked
from router.admission.request import Request, new_event_id
from router.admission.routes import Route, wrong_task
from router.errors import BadRequest, Draining, NotReady, RouterError, UpstreamError
from router.finish import Finish
from router.hold.replicas import Endpoint, Revision
from router.hold.slot import Mark, Slot
from router.relay import engine_words, our_headers
from router.relay.answer import Answer, Sink
from router.relay.keepalive import Keepalive, comment
from router.relay.meter import Meter, estimated_tokens, has_last_event, reported_tokens
from router.relay.relay import Relay
from router.shared import Router
from router.spool.record import NO_TOKENS, Tokens
from runtime.wire import TURN_HEADER

CUT_OFF = (
    "This answer was cut off: its replica is ending, and its time to finish is over. The endpoint was removed, deployed anew or scaled "
    "down, or Pilotlight shuts down. Send the request again."
)

log = structlog.get_logger()


def open_call(router: Router, request: Request, tenant: Tenant, sink: Sink, asked: Asked | None = None) -> Call:
    """Steps 2 to 4, and the open record. `asked`: what the body asks for, where it has been read before.

    Raises RouterError: then nothing was woken, and there is no record.
    """
    router.keys.check(tenant)  # 2, again: uploading takes a while
    if asked is None:
        # 3: before the endpoint is looked for, for `model` may name it
        asked = openai.read(request.body, request.route)
    name = request.endpoint or asked.model
    if name is None:
        raise BadRequest("'model' is missing. Name the endpoint in it, or use its URL: /e/ENDPOINT/v1/…", param="model")
    endpoint = router.endpoint(tenant, name)
    revision = route_to(endpoint, request.route, router.chance())  # 4: what does not fit the task wakes nothing
    if asked.wants.allowances or asked.wants.hosts:
        asked.check_allowed(revision.row.allow, revision.row.media_hosts)
    event_id = new_event_id()
    body = openai.body_for(name, asked, request.body, _own_fields(router, request.route, tenant, revision, event_id))
    upstream = request.upstream(event_id, body, asked.sequences)
    request.body = b""  # what is held is held once
    path = request.route.path
    meter = Meter(router.spool, router.metrics, tenant, endpoint, event_id, path, asked.stream)  # 12: before the hold
    return Call(router, request, tenant, asked, revision, upstream, meter, sink)


def route_to(endpoint: Endpoint, route: Route, roll: float) -> Revision:
    """The revision that is to serve a call of this route; `roll` in [0, 1). Raises NotReady, BadRequest."""
    revision = endpoint.routed(roll)
    if revision is None:
        raise NotReady(f"'{endpoint.row.name}' has no revision to serve it yet. Deploy one, or try again in a moment.")
    if revision.row.task not in route.tasks:
        raise wrong_task(endpoint.row.name, revision.row.task, route)
    return revision


def _own_fields(router: Router, route: Route, tenant: Tenant, revision: Revision, event_id: str) -> bytes:
    """Fields of ours in front of the caller's.

    What one key's prompts leave in the engine's cache, no other key's find. And the engine counts a response under the
    id in its body.
    """
    salt = b"" if SHARED_CACHE in revision.row.allow else tenant.salt or router.keys.salt(tenant)
    return salt + openai.own_field("request_id", f"resp_{event_id}") if route.form == "responses" else salt


class Call:
    """One inference call, from its open record to its end: the hold's waiter and the relay's handler.

    Its connection calls `start`, and then `pause`, `resume`, `gone` and `drained`, whenever the client gives reason to.
    """

    __slots__ = (
        "_answer", "_body", "_choices", "_closed", "_disk_slow", "_held_since", "_keepalive", "_meter", "_paused", "_relay", "_request",
        "_revision", "_router", "_shaped_by", "_slot", "_tenant", "deadline", "entered_at", "held_bytes", "held_in", "sequences", "user",
    )  # fmt: skip

    def __init__(
        self,
        router: Router,
        request: Request,
        tenant: Tenant,
        asked: Asked,
        revision: Revision,
        body: bytes,
        meter: Meter,
        sink: Sink,
    ) -> None:
        self._router = router
        self._request = request
        self._tenant = tenant
        self._revision = revision  # the one it came for
        self._body = body  # the request as the replica is to have it, until it answers
        self._meter = meter
        self._answer = Answer(sink, router.spool, self._hold_back, request.route.form, meter.number)
        self._choices = asked.choices
        self._shaped_by = asked.wants.shaped_by
        self._slot: Slot | None = None
        self._relay: Relay | None = None
        self._keepalive: Keepalive | None = None
        self._held_since: float | None = None
        self._closed = False
        self._paused = False
        self._disk_slow = False
        self.held_in: Revision | None = None
        self.held_bytes = len(body)
        self.sequences = asked.sequences
        self.user = tenant.user
        now = self.entered_at = router.clock.time()
        self.deadline = now + request.most_held(revision.endpoint.row.hold_seconds)

    def start(self) -> None:
        """Steps 5 and 11. It may be over when this returns."""
        try:
            slot = self._router.hold.ask(self._revision, self)  # 5
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
        self._slot = slot
        cold = False
        if self._held_since is not None:
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
        """The wait is over without a slot."""
        self._end_waiting()
        self._fail(error)

    # The relay's news

    def response_headers(self) -> bytes:
        self._body = b""
        return our_headers.lines(self._meter)

    def first_byte(self) -> None:
        self._meter.first_byte()

    def timing_comment(self) -> bytes:
        return our_headers.comment(self._meter)

    def undelivered(self, mark: Mark) -> None:
        """The replica never had it: back to the hold."""
        slot, self._slot, self._relay = self._slot, None, None
        assert slot is not None
        self._meter.undelivered()
        self._begin_waiting()  # the first time, maybe: a call of the warm path has not waited before
        slot.give_back(self, mark)  # last: it may grant or refuse at once

    def engine_refused(self, status: int, body: bytes) -> None:
        """The engine's error: it bills nothing, its words go to the log, and the caller is told in ours."""
        event_id = self._meter.event_id
        error = engine_words.error_of(status, body, request_id=event_id, shaped_by=self._shaped_by)
        words = engine_words.for_operators(body)
        log.warning(
            "the engine did not serve a request",
            action="engine_refused",
            event_id=event_id,
            status=status,
            words=words,
        )
        self._meter.close(status=self._answer.status or error.status, finish=error.finish, tokens=NO_TOKENS)
        self._fail(error)

    def failed(self, error: RouterError) -> None:
        """The replica broke the answer off. Where that was about to be ended anyway, the caller hears of it."""
        if self._slot is not None and self._relay is not None and self._relay.broken:
            self._slot.broke()
        if self._slot is not None and self._slot.replica.draining and isinstance(error, UpstreamError):
            error = UpstreamError(CUT_OFF)
        self._fail(error)

    def complete(self, status: int, tokens: Tokens | None, last: bytes) -> None:
        """The answer is whole but for its last bytes. Its record is closed before they are written."""
        broken = tokens is not None and tokens.broken
        finish: Finish = "upstream_error" if status >= 500 or broken else "refused" if status >= 400 else "complete"
        self._meter.close(status=status, finish=finish, tokens=tokens or NO_TOKENS)
        self._answer.write(last)
        self._answer.finish()
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
        self._note_what_it_waited_for()
        counted = self._counted_to_the_end()
        finish: Finish = "client_disconnect" if counted is None else "complete"
        self._meter.close(status=self._answer.status, finish=finish, tokens=counted or self._estimated())
        self._router.spool.flush()
        self._close()

    def drained(self) -> None:
        """The router ends, and this call has had its time."""
        if not self._closed:
            self._end_waiting()
            self._router.hold.leave(self)
            self._fail(Draining("This router is shutting down. Send the request again."))

    def pause(self) -> None:
        """The client does not keep up with what it is answered."""
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

    # The wait

    def _begin_waiting(self) -> None:
        self._held_since = time.monotonic()
        if self._keepalive is not None:
            self._keepalive.start()
        elif self._meter.streamed and self._request.wait_seconds is None:  # `Prefer: wait` never commits early
            self._keepalive = Keepalive(
                clock=self._router.clock,
                seconds=self._router.waiting_seconds,
                answer=self._answer,
                fields=((b"x-request-id", self._meter.event_id.encode()),),
                describe=self._describe,
            )

    def _end_waiting(self) -> None:
        if self._held_since is not None:
            self._meter.held_seconds += time.monotonic() - self._held_since
            self._held_since = None
        if self._keepalive is not None:
            self._keepalive.stop()

    def _describe(self) -> bytes:
        """What a waiting client is told: which phase of the start it waits for, and how long that may still take."""
        revision = self.held_in
        if revision is not None and revision.waits_for:
            return comment("place", 0, waits_for=revision.waits_for)
        if revision is None or not (revision.row.starting or revision.row.phase):
            return comment("hold", 0)
        return comment(
            revision.row.phase or "place", revision.remaining(self._router.clock.time()), revision.row.fetched
        )

    def _note_what_it_waited_for(self) -> None:
        """It ends, and no replica has it: its start was cold where it found none that could have taken it."""
        if self._relay is None:
            self._meter.undispatched(cold=not self._revision.had_replica(before=self.entered_at))

    # The one way out

    def _fail(self, error: RouterError) -> None:
        if self._closed:
            return
        if self._relay is not None:
            self._relay.stop()
        self._note_what_it_waited_for()
        self._meter.close(status=self._answer.status or error.status, finish=error.finish, tokens=self._estimated())
        self._answer.fail(error, request_id=self._meter.event_id.encode())
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        slot, self._slot = self._slot, None
        self._relay = self._keepalive = None
        self._answer.let_go()
        if slot is not None:
            slot.release()

    def _counted_to_the_end(self) -> Tokens | None:
        """The engine's counts where a stream has been relayed up to its last event: clients leave there, before its
        last chunk.
        """
        upstream = self._relay.upstream if self._relay is not None else None
        return reported_tokens(upstream) if upstream is not None and has_last_event(upstream) else None

    def _estimated(self) -> Tokens:
        return estimated_tokens(self._relay.upstream, self._choices) if self._relay is not None else NO_TOKENS


def in_turn(request: bytes, turn: bytes) -> bytes:
    """The request, with the name of the turn it comes in."""
    first, _, rest = request.partition(b"\r\n")
    return b"%s\r\n%s: %s\r\n%s" % (first, TURN_HEADER.encode(), turn, rest)
