"""What deploys and removals mean for what is stored."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from activator.catalogue import Catalogue, Endpoint
from activator.errors import CommandRefused
from activator.policy.deploy import Plan, plan_deploy, plan_remove, plan_rollback, plan_settled
from activator.wire import Configuration, Deploy, Remove, Rollback
from tests.fakes_activator import DIGEST, endpoint, revision

NUMBERS = count()


def frame(**given: Any) -> Deploy:
    return Deploy(**{"org_id": "default", "name": "a", "digest": DIGEST} | given)


def plan(deploy: Deploy, stored: Endpoint | None = None) -> Plan:
    return plan_deploy(deploy, stored, new_id=lambda prefix: f"{prefix}{next(NUMBERS)}", created=7)


def serving(made: Plan) -> Endpoint:
    """The endpoint once its next revision has shown that it serves."""
    assert made.new_revision
    settled = plan_settled(made.new_revision.revision_id, "", made.endpoint)
    assert settled
    return settled.endpoint


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
    [
        {"slots": 9},
        {"digest": "sha256:" + "1" * 64},
        {"engine_args": {"x": 2}},
        {"min_replicas": 1},
        {"task": "embed"},
        {"zero": "parked"},
    ],
)
def test_any_other_configuration_is_the_next_revision(change: dict[str, Any]) -> None:
    first = plan(frame()).endpoint
    second = plan(frame(**change), first)
    assert second.new_revision and second.new_revision.number == 2
    assert second.endpoint.next == second.new_revision.revision_id and second.endpoint.route == first.route
    assert second.endpoint.endpoint_id == first.endpoint_id
    back = plan(frame(**Configuration.model_validate({}).model_dump()), serving(second))
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
    whole = {
        "slots": 8,
        "target_concurrency": 4,
        "min_replicas": 1,
        "max_replicas": 3,
        "idle_timeout_seconds": 9.0,
        "zero": "parked",
    }
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
    assert back.new_revision and (back.new_revision.number, back.new_revision.slots, back.endpoint.max_held) == (
        2,
        64,
        1000,
    ), "begun anew"
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
        ({"zero": "parked", "task": "embed"}, "only a replica with the task generate can be parked"),
        ({"slots": 4, "target_concurrency": 5}, r"target_concurrency \(5\) must not be more than slots \(4\)"),
        ({"weight_bytes": -1}, "weight_bytes"),
        ({"idle_timeout_seconds": -1}, "idle_timeout_seconds"),
        (
            {"idle_timeout_seconds": 7 * 86400 + 1},
            "idle_timeout_seconds is 604801.0: Input should be less than or equal to 604800",
        ),
        ({"hold_seconds": 600}, "hold_seconds"),
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


# What is next, and what becomes of it


def good() -> Endpoint:
    return endpoint("a", revision("a"))


def test_the_route_stays_until_the_new_revision_serves() -> None:
    stored = good()
    made = plan(frame(slots=8), stored)
    assert made.new_revision and made.endpoint.next == made.new_revision.revision_id
    assert made.endpoint.route == stored.route
    served = plan_settled(made.endpoint.next, "", made.endpoint)
    assert served and served.endpoint.route == ((made.new_revision.revision_id, 100),) and not served.endpoint.next
    failed = plan_settled(made.endpoint.next, "bad argument", made.endpoint)
    assert failed and failed.endpoint.route == stored.route and not failed.endpoint.next
    assert failed.settled == (made.new_revision.revision_id, "failed", "bad argument")


def test_at_once_and_where_there_is_nothing_to_lose_the_route_changes_now() -> None:
    made = plan(frame(slots=8, at_once=True), good())
    assert (
        made.new_revision and made.endpoint.route == ((made.new_revision.revision_id, 100),) and not made.endpoint.next
    )
    broken = endpoint("a", revision("a", outcome="failed"))
    made = plan(frame(slots=8), broken)
    assert made.new_revision and made.endpoint.route == ((made.new_revision.revision_id, 100),)


def test_a_second_deploy_takes_the_place_of_the_one_on_its_way_and_builds_on_it() -> None:
    first = plan(frame(slots=8), good())
    second = plan(frame(max_replicas=3), first.endpoint)
    assert second.new_revision and second.endpoint.next == second.new_revision.revision_id
    assert (second.new_revision.slots, second.new_revision.max_replicas, second.new_revision.number) == (8, 3, 3)
    assert plan(frame(slots=8), first.endpoint).changed is False, "the same again"
    at_once = plan(frame(slots=8, at_once=True), first.endpoint)
    assert at_once.new_revision is None and at_once.endpoint.route == ((first.endpoint.next, 100),)
    back = plan(frame(slots=4), first.endpoint)
    assert back.new_revision is None and not back.endpoint.next, (
        "what serves is what is wanted: nothing else is on its way"
    )


def test_a_verdict_nobody_waits_for_any_more_changes_nothing() -> None:
    first = plan(frame(slots=8), good()).endpoint
    second = plan(frame(slots=9), first).endpoint
    assert plan_settled(first.next, "", second) is None
    assert plan_settled("rev_a1", "late", second) is None, (
        "it has served: one failure later is trouble, not its outcome"
    )
    assert plan_settled("rev_a1", "", None) is None


def test_one_field_can_be_changed_and_an_argument_cleared() -> None:
    stored = endpoint("a", revision("a", engine_args={"max-model-len": 64, "seed": 1}, weight_bytes=7))
    made = plan(frame(digest="", idle_timeout_seconds=7.0), stored).new_revision
    assert made and (made.digest, made.idle_timeout_seconds, made.weight_bytes) == (DIGEST, 7.0, 7)
    assert made.engine_args == {"max-model-len": 64, "seed": 1}
    made = plan(frame(digest="", engine_args={"seed": 2}, merge_engine_args=True), stored).new_revision
    assert made and made.engine_args == {"max-model-len": 64, "seed": 2}
    made = plan(frame(digest="", engine_args={"seed": 2}), stored).new_revision
    assert made and made.engine_args == {"seed": 2}, "those given are all it has"
    made = plan(frame(digest="", unset_engine_args=("seed",)), stored).new_revision
    assert made and made.engine_args == {"max-model-len": 64}
    with pytest.raises(CommandRefused, match="no 'sede' to unset: it has max-model-len, seed"):
        plan(frame(unset_engine_args=("sede",)), stored)
    with pytest.raises(CommandRefused, match="there is no endpoint 'a' to change"):
        plan(frame(digest="", slots=3))


def rolled(stored: Endpoint, to: int | None = None) -> Plan:
    return plan_rollback(
        Rollback(org_id="default", name="a", to=to), stored, new_id=lambda prefix: f"{prefix}{next(NUMBERS)}"
    )


def test_a_rollback_deploys_what_an_earlier_revision_was() -> None:
    stored = endpoint(
        "a", revision("a", 1, slots=3), revision("a", 2, slots=5, outcome="failed"), revision("a", 3, slots=8)
    )
    made = rolled(stored)
    assert made.new_revision and (made.new_revision.slots, made.new_revision.number, made.new_revision.outcome) == (
        3,
        4,
        "",
    )
    assert made.endpoint.next == made.new_revision.revision_id and made.endpoint.route == stored.route
    chosen = rolled(stored, 2).new_revision
    assert chosen and chosen.slots == 5
    with pytest.raises(CommandRefused, match="has no revision 9"):
        rolled(stored, 9)
    with pytest.raises(CommandRefused, match="no earlier revision"):
        rolled(good())
    with pytest.raises(CommandRefused, match="there is no endpoint"):
        rolled(endpoint("a", removed=True))


def test_a_rollback_repeated_while_it_is_on_its_way_changes_nothing() -> None:
    stored = endpoint("a", revision("a", 1, slots=3), revision("a", 2, slots=5), revision("a", 3, slots=8))
    for to in (None, 1):
        coming = rolled(stored, to).endpoint
        for again in (None, to):
            made = rolled(coming, again)
            assert (made.changed, made.new_revision, made.endpoint) == (False, None, coming)
            assert made.wanted and made.wanted.revision_id == coming.next
    at_once = plan_rollback(Rollback(org_id="default", name="a", at_once=True), coming, new_id=lambda prefix: prefix)
    assert at_once.new_revision is None and at_once.endpoint.route == ((coming.next, 100),), "only sooner"


def test_a_rollback_after_a_rollback_goes_further_back_and_never_to_what_was_rolled_back_from() -> None:
    stored = endpoint("a", revision("a", 1, slots=1), revision("a", 2, slots=2), revision("a", 3, slots=3))
    for slots in (2, 1):
        made = rolled(stored)
        assert made.new_revision and made.new_revision.slots == slots
        stored = serving(made)
        assert rolled(stored, made.new_revision.number).changed is False
    with pytest.raises(CommandRefused, match="no earlier revision that has not failed or been rolled back from"):
        rolled(stored)
    for slots in (3, 4):  # taken up again by a deploy, it is no bad one any more
        stored = serving(plan(frame(slots=slots), stored))
    for slots in (3, 1):
        made = rolled(stored)
        assert made.new_revision and made.new_revision.slots == slots
        stored = serving(made)


def test_a_rollback_after_a_deploy_that_failed_keeps_what_serves() -> None:
    revisions = (
        revision("a", 1, slots=3, outcome="proved"),
        revision("a", 2, slots=5, outcome="proved"),
        revision("a", 3, slots=8, outcome="failed"),
    )
    stored = replace(endpoint("a", *revisions), route=((revisions[1].revision_id, 100),))
    made = rolled(stored)
    assert (made.changed, made.endpoint, made.wanted) == (False, stored, revisions[1])
    further = rolled(stored, 1).new_revision
    assert further and further.slots == 3
    at_once = replace(stored, route=((revisions[2].revision_id, 100),))  # the failed one has the route
    back = rolled(at_once).new_revision
    assert back and back.slots == 5


def test_a_rollback_of_a_deploy_on_its_way_drops_it() -> None:
    coming = plan(frame(slots=8), good()).endpoint
    made = rolled(coming)
    assert made.changed and made.new_revision is None and not made.endpoint.next and made.endpoint.route == coming.route


# Engine arguments have one spelling


@pytest.mark.parametrize("stored_as", ["max-model-len", "max_model_len"])
@pytest.mark.parametrize("given_as", ["max-model-len", "max_model_len"])
def test_an_argument_is_the_same_in_either_spelling(stored_as: str, given_as: str) -> None:
    stored = endpoint("a", revision("a", engine_args={stored_as: 64}))
    for merge in (False, True):
        made = plan(frame(digest="", engine_args={given_as: 128}, merge_engine_args=merge), stored).new_revision
        assert made and made.engine_args == {"max-model-len": 128}
        assert plan(frame(digest="", engine_args={given_as: 64}, merge_engine_args=merge), stored).new_revision is None
    cleared = plan(frame(digest="", unset_engine_args=(given_as,)), stored).new_revision
    assert cleared and cleared.engine_args == {}
    assert revision("a", engine_args={stored_as: 64}).engine == revision("a", engine_args={given_as: 64}).engine


def test_an_old_revision_with_both_spellings_has_the_one_that_counted() -> None:
    stored = endpoint("a", revision("a", engine_args={"max-model-len": 64, "max_model_len": 128}))
    assert plan(frame(digest=""), stored).changed is False
    made = plan(frame(digest="", slots=3), stored).new_revision
    assert made and made.engine_args == {"max-model-len": 128}
    earlier = endpoint("a", *stored.revisions, revision("a", 2))
    back = rolled(earlier).new_revision
    assert back and back.engine_args == {"max-model-len": 128}


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(
    ("engine_args", "says"),
    [
        ({"max-model-len": 1, "max_model_len": 2}, "max-model-len and max_model_len are the same argument"),
        ({"seed=1": 2}, "'seed=1' is not a name of an argument"),
        ({"--seed": 2}, "'--seed' is not a name"),
        ({"": 2}, "'' is not a name"),
        ({"Seed": 2}, "'Seed' is not a name"),
        ({"a b": 2}, "'a b' is not a name"),
        ({"se\x00ed": 2}, r"'se\\x00ed' is not a name"),
        ({"seed\n": 2}, r"'seed\\n' is not a name"),
        *(
            ({"dtype": f"a{chr(code)}b"}, "must not have control characters")
            for code in (0, 1, 8, 11, 27, 31, 127, 133, 0xD800)
        ),
    ],
)
def test_no_argument_has_two_values_or_what_cannot_be_stored(
    engine_args: dict[str, Any], says: str, merge: bool
) -> None:
    with pytest.raises(CommandRefused, match=says):
        plan(Deploy.model_construct(**frame(merge_engine_args=merge).__dict__ | {"engine_args": engine_args}), good())


def test_keys_of_values_and_templates_over_several_lines_are_taken_as_they_are() -> None:
    given: dict[str, str | int | float | bool] = {
        "compilation_config.pass_config.fuse_x": True,
        "chat_template": "{{ a }}\n\t{{ b }}\r\n",
        "x.y+": 1,
    }
    made = plan(frame(engine_args=given)).new_revision
    assert made and list(made.engine_args.items()) == [
        ("compilation-config.pass_config.fuse_x", True),
        ("chat-template", "{{ a }}\n\t{{ b }}\r\n"),
        ("x.y+", 1),
    ]
