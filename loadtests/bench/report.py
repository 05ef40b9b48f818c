"""RESULTS.md from results.json: every section with its hardware, nothing typed by hand but the words around it."""

from __future__ import annotations

from typing import Any

TITLES = {
    "coldstart_demo": "Cold start: the demo model, from zero to the first token over HTTPS",
    "coldstart_tiny": "Cold start: `tiny` (27M-parameter Llama, random weights)",
    "coldstart_qwen3": "Cold start: `qwen3-0.6b` (596M parameters, 1.2 GB bf16, random weights)",
    "relay": "Warm path: the router beside nginx and vllm-router, same back end and client, same run",
    "simultaneous": "Fifty simultaneous calls to an endpoint at zero",
    "recovery": "Kill -9, and the time until a call is answered again",
    "metering": "Usage rows beside vLLM's own counters: three wakes, streaming and not, 10 % aborted",
    "memory": "Ten endpoints at zero: proportional memory (PSS) of every process",
    "newcomer": "A fresh clone on a machine with an empty package cache",
}


def render(results: dict[str, Any]) -> str:
    parts = [
        "# Results",
        "",
        "Made by `make bench` from `results.json`. Ratios are of one run; absolute times drift on shared machines.",
        "",
    ]
    for name in sorted(results):
        parts += _section(name, results[name])
    return "\n".join(parts).rstrip() + "\n"


def _section(name: str, figures: dict[str, Any]) -> list[str]:
    machine = figures["hardware"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, GPU: {machine['gpu']}, Python {machine['python']}"
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    lines = [f"## {TITLES.get(name, name)}", "", f"{machine['date']}; {where}; {versions}.", ""]
    if name.startswith("coldstart"):
        lines += _coldstart(figures)
    else:
        lines += _plain({key: value for key, value in figures.items() if key != "hardware"})
    return [*lines, ""]


def _coldstart(figures: dict[str, Any]) -> list[str]:
    lines = ["| | seconds |", "|---|---|"]
    lines += [f"| p50 of {figures['wakes']} wakes | {figures['p50_s']:.3f} |", f"| p95 | {figures['p95_s']:.3f} |"]
    lines += [f"| p99 | {figures['p99_s']:.3f} |", f"| slowest | {figures['max_s']:.3f} |"]
    lines += [f"| first boot of the revision (bakes, records the canary), not counted | {figures['first_boot_s']:.3f} |"]
    if "stock_s" in figures:
        starts = len(figures["stock_all_s"])
        lines += [f"| stock vLLM, median of {starts}, same run | {figures['stock_s']:.2f} |", f"| ratio | **{figures['ratio']:.0f} ×** |"]
    lines += ["", "| phase | p50, s | p95, s | p99, s |", "|---|---|---|---|"]
    ordered = sorted(figures["phases"].items(), key=lambda item: -item[1]["p50_s"])
    lines += [f"| {name} | {told['p50_s']:.3f} | {told['p95_s']:.3f} | {told['p99_s']:.3f} |" for name, told in ordered]
    return lines


def _plain(figures: dict[str, Any]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in figures.items())]
