"""What a figure was to be: the musts and goals of the project, said in words beside what was measured."""

from __future__ import annotations

from typing import Any


def at_most(kind: str, what: str, value: float, limit: float, unit: str = "s") -> dict[str, Any]:
    """`kind`: must or goal."""
    return _target(kind, f"{what} ≤ {limit:g} {unit}".rstrip(), value, unit, met=value <= limit)


def at_least(kind: str, what: str, value: float, limit: float, unit: str = "") -> dict[str, Any]:
    return _target(kind, f"{what} ≥ {limit:g} {unit}".rstrip(), value, unit, met=value >= limit)


def none(kind: str, what: str, found: object) -> dict[str, Any]:
    """`found`: whatever there should be none of; what there is is told."""
    return {"kind": kind, "what": what, "value": str(found) if found else "none", "met": not found}


def _target(kind: str, what: str, value: float, unit: str, *, met: bool) -> dict[str, Any]:
    return {"kind": kind, "what": what, "value": f"{value:.3g} {unit}".rstrip(), "met": met}


def line(target: dict[str, Any]) -> str:
    return f"- {target['kind']}: {target['what']}: {target['value']}, **{'met' if target['met'] else 'missed'}**"
