"""The arguments of a replica's vLLM server, and by which loader its weights come. Step 8. Pure.

Our defaults come first, the revision's engine arguments over them, then what is not theirs to set. The loader is ours
to choose only where a revision names none: our loaders and vLLM's refuse each other's settings. What is chosen
elsewhere is reported in the note of the phase `load`, which nobody else would write then.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from runtime import logprobs
from runtime.argument_names import plain_name
from runtime.context import VECTORS
from runtime.control import Fork
from runtime.loader.formats import MAPPED, RING
from runtime.tasks import KINDS

LOAD_FORMAT, ITS_SETTINGS = "load-format", "model-loader-extra-config"
MEDIA_HOSTS = "allowed-media-domains"
GRAPHS_WHEN_IDLE = "graphs-when-idle"  # ours, among the engine's: vLLM does not know it

NOWHERE = "no-host.invalid"  # a name that no URL has: without one vLLM fetches media from anywhere

Given = dict[str, str | int | float | bool]


def arguments(fork: Fork, *, device: str, version: str, seed: int) -> Given:
    """Names without their dashes, and values; True and False are flags. `seed`: this replica's own. Raises
    ValueError.
    """
    given: Given = {
        "generation-config": "auto",
        "max-num-seqs": fork.slots,
        "enable-prompt-tokens-details": True,
        "seed": seed,
    }
    given |= KINDS[fork.task].engine_args
    if device == "cuda" and fork.parks:
        given["enable-sleep-mode"] = True
    if device == "cpu":
        given |= {"enforce-eager": True, "kv-cache-memory-bytes": fork.kv_cache_bytes}
        if KINDS[fork.task].pools:
            given["dtype"] = VECTORS
        if fork.max_model_len:
            given["max-model-len"] = fork.max_model_len
    if not own_loader_reason(fork):
        given |= _way(fork, device)
    given |= _allowed(fork)
    given |= {name: value for name, value in revisions(fork).items() if name != GRAPHS_WHEN_IDLE}
    given |= {"model": fork.snapshot, "served-model-name": fork.endpoint, "disable-fastapi-docs": True}
    # vLLM would hash its whole configuration for each of six handlers (45 ms).
    given |= {"fingerprint-mode": "custom", "fingerprint-value": f"vllm-{version}-{fingerprint(fork)}"}
    return given


def words(given: Given) -> list[str]:
    """As a command line."""
    spoken: list[str] = []
    for name, value in given.items():
        listed = str(value).split() if name == MEDIA_HOSTS else [str(value)]
        spoken += [f"--{name}"] if value is True else [f"--no-{name}"] if value is False else [f"--{name}", *listed]
    return spoken


def own_loader_reason(fork: Fork) -> str:
    """Why vLLM's own loaders are used, for the phases; "" where ours is. Raises ValueError."""
    asked = revisions(fork)
    if asked.get(LOAD_FORMAT) in (MAPPED, RING):
        return ""
    if LOAD_FORMAT in asked:
        return f"{LOAD_FORMAT} {asked[LOAD_FORMAT]}"
    if ITS_SETTINGS in asked:
        raise ValueError(
            f"{ITS_SETTINGS} is for a {LOAD_FORMAT} and none is named: set it too, such as {LOAD_FORMAT}=auto"
        )
    return "after a canary that differed" if fork.plain else ""


def graphs_when_idle(fork: Fork, *, device: str) -> bool:
    """Whether CUDA graphs are captured only once nothing runs; a CPU has none. Raises ValueError."""
    asked = revisions(fork).get(GRAPHS_WHEN_IDLE, False)
    if not isinstance(asked, bool):
        raise ValueError(f"{GRAPHS_WHEN_IDLE}={asked}: write true or false")
    return asked and device == "cuda"


def revisions(fork: Fork) -> Given:
    """The revision's engine arguments, which may be spelt either way."""
    return {plain_name(name): value for name, value in fork.engine_args.items()}


def fingerprint(fork: Fork) -> str:
    """Eight hex digits over what decides an answer: the snapshot and the engine's arguments."""
    deciding = json.dumps([Path(fork.snapshot).name, fork.task, fork.engine_args], sort_keys=True)
    return hashlib.sha256(deciding.encode()).hexdigest()[:8]


def _allowed(fork: Fork) -> Given:
    """What the endpoint allows its callers, as the engine is to know it; the router has refused the rest before."""
    given: Given = {MEDIA_HOSTS: " ".join(fork.media_hosts) or NOWHERE}
    if logprobs.served(fork.allow):
        given["max-num-batched-tokens"] = max(logprobs.TOKENS, fork.slots)
    if "chat_template" in fork.allow:
        given["trust-request-chat-template"] = True
    return given


def _way(fork: Fork, device: str) -> Given:
    if device == "cuda":
        return {LOAD_FORMAT: RING}
    return {LOAD_FORMAT: MAPPED, ITS_SETTINGS: json.dumps({"baked": fork.baked, "arriving": fork.arriving})}
