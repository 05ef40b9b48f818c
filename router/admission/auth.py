"""Turns the bearer key into a tenant, by a hash look-up in memory, before anything else is revealed. Step 2.

A key that is missing, wrong or expired costs the same hash, look-up and comparison, and reads the same. Three failures
to survive. There is no policy yet: 503, not 401, for a client would throw away a good key. A key has any length and any
bytes. The clock is wrong or set anew: how long a key has is worked out once, by Postgres' clock, when its policy comes.
From then on it runs on the clock since boot, which counts time asleep and is never set.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from router.errors import Forbidden, NotReady, Unauthorized
from router.ledger.wire import KeyRow, Policy, PolicyChange, PolicyPart

LONGEST_KEY = 256  # characters; longer ones are not worth hashing
_NOBODY = bytes(32)
_BLOCK = 64  # bytes, of SHA-256


class Tenant:
    """Whose request it is. `spooled` is the tenant's part of an open record, as JSON, made once. `ends`: when its key
    expires, in the seconds of `since_boot`; 0: never."""

    __slots__ = ("endpoint_id", "ends", "hash", "key_id", "org_id", "salt", "scope", "spooled", "user")

    def __init__(self, row: KeyRow, ends: float = 0.0) -> None:
        self.hash = bytes.fromhex(row.hash)
        self.key_id = row.key_id
        self.org_id = row.org_id
        self.endpoint_id = row.endpoint_id
        self.scope, self.ends = row.scope, ends
        self.salt = b""  # made when it is asked for
        self.user = "key " + row.key_id  # as which it shares what all have
        self.spooled = f'"org_id":{json.dumps(row.org_id)},"key_id":{json.dumps(row.key_id)}'


def since_boot() -> float:
    """Seconds since the machine was started, those it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


REVOKED = "This API key was revoked, or has expired, before the request was served. Use another (`pilotlight keys create ENDPOINT` makes one)."


class Keys:
    """All keys, as the policy has them. `wall` gives Unix seconds: expiry is a date; `clock` runs from then on."""

    def __init__(self, *, pepper: bytes, wall: Callable[[], float], clock: Callable[[], float] = since_boot) -> None:
        self._hash = keyed(pepper)
        self._wall = wall
        self._clock = clock
        self._tenants: dict[bytes, Tenant] | None = None
        self._coming: dict[bytes, Tenant] = {}  # of a whole policy that is on its way
        self._begin = self._begin_coming = 0.0
        self.version = 0

    @property
    def known(self) -> bool:
        return self._tenants is not None

    def replace(self, policy: Policy) -> None:
        """A whole policy in one frame."""
        begin = self._begin = self._epoch(policy.ahead_seconds)
        self._tenants, self.version = {tenant.hash: tenant for tenant in _tenants(policy.keys, begin)}, policy.version

    def add(self, part: PolicyPart) -> bool:
        """Some keys of a whole policy. Returns whether it is whole now; until then the one before it counts."""
        if part.first:
            self._coming, self._begin_coming = {}, self._epoch(part.ahead_seconds)
        self._coming.update((tenant.hash, tenant) for tenant in _tenants(part.keys, self._begin_coming))
        if part.last:
            self._tenants = self._coming
            self._begin = self._begin_coming
            self.version = part.version
            self._coming = {}
        return part.last

    def change(self, change: PolicyChange) -> bool:
        """Returns false, and does nothing, where it does not follow on what is known."""
        if self._tenants is None or change.base != self.version:
            return False
        for digest in change.gone:
            self._tenants.pop(bytes.fromhex(digest), None)
        self._tenants.update((tenant.hash, tenant) for tenant in _tenants(change.put, self._begin))
        self.version = change.version
        return True

    def _epoch(self, ahead_seconds: float) -> float:
        """The Unix epoch by Postgres' clock, on ours."""
        return self._clock() - self._wall() - ahead_seconds

    def check(self, tenant: Tenant) -> None:
        """Whether a tenant of before still is one. Raises Unauthorized."""
        assert self._tenants is not None
        if tenant.hash not in self._tenants or (tenant.ends and tenant.ends <= self._clock()):
            raise Unauthorized(REVOKED)

    def knows(self, tenant: Tenant) -> bool:
        """Whether this very tenant is what its key stands for now."""
        known = self._tenants is not None and self._tenants.get(tenant.hash) is tenant
        return known and not (tenant.ends and tenant.ends <= self._clock())

    def tenant(self, authorization: bytes | None) -> Tenant:
        """The tenant of an Authorization header. Raises Unauthorized, NotReady."""
        if self._tenants is None:
            raise NotReady("This router has just started and does not know its keys yet. Try again in a moment.")
        key = _bearer(authorization or b"")
        digest = self._hash(key.encode())
        tenant = self._tenants.get(digest)
        same = hmac.compare_digest(digest, tenant.hash if tenant else _NOBODY)
        if tenant is None or not same or (tenant.ends and tenant.ends <= self._clock()):
            raise Unauthorized(
                "The API key is missing, wrong or expired. Send 'Authorization: Bearer pl_…' with a key of this endpoint "
                "(`pilotlight keys create ENDPOINT` makes one)."
            )
        return tenant

    def caller(self, authorization: bytes | None) -> Tenant:
        """The tenant, if its key may ask for inference. Raises Unauthorized, Forbidden, NotReady."""
        tenant = self.tenant(authorization)
        if tenant.scope != "inference":
            raise Forbidden(
                "This is an admin key: it manages endpoints and cannot call them. Use a key of the endpoint."
            )
        return tenant

    def salt(self, tenant: Tenant) -> bytes:
        """What the engine's prefix cache is salted with for this key, as a field of a body: nobody else can have it, or
        find out by guessing.
        """
        if not tenant.salt:
            tenant.salt = (
                b'"cache_salt":"%b",' % self._hash(b"prefix cache of " + tenant.key_id.encode()).hex().encode()
            )
        return tenant.salt


class Caller:
    """Who calls on one connection. What is said there again is not hashed again, while it still stands for the same."""

    __slots__ = ("_keys", "_said", "_tenant", "proven")

    def __init__(self, keys: Keys) -> None:
        self._keys, self._said = keys, b""
        self.proven = False  # a good key has come by it, and whom that concerns has heard of it
        self._tenant: Tenant | None = None

    def tenant(self, headers: Mapping[bytes, bytes]) -> Tenant:
        """As `Keys.caller`, as soon as a head is here: nobody uploads a body, or learns anything, without a key."""
        said, tenant = headers.get(b"authorization") or authorization(headers), self._tenant
        if (
            tenant is not None
            and said is not None
            and hmac.compare_digest(said, self._said)
            and self._keys.knows(tenant)
        ):
            return tenant
        self._tenant = None
        self._tenant, self._said = self._keys.caller(said), said or b""
        return self._tenant


def _tenants(rows: Iterable[KeyRow], begin: float) -> Iterator[Tenant]:
    return (Tenant(row, row.expires_at + begin if row.expires_at else 0.0) for row in rows)


def keyed(pepper: bytes) -> Callable[[bytes], bytes]:
    """`pilotlight.keys.hash_key` with the pepper's share of HMAC-SHA-256 done once: the same digests in a third of the
    time.
    """
    if len(pepper) > _BLOCK:
        raise ValueError("the pepper is longer than a block of SHA-256")
    block = pepper.ljust(_BLOCK, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ mask for byte in block)) for mask in (0x36, 0x5C))

    def digest(key: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(key)
        second.update(first.digest())
        return second.digest()

    return digest


def authorization(headers: Mapping[bytes, bytes]) -> bytes | None:
    """What a request says in OpenAI's header, or else in Anthropic's."""
    said = headers.get(b"authorization")
    return b"Bearer " + headers[b"x-api-key"] if said is None and b"x-api-key" in headers else said


def _bearer(authorization: bytes) -> str:
    scheme, _, key = authorization.partition(b" ")
    key = key.strip()
    return key.decode("latin-1") if scheme.lower() == b"bearer" and len(key) <= LONGEST_KEY else ""
