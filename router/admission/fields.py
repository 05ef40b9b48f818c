"""What a field of a request may hold: the kinds of fields there are, each with its largest value. Step 3; pure.

A route takes a closed set of fields (`field_tables.py` has one table a route). A rule looks at one field's value, and
refuses what is of another kind or beyond its maximum. It notes in `Wants` what only some endpoints allow, for the
endpoint is known later than the body. Three failures to survive. A later engine serves a field that nobody here has
thought of: it is in no table, so it is refused. A value is built to be costly. A message carries the value back at full
length.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from activator.wire import Allowance
from router.errors import BadRequest, cut

INTEGER = 1 << 31
SEED = 1 << 63


@dataclass(slots=True, init=False)
class Wants:
    """What is noted of a request while its fields are checked: what only an endpoint's configuration allows, each with
    the field that asks for it; and the field that shapes the answer.
    """

    allowances: dict[str, str]
    hosts: dict[str, str]  # of media URLs
    shaped_by: str  # the field that says what the answer is to look like; "": none does

    def __init__(
        self, allowances: dict[str, str] | None = None, hosts: dict[str, str] | None = None, shaped_by: str = ""
    ) -> None:
        self.allowances = {} if allowances is None else allowances
        self.hosts = {} if hosts is None else hosts
        self.shaped_by = shaped_by


Check = Callable[[Any, str, Wants], None]
"""(value, name, wants) → None. Raises BadRequest. Null is as good as not given, but for what is the platform's:
there it would undo ours."""
Schema = dict[str, Any] | bool


@dataclass(frozen=True, slots=True)
class Rule:
    """What a field may hold: checked, and told. `schema` is JSON Schema for `/openapi.json`: False where the field is
    not served.
    """

    check: Check
    schema: Schema

    def __call__(self, value: Any, name: str, wants: Wants) -> None:
        self.check(value, name, wants)


def takes(schema: Schema) -> Callable[[Check], Rule]:
    """Make a rule of a check."""
    return lambda check: Rule(check, schema)


Table = Mapping[str, Rule]


def check(fields: Mapping[str, Any], table: Table, wants: Wants) -> None:
    """Every field, by its rule. Raises BadRequest with the field in `param`."""
    for name, value in fields.items():
        rule = table.get(name)
        if rule is None:
            raise unknown(name)
        if value is not None or rule is platform:
            rule.check(value, name, wants)


def unknown(name: str) -> BadRequest:
    return BadRequest(
        f"'{short(name)}' is no field of this route. Remove it, or see the reference for those that are served.",
        param=short(name),
    )


def short(value: object) -> str:
    """A caller's own words, or another value of the body's, as part of a message. Blanks stay: they may be what is
    wrong.
    """
    return cut(value if isinstance(value, str) else json.dumps(value, default=repr))


def refuse(name: str, what: str) -> BadRequest:
    return BadRequest(f"'{name}' {what}.", param=name)


def _or_null(schema: Schema) -> Schema:
    """Null is as good as not given."""
    return schema if isinstance(schema, bool) else {"anyOf": [schema, {"type": "null"}]}


# Kinds of rules


@takes(True)
def anything(value: Any, name: str, wants: Wants) -> None:
    """Known, and of no consequence."""


@takes(
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "items": {"type": "string"}},
            {"type": "array", "minItems": 1, "items": {"type": "integer"}},
            {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": {"type": "integer"}}},
        ]
    }
)
def texts(value: Any, name: str, wants: Wants) -> None:
    """A text or several, as text or in tokens. `openai.py` looks at them, for it counts them."""


@takes(False)
def platform(value: Any, name: str, wants: Wants) -> None:
    raise refuse(name, "is set by the platform. Remove it from the request")


def never(why: str) -> Rule:
    """Not served: `why` says what to do instead."""

    @takes(False)
    def rule(value: Any, name: str, wants: Wants) -> None:
        raise refuse(name, f"is not served: {why}")

    return rule


def only(*values: Any, otherwise: str) -> Rule:
    """These values change nothing; any other is not served."""

    @takes({"enum": list(values)})
    def rule(value: Any, name: str, wants: Wants) -> None:
        if not any(type(value) is type(known) and value == known for known in values):
            raise refuse(name, f"is not served: {otherwise}")

    return rule


def allowed(allowance: Allowance, rule: Rule) -> Rule:
    """Only where the endpoint allows it."""

    @takes(rule.schema)
    def asking(value: Any, name: str, wants: Wants) -> None:
        rule(value, name, wants)
        wants.allowances.setdefault(allowance, name)

    return asking


@takes({"type": "boolean"})
def flag(value: Any, name: str, wants: Wants) -> None:
    if not isinstance(value, bool):
        raise refuse(name, "must be true or false")


def integer(least: int, most: int) -> Rule:
    @takes({"type": "integer", "minimum": least, "maximum": most})
    def rule(value: Any, name: str, wants: Wants) -> None:
        if type(value) is not int:
            raise refuse(name, "must be a whole number")
        if not least <= value <= most:
            raise refuse(name, f"must be between {least} and {most}; it is {short(value)}")

    return rule


def number(least: float, most: float) -> Rule:
    @takes({"type": "number", "minimum": least, "maximum": most})
    def rule(value: Any, name: str, wants: Wants) -> None:
        if type(value) not in (int, float):
            raise refuse(name, "must be a number")
        if not least <= value <= most:
            raise refuse(name, f"must be between {least:g} and {most:g}; it is {short(value)}")

    return rule


def text(most: int) -> Rule:
    """`most`: characters."""

    @takes({"type": "string", "maxLength": most})
    def rule(value: Any, name: str, wants: Wants) -> None:
        if not isinstance(value, str):
            raise refuse(name, "must be a string")
        if len(value) > most:
            raise refuse(name, f"has {len(value)} characters; at most {most} are taken")

    return rule


def one_of(*values: str) -> Rule:
    @takes({"enum": list(values)})
    def rule(value: Any, name: str, wants: Wants) -> None:
        if not isinstance(value, str) or value not in values:
            raise refuse(name, f"must be one of {', '.join(values)}; it is {short(value)}")

    return rule


def list_of(rule_of_each: Rule, most: int) -> Rule:
    @takes({"type": "array", "maxItems": most, "items": rule_of_each.schema})
    def rule(value: Any, name: str, wants: Wants) -> None:
        if not isinstance(value, list):
            raise refuse(name, "must be a list")
        if len(value) > most:
            raise refuse(name, f"has {len(value)} items; at most {most} are taken")
        for each in value:
            rule_of_each(each, name, wants)

    return rule


def either(kind: type, first: Rule, second: Rule) -> Rule:
    """`first` for values of that kind, else `second`."""

    @takes({"anyOf": [first.schema, second.schema]})
    def rule(value: Any, name: str, wants: Wants) -> None:
        (first if isinstance(value, kind) else second)(value, name, wants)

    return rule


def map_of(rule_of_each: Rule, most: int) -> Rule:
    @takes({"type": "object", "maxProperties": most, "additionalProperties": rule_of_each.schema})
    def rule(value: Any, name: str, wants: Wants) -> None:
        if not isinstance(value, dict):
            raise refuse(name, "must be an object")
        if len(value) > most:
            raise refuse(name, f"has {len(value)} entries; at most {most} are taken")
        for each in value.values():
            rule_of_each(each, name, wants)

    return rule


def object_of(table: Table) -> Rule:
    """An object with these fields and no others."""

    @takes(
        {
            "type": "object",
            "properties": {key: _or_null(rule.schema) for key, rule in table.items()},
            "additionalProperties": False,
        }
    )
    def rule(value: Any, name: str, wants: Wants) -> None:
        if not isinstance(value, dict):
            raise refuse(name, "must be an object")
        for key, inner in value.items():
            of_key = table.get(key)
            if of_key is None:
                raise refuse(f"{name}.{short(key)}", f"is no field of '{name}'. Remove it")
            if inner is not None:
                of_key(inner, f"{name}.{key}", wants)

    return rule


def bounded(most_values: int, most_characters: int, deepest: int) -> Rule:
    """Any JSON within these bounds."""

    @takes(True)
    def rule(value: Any, name: str, wants: Wants) -> None:
        weigh(value, name, most_values=most_values, most_characters=most_characters, deepest=deepest)

    return rule


def weigh(value: Any, name: str, *, most_values: int, most_characters: int, deepest: int) -> None:
    """Count values, characters of text, and depth, and stop at the first bound that is passed."""
    values = characters = 0
    level, depth = [value], 0
    while level:
        values, depth = values + len(level), depth + 1
        if depth > deepest:
            raise refuse(name, f"is nested deeper than {deepest}. Flatten it")
        if values > most_values:
            raise refuse(name, f"has more than {most_values} values. Send less")
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                characters += sum(map(len, each))
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str):
                characters += len(each)
        if characters > most_characters:
            raise refuse(name, f"has more than {most_characters} characters of text. Send less")
        level = inner
