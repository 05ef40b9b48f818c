"""What all calls of one router worker share: keys, endpoints, hold, spool, metrics, and the bytes they may take.

Used by steps 1 to 12; it does nothing by itself but to find the endpoint that a call means. The failure to survive is a
worker that has just started: until it knows keys and endpoints it answers 503, never 401 or 404.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from router.admission.auth import Keys, Tenant
from router.admission.body_reader import InPlace, Reads
from router.admission.cors import Cors
from router.admission.proxies import Proxies
from router.admission.strangers import Strangers
from router.clock import Clock
from router.errors import Forbidden, ModelNotFound, NotReady, quoted
from router.hold.budget import Budget
from router.hold.hold import Hold
from router.hold.machine import Alone, Machine
from router.hold.replicas import Endpoint
from router.hold.table import RouteTable
from router.metrics import Metrics
from router.relay.keepalive import WAITING_SECONDS
from router.spool.spool import Spool


class Upload(Protocol):
    """Whoever has bytes here that come in, or go out."""

    def give_way(self) -> None:
        """There are too many bytes: end it."""


class Router:
    """One worker's parts. `max_uploading` bounds the bytes of bodies that come in, `max_unread` those that clients do
    not read. `chance` gives numbers in [0, 1), by which a route with several revisions chooses.
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
        chance: Callable[[], float] = random.random,
    ) -> None:
        machine = machine or Alone()
        self.keys = keys
        self.table = table
        self.hold = hold
        self.spool = spool
        self.metrics = metrics
        self.clock = clock
        self.chance = chance
        self.waiting_seconds = waiting_seconds
        self.domain = domain.lower().strip(".")  # `ENDPOINT.DOMAIN` is an endpoint's own host
        self.proxies = Proxies(trusted_proxies)
        self.strangers = Strangers(refusals_per_second, self.proxies, clock)
        self.reader: Reads = reader or InPlace()
        self.cors = Cors(cors_origins, at=self._origins_of)
        self.draining = False
        self.uploads: Budget[Upload] = Budget(
            max_uploading, give_way=_give_way, workers=machine.workers, shared=machine.uploading
        )
        self.unread: Budget[Upload] = Budget(max_unread, give_way=_give_way)

    @property
    def ready(self) -> bool:
        """Whether every answer is a true one: keys and endpoints are known, and it does not shut down."""
        return self.keys.known and self.table.complete and not self.draining

    def endpoint(self, tenant: Tenant, name: str) -> Endpoint:
        """The endpoint of this name, if the tenant's key may call it. Another org's is as if there were none.

        Raises NotReady, ModelNotFound, Forbidden.
        """
        if not self.table.complete:
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

    def _origins_of(self, name: str) -> tuple[str, ...]:
        """Origins of web pages that may call the endpoint of this name."""
        endpoint = self.table.endpoints.get(name)
        return endpoint.row.cors_origins if endpoint else ()


def _give_way(upload: Upload) -> None:
    upload.give_way()
