"""RESULTS.md from results.json: every section with its hardware, nothing typed by hand but the words around it.

A section is a table of its plain figures, its waterfall where it has phases, tables of its own, and its targets. In its
figures `notes` are sentences, `tables` are {title: rows of cells, the first of them the head}, `targets` are of
`targets.py`.
"""

from __future__ import annotations

from typing import Any

from loadtests.bench.targets import line
from pilotlight.cli.bench.coldstart import ordered

TITLES = {
    "coldstart_demo": "Cold start: the demo model, from zero to the first token over HTTPS",
    "coldstart_tiny": "Cold start: `tiny` (27M-parameter Llama, random weights)",
    "endurance": "Wakes in a row: `tiny` from staged with a standby, under a trickle of traffic to another endpoint",
    "qwen3": "`qwen3-0.6b` (596M parameters, 1.2 GB bf16, random weights): cold start, sharing, decoding",
    "parked": "Parked: `tiny`, its engine built and its memory given back",
    "stored": "Nothing staged: the snapshot only in a loopback S3 server, an empty node each time",
    "loaders": "Loaders: the same file in the same run, until every page of every tensor was touched once",
    "relay": "Warm path: the router beside nginx and vllm-router, same back end and client, same run",
    "simultaneous": "Fifty simultaneous calls to an endpoint at zero",
    "recovery": "Kill -9, and the time until a call is answered again",
    "metering": "Usage rows beside vLLM's own counters: three wakes, streaming and not, 10 % aborted",
    "torture": "The ledger under torture: every process killed again and again, a stand-in engine with an oracle of its own",
    "stopped": "SIGSTOP of each process: it neither dies nor speaks",
    "room": "Room for fewer endpoints than are called: a simulation of turns",
    "memory": "Ten endpoints at zero: proportional memory (PSS) of every process",
    "growth": "What grows with endpoints and keys: CPU time at 10, 1,000 and 10,000 endpoints",
    "strangers": "Every bad client at once at the public port, beside good callers",
    "newcomer": "A fresh clone on a machine with an empty package cache",
}
SHOWN_APART = ("hardware", "took_s", "failed")


def render(results: dict[str, Any]) -> str:
    parts = [
        "# Results",
        "",
        "Made by `make bench` from `results.json`. Ratios are of one run; absolute times drift on shared machines.",
        "",
    ]
    for name in sorted(results, key=lambda name: (list(TITLES).index(name) if name in TITLES else len(TITLES), name)):
        parts += _section(name, results[name])
    return "\n".join(parts).rstrip() + "\n"


def _section(name: str, figures: dict[str, Any]) -> list[str]:
    machine = figures["hardware"]
    with_sets = f" with {', '.join(machine['instruction_sets'])}" if machine.get("instruction_sets") else ""
    where = f"{machine['cpu']}{with_sets}, {machine['cores']} cores, {machine['memory_gib']} GiB, GPU: {machine['gpu']}, Python {machine['python']}"
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    took = f" Took {figures['took_s']:.0f} s." if "took_s" in figures else ""
    lines = [f"## {TITLES.get(name, name)}", "", f"{machine['date']}; {where}; {versions}.{took}", ""]
    if "failed" in figures:
        lines += [f"**Not complete**: {figures['failed']}.", ""]
    lines += [part for note in figures.get("notes", ()) for part in (note, "")]
    shown = {key: value for key, value in figures.items() if key not in SHOWN_APART}
    lines += _coldstart(shown) if "p50_s" in shown else []
    lines += _plain(
        {key: value for key, value in shown.items() if key not in COLDSTART and not isinstance(value, dict | list)}
    )
    for title, rows in figures.get("tables", {}).items():
        lines += [f"**{title}**", "", *_table(rows), ""]
    lines += [*map(line, figures["targets"]), ""] if "targets" in figures else []
    return lines


COLDSTART = ("wakes", "p50_s", "p95_s", "p99_s", "max_s", "first_boot_s", "stock_s", "ratio")


def _coldstart(figures: dict[str, Any]) -> list[str]:
    rows = [
        ["", "seconds"],
        [f"p50 of {figures['wakes']} wakes", f"{figures['p50_s']:.3f}"],
        ["p95", f"{figures['p95_s']:.3f}"],
    ]
    rows += [["p99", f"{figures['p99_s']:.3f}"], ["slowest", f"{figures['max_s']:.3f}"]]
    if "first_boot_s" in figures:
        rows += [
            ["first boot of the revision (bakes, records the canary), not counted", f"{figures['first_boot_s']:.3f}"]
        ]
    if "stock_s" in figures:
        starts = len(figures["stock_all_s"])
        rows += [
            [f"stock vLLM, median of {starts}, same run", f"{figures['stock_s']:.2f}"],
            ["ratio", f"**{figures['ratio']:.0f} ×**"],
        ]
    return [*_table(rows), "", *_waterfall(figures["phases"]), ""]


def _waterfall(phases: dict[str, dict[str, float]]) -> list[str]:
    """Each phase begins where the ones before it ended, by their medians."""
    rows, begin = [["phase", "begins at, s", "p50, s", "p95, s", "p99, s"]], 0.0
    for name in ordered(phases):
        figures = phases[name]
        rows.append([name, f"{begin:.3f}", *(f"{figures[at]:.3f}" for at in ("p50_s", "p95_s", "p99_s"))])
        begin += figures["p50_s"]
    return _table(rows)


def _plain(figures: dict[str, Any]) -> list[str]:
    return [*_table([["", ""], *([key, str(value)] for key, value in figures.items())]), ""] if figures else []


def _table(rows: list[list[str]]) -> list[str]:
    def cells(row: list[str]) -> str:
        return "| " + " | ".join(row) + " |" if any(row) else "|" + " |" * len(row)

    return [cells(rows[0]), "|" + "---|" * len(rows[0]), *map(cells, rows[1:])]
