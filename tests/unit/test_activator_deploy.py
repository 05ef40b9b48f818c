"""What deploys and removals mean for what is stored."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from activator.catalogue import Catalogue, Endpoint
from activator.deploy import Plan, plan_deploy, plan_remove
from activator.errors import CommandRefused
from activator.wire import Configuration, Deploy, Remove
from tests.fakes_activator import DIGEST, endpoint, revision

NUMBERS = count()


def frame(**given: Any) -> Deploy:
    return Deploy(**{"org_id": "default", "name": "a", "digest": DIGEST} | given)


def plan(deploy: Deploy, stored: Endpoint | None = None) -> Plan:
    return plan_deploy(deploy, stored, new_id=lambda prefix: f"{prefix}{next(NUMBERS)}", created=7)


def test_a_new_name_is_a_new_endpoint_with_the_whole_route_on_its_first_revision() -> None:
    made = plan(frame(slots=8))
    assert made.changed and made.new_revision
    assert made.endpoint.route == ((made.new_revision.revision_id, 100),)
    assert (made.new_revision.number, made.new_revision.slots, made.endpoint.created) == (1, 8, 7)


def test_the_same_again_is_the_same_revision() -> None:
    first = plan(frame(engine_args={"x": 1})).endpoint
    again = plan(frame(engine_args={"x": 1}), first)
    assert (again.changed, again.new_revision, again.endpoint) == (False, None, first)


@pytest.mark.parametrize(
    "change",
    [{"slots": 9}, {"digest": "sha256:" + "1" * 64}, {"engine_args": {"x": 2}}, {"min_replicas": 1}, {"task": "embed"}, {"zero": "parked"}],
)
def test_any_other_configuration_is_the_next_revision(change: dict[str, Any]) -> None:
    first = plan(frame()).endpoint
    second = plan(frame(**change), first)
    assert second.new_revision and second.new_revision.number == 2
    assert second.endpoint.route == ((second.new_revision.revision_id, 100),)
    assert second.endpoint.endpoint_id == first.endpoint_id
    back = plan(frame(**Configuration.model_validate({}).model_dump()), second.endpoint)
    assert back.new_revision and back.new_revision.number == 3, "revisions are never taken up again"


def test_the_target_concurrency_is_the_slots_unless_given() -> None:
    first = plan(frame(slots=8)).endpoint
    assert first.revisions[0].concurrency == 8
    assert plan(frame(slots=8, target_concurrency=8), first).new_revision is None, "the same, spelt out"
    second = plan(frame(slots=8, target_concurrency=2), first)
    assert second.new_revision and second.new_revision.concurrency == 2


def test_learning_what_the_weights_are_is_no_new_revision() -> None:
    first = plan(frame()).endpoint
    assert plan(frame(weight_bytes=5), first).new_revision is None
    assert plan(frame(weight_bytes=5)).endpoint.revisions[0].weight_bytes == 5


def test_limits_of_the_endpoint_change_without_a_revision() -> None:
    first = plan(frame()).endpoint
    second = plan(frame(max_held=5, hold_seconds=1.0), first)
    assert (second.changed, second.new_revision) == (True, None)
    assert (second.endpoint.max_held, second.endpoint.hold_seconds, second.endpoint.route) == (5, 1.0, first.route)


def test_what_a_deploy_does_not_name_stays_as_it_is() -> None:
    whole = {"slots": 8, "target_concurrency": 4, "min_replicas": 1, "max_replicas": 3, "idle_timeout_seconds": 9.0, "zero": "parked"}
    first = plan(frame(**whole, engine_args={"x": 1}, hold_seconds=20.0, max_held=5)).endpoint
    assert plan(frame(), first).endpoint == first, "nothing is named, nothing changes"
    second = plan(frame(max_replicas=4, engine_args={}), first)
    assert second.new_revision and (second.endpoint.hold_seconds, second.endpoint.max_held) == (20.0, 5)
    named = {"max_replicas": 4, "engine_args": {}}
    assert {field: getattr(second.new_revision, field) for field in (*whole, "engine_args")} == whole | named
    with pytest.raises(CommandRefused, match=r"target_concurrency \(4\) must not be more than slots \(2\)"):
        plan(frame(slots=2), first)


def test_of_a_route_in_parts_the_largest_is_what_stays() -> None:
    old, new = revision(number=1, slots=8), revision(number=2, slots=16)
    split = replace(endpoint("a", old, new), route=(("rev_a1", 90), ("rev_a2", 10)))
    made = plan(frame(), split).new_revision
    assert made and (made.slots, made.number) == (8, 3)


def test_removed_names_can_be_deployed_again_by_who_had_them() -> None:
    made = plan(frame(slots=8, max_held=5))
    first = made.endpoint
    removal = plan_remove(Remove(org_id="default", name="a"), first)
    gone = removal.endpoint
    assert gone.removed and gone.route == ()
    back = plan(frame(), gone)
    assert back.endpoint.endpoint_id == first.endpoint_id and not back.endpoint.removed
    assert back.new_revision and (back.new_revision.number, back.new_revision.slots, back.endpoint.max_held) == (2, 64, 1000), "begun anew"
    assert (made.ends, removal.ends, back.ends, plan(frame(slots=9), first).ends) == (False, True, True, False)
    with pytest.raises(CommandRefused, match="taken by another organisation"):
        plan(frame(org_id="other"), gone)


@pytest.mark.parametrize("stored", [None, endpoint("a", removed=True)])
def test_what_is_not_there_cannot_be_removed(stored: Endpoint | None) -> None:
    with pytest.raises(CommandRefused, match="there is no endpoint 'a'"):
        plan_remove(Remove(org_id="default", name="a"), stored)
    with pytest.raises(CommandRefused, match="there is no endpoint"):
        plan_remove(Remove(org_id="other", name="a"), endpoint("a"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": ""}, "name"),
        ({"name": "A"}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"name": "a\n"}, "name"),
        ({"digest": "sha256:xyz"}, "digest"),
        ({"min_replicas": -1}, "min_replicas"),
        ({"min_replicas": 2}, "min_replicas"),
        ({"max_replicas": 0}, "max_replicas"),
        ({"max_replicas": 1001}, "max_replicas"),
        ({"slots": 0}, "slots"),
        ({"zero": "parked", "task": "embed"}, "which only generate has"),
        ({"slots": 4, "target_concurrency": 5}, r"target_concurrency \(5\) must not be more than slots \(4\)"),
        ({"weight_bytes": -1}, "weight_bytes"),
        ({"idle_timeout_seconds": -1}, "idle_timeout_seconds"),
        ({"idle_timeout_seconds": 7 * 86400 + 1}, "idle_timeout_seconds is 604801.0: Input should be less than or equal to 604800"),
        ({"hold_seconds": 600}, "hold_seconds"),
        ({"task": "score"}, "task is 'score': Input should be 'generate' or 'embed'"),
        ({"max_held": -1}, "max_held"),
    ],
)
def test_malformed_commands_are_refused_with_the_fields_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(CommandRefused, match=says):
        plan(frame(**given))


def test_the_catalogue_keeps_revisions_until_they_are_let_go() -> None:
    known = Catalogue()
    known.put(endpoint("a", revision(number=1)))
    known.put(endpoint("a", revision(number=2)))
    assert known.find("rev_a1") and known.find("rev_a2")
    known.forget("rev_a2")
    assert known.find("rev_a2"), "routed"
    known.forget("rev_a1")
    assert known.find("rev_a1") is None
