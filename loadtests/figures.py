"""What a load test found, beside what it must keep. Pure: no clock, no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

STARTS = ("cold", "warm")
MEASURES = ("first_token", "latency")
PERCENTILES = (50, 95, 99)


class Sample(NamedTuple):
    """One call as its client saw it. Times are seconds from the moment it began; inf: that never came."""

    start: str  # "cold", "warm", as the answer said; "" where there was none
    first_token: float
    latency: float
    error: str = ""


Summary = dict[str, dict[str, float]]  # by start: "calls", and "first_token_p50" …


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of them do not exceed (nearest rank); nan of none."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]


def summarise(samples: Sequence[Sample]) -> Summary:
    """Of the calls that succeeded."""
    found: Summary = {}
    for start in STARTS:
        good = [sample for sample in samples if sample.start == start and not sample.error]
        found[start] = {"calls": float(len(good))}
        for measure in MEASURES:
            values = [getattr(sample, measure) for sample in good]
            found[start] |= {f"{measure}_p{percent}": percentile(values, percent) for percent in PERCENTILES}
    return found


def error_rate(samples: Sequence[Sample]) -> float:
    """1.0 where there were no calls at all."""
    return sum(bool(sample.error) for sample in samples) / len(samples) if samples else 1.0


def violations(limits: Mapping[str, Any], samples: Sequence[Sample]) -> list[str]:
    """What is not kept, one sentence each. `limits`: a scenario's table of slo.toml. Raises ValueError for a limit
    nobody knows.
    """
    summary, broken = summarise(samples), list[str]()
    for name, limit in limits.items():
        if name == "error_rate":
            if error_rate(samples) > limit:
                broken.append(f"error rate: {error_rate(samples):.4f}, and at most {limit} is allowed")
        elif name in STARTS:
            broken += _broken(name, limit, summary[name])
        else:
            raise ValueError(f"slo.toml: there is no limit {name!r}")
    return broken


def _broken(start: str, limits: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    broken = []
    for name, limit in limits.items():
        if name == "least":
            if found["calls"] < limit:
                broken.append(f"{start} calls: {found['calls']:.0f}, and at least {limit} are needed to say anything")
        elif name not in found:
            raise ValueError(f"slo.toml: there is no limit {start}.{name!r}: there are least, {', '.join(found)}")
        elif not found[name] <= limit:  # so that nan is none that is kept
            broken.append(f"{start} {name}: {found[name]:.3f} s, and at most {limit} s is allowed")
    return broken


def table(samples: Sequence[Sample]) -> str:
    """For people: a line for each start and measure, in seconds."""
    lines = [f"{'':5} {'':12} {'calls':>6} " + " ".join(f"{'p' + str(percent):>8}" for percent in PERCENTILES)]
    for start, found in summarise(samples).items():
        for measure in MEASURES:
            cells = [found[f"{measure}_p{percent}"] for percent in PERCENTILES]
            shown = " ".join(f"{'-' if math.isnan(cell) else f'{cell:.3f}':>8}" for cell in cells)
            lines.append(f"{start:5} {measure.replace('_', ' '):12} {found['calls']:6.0f} {shown}")
    lines.append(f"calls {len(samples)}, errors {sum(bool(sample.error) for sample in samples)}")
    return "\n".join(lines)
