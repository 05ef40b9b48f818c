"""Step 2: who may call, and that a refusal says nothing else."""

from __future__ import annotations

import hmac
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.keys import hash_key
from router.admission.auth import Caller, Keys, keyed
from router.errors import Forbidden, NotReady, Unauthorized
from router.ledger.wire import Policy, PolicyChange
from tests.router_world import ADMIN_KEY, KEY, OLD_KEY, OTHER_KEY, PEPPER, POLICY, key_row, request, world


def known() -> Keys:
    made = Keys(pepper=PEPPER, wall=time.time)
    made.replace(POLICY)
    return made


def test_a_key_is_its_tenant() -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        tenant = known().caller(f"{scheme} {KEY}".encode())
        assert (tenant.endpoint_id, tenant.org_id) == ("e1", "default")


@pytest.mark.parametrize(
    "header",
    [None, b"", b"Bearer", b"Bearer ", b"Basic " + KEY.encode(), KEY.encode(), b"Bearer x" + KEY.encode(), b"Bearer \xff\xfe", b"Bearer " + b"p" * 60_000],
)  # fmt: skip
def test_anything_else_is_401_with_the_same_words(header: bytes | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        known().caller(header)
    with pytest.raises(Unauthorized) as expired:
        known().caller(b"Bearer " + OLD_KEY.encode())
    assert caught.value.message == expired.value.message


def test_missing_and_wrong_do_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    work: list[str] = []
    compare_digest, made = hmac.compare_digest, known()
    digest = made._hash

    def hashed(key: bytes) -> bytes:
        work.append("hash")
        return digest(key)

    def compare(a: bytes, b: bytes) -> bool:
        work.append("compare")
        return compare_digest(a, b)

    monkeypatch.setattr(made, "_hash", hashed)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for header in (None, b"Bearer wrong", b"Bearer " + OLD_KEY.encode(), b"Bearer " + KEY.encode()):
        work.clear()
        try:
            made.tenant(header)
        except Unauthorized:
            pass
        assert work == ["hash", "compare"]


@given(st.text(st.characters(max_codepoint=255), max_size=300), st.binary(max_size=64))
def test_a_hash_is_the_one_that_is_stored(key: str, pepper: bytes) -> None:
    assert keyed(pepper)(key.encode()) == hash_key(pepper, key)


def says(key: str, header: bytes = b"authorization") -> dict[bytes, bytes]:
    return {header: key.encode() if header == b"x-api-key" else b"Bearer " + key.encode()}


def test_what_is_said_again_on_a_connection_is_not_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, hashed = known(), list[bytes]()
    digest = keys._hash

    def hashing(key: bytes) -> bytes:
        hashed.append(key)
        return digest(key)

    monkeypatch.setattr(keys, "_hash", hashing)
    caller = Caller(keys)
    first = caller.tenant(says(KEY))
    assert (
        all(caller.tenant(says(KEY, header)) is first for header in (b"authorization", b"x-api-key"))
        and len(hashed) == 1
    )
    assert caller.tenant(says(OTHER_KEY)).endpoint_id == "e2" and caller.tenant(says(KEY)) is first
    for other in ({}, says(KEY + "x"), says(KEY[:-1]), says(""), says(OLD_KEY)):
        with pytest.raises(Unauthorized):
            caller.tenant(other)
    with pytest.raises(Forbidden):
        caller.tenant(says(ADMIN_KEY))
    assert caller.tenant(says(KEY)) is first


def test_what_is_said_again_counts_no_longer_than_its_key() -> None:
    clock, keys, row = (
        [100.0],
        Keys(pepper=PEPPER, wall=lambda: 1000.0, clock=lambda: clock[0]),
        key_row(KEY, "e1", expires_at=1010.0),
    )
    keys.replace(Policy(version=1, keys=(row,)))
    caller = Caller(keys)
    assert caller.tenant(says(KEY)).endpoint_id == "e1"
    clock[0] = 110.0
    with pytest.raises(Unauthorized):  # it has expired
        caller.tenant(says(KEY))
    keys.change(PolicyChange(base=1, version=2, put=(key_row(KEY, "e2"),)))
    assert caller.tenant(says(KEY)).endpoint_id == "e2"
    keys.change(PolicyChange(base=2, version=3, put=(key_row(KEY, "e3", scope="admin"),)))
    with pytest.raises(Forbidden):  # it is another's now
        caller.tenant(says(KEY))
    keys.change(PolicyChange(base=3, version=4, put=(key_row(KEY, "e1"),)))
    assert caller.tenant(says(KEY)).endpoint_id == "e1"
    keys.change(PolicyChange(base=4, version=5, gone=(row.hash,)))
    with pytest.raises(Unauthorized):  # it was revoked
        caller.tenant(says(KEY))


def test_an_admin_key_may_not_infer() -> None:
    with pytest.raises(Forbidden):
        known().caller(b"Bearer " + ADMIN_KEY.encode())
    assert known().tenant(b"Bearer " + ADMIN_KEY.encode()).scope == "admin"


def test_without_a_policy_nobody_is_wrong() -> None:
    with pytest.raises(NotReady):
        Keys(pepper=PEPPER, wall=time.time).caller(b"Bearer " + KEY.encode())


def test_a_key_expires_while_we_run() -> None:
    wall, boot = 0.5, 100.0
    made = Keys(pepper=PEPPER, wall=lambda: wall, clock=lambda: boot)
    made.replace(POLICY)
    made.caller(b"Bearer " + OLD_KEY.encode())
    wall = 1e9  # somebody sets the clock: nothing expires by that
    made.caller(b"Bearer " + OLD_KEY.encode())
    wall, boot = -1e9, 100.5  # nor lives on
    with pytest.raises(Unauthorized):
        made.caller(b"Bearer " + OLD_KEY.encode())
    made.caller(b"Bearer " + KEY.encode())


def test_a_key_expires_by_the_clock_of_postgres() -> None:
    boot = 100.0
    made = Keys(pepper=PEPPER, wall=lambda: 0.5, clock=lambda: boot)
    made.replace(POLICY.model_copy(update={"ahead_seconds": -10.0}))  # ours is ahead: there it is ten seconds earlier
    boot = 110.4
    made.caller(b"Bearer " + OLD_KEY.encode())
    boot = 110.5
    with pytest.raises(Unauthorized):
        made.caller(b"Bearer " + OLD_KEY.encode())


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"key": None}, 401, "invalid_api_key"),
        ({"key": "pl_nonsense", "body": b"not json"}, 401, "invalid_api_key"),
        ({"key": None, "url": "/e/none/v1/chat/completions"}, 401, "invalid_api_key"),
        ({"key": OTHER_KEY}, 403, "forbidden"),
        ({"key": ADMIN_KEY}, 403, "forbidden"),
        ({"url": "/e/none/v1/chat/completions"}, 404, "model_not_found"),
        ({"url": "/v1/chat/completions", "model": "none"}, 404, "model_not_found"),
        ({"url": "/v1/chat/completions"}, 400, "invalid_value"),
        ({"model": "gpt-4"}, 404, "model_not_found"),
        ({"body": b"{"}, 400, "invalid_value"),
    ],
)
async def test_refusals_over_the_wire_leave_no_record(options: Any, status: int, code: str) -> None:
    async with world() as w:
        client = await w.client()
        client.post(**options)
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (status, code)
        assert len(reply.headers["x-request-id"]) == 32
        client.send(request())  # and the connection lives on
        assert (await client.answer()).status == 200
        assert len(await w.ends()) == 1


async def test_a_route_that_does_not_fit_the_task_wakes_nothing() -> None:
    from tests.router_world import endpoint_row

    async with world() as w:
        w.show(endpoint_row(task="embed"))
        w.changes.clear()
        reply = await w.ask()
        assert (reply.status, reply.error["code"]) == (400, "invalid_value")
        assert "embed" in reply.error["message"]
        assert w.changes == []
