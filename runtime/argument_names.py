"""Engine arguments that no revision may set, by name, with what to do instead. Asked at a deploy and by a node. Pure.

An engine argument of a revision reaches vLLM's own serve command. Some belong to Pilotlight, which sets them for every
replica. Some would have the replica listen, execute or read where nobody expects it. Some break what is measured and
billed. They are refused here without an engine; whether the rest is spelt right, the engine's own parser says
(`runtime/engine/checking.py`).

What must survive: vLLM's parser takes any unambiguous beginning of a name, in either spelling, so both are refused too.
What is refused by name must not come in as a key of another argument's value. A machine may allow, by name, what
executes or opens.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

Value = str | int | float | bool
Judge = Callable[[Value], bool]  # whether this value is refused

OURS = "is set by Pilotlight for every replica"
LISTENS = "would have a replica listen, or answer, otherwise than its router expects"
EXECUTES = "would execute code that is not the engine's"
OPENS = "would open files of the node that are not the snapshot's"
SPREADS = "would spread one replica over processes that Pilotlight does not start"
MISCOUNTED = "would put more than one token into an event, by which a broken stream is counted and billed"
UNCOUNTED = "would leave the engine's tokens uncounted, and so unbilled"

LEAVE_OUT = "leave it out"
PACK = "put it into the model folder and deploy that"
SCALE = "use tensor-parallel-size for one replica over several devices, min_replicas and max_replicas for more replicas"


def _always(value: Value) -> bool:
    return True


def _is_path(value: Value) -> bool:
    """A chat template is given as text, with its braces, or as a path to one."""
    return "{" not in str(value)


def _is_folder(value: Value) -> bool:
    return value not in ("auto", "vllm")


def _on(value: Value) -> bool:
    return str(value).lower() != "false"


def _is_no_loader_of_files(value: Value) -> bool:
    """Of vLLM's load formats these read the snapshot, or nothing; the others go elsewhere, or take pickles."""
    return value not in (*LOADERS, "pilotlight", "pilotlight_ring")


def _is_not_native(value: Value) -> bool:
    return value != "native"


LOADERS = ("auto", "hf", "safetensors", "fastsafetensors", "instanttensor", "mistral", "sharded_state", "dummy")


def _each(names: str, why: str, instead: str, judge: Judge = _always) -> dict[str, tuple[str, str, Judge]]:
    return dict.fromkeys(names.split(), (why, instead, judge))


REFUSED: Mapping[str, tuple[str, str, Judge]] = {
    **_each("model", OURS, "deploy another --model or --digest"),
    **_each("served-model-name", OURS, "it is the endpoint's name"),
    **_each("revision code-revision tokenizer-revision hf-token download-dir", OURS, "the snapshot's digest names every byte of it"),
    **_each("disable-fastapi-docs enable-offline-docs fingerprint-mode fingerprint-value device-ids shutdown-timeout", OURS, LEAVE_OUT),
    **_each("allowed-media-domains", OURS, "use the endpoint's media_hosts"),
    **_each("trust-request-chat-template", OURS, 'use allow = ["chat_template"]'),
    **_each("enable-sleep-mode", OURS, "use the endpoint's zero=parked"),
    **_each("host port uds grpc grpc-port root-path headless enable-ssl-refresh", LISTENS, LEAVE_OUT),
    **_each("ssl-keyfile ssl-certfile ssl-ca-certs ssl-cert-reqs ssl-ciphers", LISTENS, "TLS is the router's: see `pilotlight config`"),
    **_each("api-key", LISTENS, "use `pilotlight keys create`"),
    **_each("allow-credentials allowed-origins allowed-methods allowed-headers", LISTENS, LEAVE_OUT),
    **_each("tool-server kv-events-config", LISTENS, LEAVE_OUT),
    **_each("h11-max-header-count h11-max-incomplete-event-size", LISTENS, LEAVE_OUT),
    **_each("trust-remote-code", EXECUTES, "use an architecture that vLLM knows", _on),
    **_each("worker-cls worker-extension-cls scheduler-cls logits-processors middleware model-class-overrides", EXECUTES, LEAVE_OUT),
    **_each("tool-parser-plugin reasoning-parser-plugin io-processor-plugin", EXECUTES, "use one of vLLM's own parsers"),
    **_each("kv-transfer-config ec-transfer-config ec-manager-config weight-transfer-config", EXECUTES, LEAVE_OUT),
    **_each("chat-template", OPENS, f"give the template itself, or {PACK}", _is_path),
    **_each("generation-config", OPENS, f"write auto or vllm, or {PACK}", _is_folder),
    **_each("tokenizer hf-config-path", OPENS, PACK),
    **_each("allowed-local-media-path config log-config-file logging-config profiler-config", OPENS, LEAVE_OUT),
    **_each("lora-modules default-mm-loras", OPENS, "merge the adapter into the model, and deploy that"),
    **_each("spec-model", OPENS, "use a speculative-config whose method needs no further model, such as ngram"),
    **_each("load-format", OPENS, f"use one of {', '.join(LOADERS)}", _is_no_loader_of_files),
    **_each("kv-offloading-backend", EXECUTES, "use native", _is_not_native),
    **_each("ray-workers-use-nsight", EXECUTES, LEAVE_OUT),
    **_each("mm-encoder-fp8-scale-path mm-encoder-fp8-scale-save-path", OPENS, LEAVE_OUT),
    **_each("api-server-count distributed-executor-backend nnodes node-rank master-addr master-port", SPREADS, SCALE),
    **_each("data-parallel-size data-parallel-size-local data-parallel-rank data-parallel-start-rank data-parallel-address", SPREADS, SCALE),
    **_each("data-parallel-rpc-port data-parallel-backend data-parallel-external-lb data-parallel-hybrid-lb", SPREADS, SCALE),
    **_each("data-parallel-multi-port-external-lb data-parallel-supervisor-port enable-elastic-ep", SPREADS, SCALE),
    **_each("tokens-only skip-tokenizer-init", UNCOUNTED, LEAVE_OUT, _on),
    **_each("enable-flash-late-interaction", UNCOUNTED, LEAVE_OUT, _on),
    **_each("stream-interval", MISCOUNTED, LEAVE_OUT),
    **_each("help", "is not an argument of an engine", LEAVE_OUT),
}  # fmt: skip


# Keys inside an argument's value, whose argument is otherwise a revision's own: by their ends, and by name.
OPENING = re.compile(r".*_(path|dir|file|files|uri|url)|tensorizer_.*|pylogging_config_file", re.ASCII)
EXECUTING = re.compile(r".*_(cls|plugin|module|class|qualname|hook)|inductor_passes|trust_remote_code", re.ASCII)
ONLY_IN = {
    ("speculative-config", "model"): OPENS,
    ("compilation-config", "backend"): EXECUTES,
}  # these mean something else elsewhere
SPREADING = ("tensor-parallel-size", "pipeline-parallel-size", "prefill-context-parallel-size")
BACKENDS = ("", "eager", "inductor")


def refusal(engine_args: Mapping[str, Value], allowed: Collection[str] = ()) -> str:
    """Why these are not to be deployed, the first by name and what to do instead; "" where nothing is against them.

    `allowed`: names of those that execute or open files, and may here all the same.
    """
    for given, value in engine_args.items():
        name = spelt(given)
        positive = name.removeprefix("no-")
        for refused, (why, instead, judge) in REFUSED.items():
            if why in (EXECUTES, OPENS) and refused in allowed:
                continue
            if name == refused and judge(value):
                return f"engine argument {given}: it {why}; {instead}{_or_allow(refused, why)}"
            if positive == refused != name:
                return f"engine argument {given}: it {why}; {instead}{_or_allow(refused, why)}"
            if name not in REFUSED and refused.startswith(name) and name not in KNOWN_BEGINNINGS:
                return f"engine argument {given}: it is the beginning of {refused}, which {why}; write names in full"
        for key, inner in _keys(given, value) if name not in allowed else ():
            if why := _inner(name, key, inner):
                return f"engine argument {given}: its {key} {why}; {LEAVE_OUT}{_or_allow(name, why)}"
    return ""


def executes_or_opens(engine_args: Mapping[str, Value], allowed: Collection[str] = ()) -> str:
    """Of what `refusal` says only this: a node asks it of what it is told to start, whoever let that pass."""
    risky = {
        name: value
        for name, value in engine_args.items()
        if any(why in refusal({name: value}) for why in (EXECUTES, OPENS))
    }
    return refusal(risky, allowed)


def too_wide(engine_args: Mapping[str, Value], *, cpus: int) -> str:
    """Why a replica would wait for ever for more CPUs than there are; "" where it would not. Of GPUs vLLM itself knows
    how many.
    """
    shares = {
        given: int(value)
        for given, value in engine_args.items()
        if spelt(given) in SPREADING and str(value).isdecimal()
    }
    wide = math.prod(shares.values())
    asked = ", ".join(f"{given}={share}" for given, share in shares.items() if share > 1)
    return (
        f"engine argument {asked}: a replica would spread over {wide} CPUs, and the node has {cpus}; ask for fewer"
        if wide > cpus
        else ""
    )


def _or_allow(name: str, why: str) -> str:
    return f", or allow it on this machine (runtime.allow_engine_args, {name})" if why in (EXECUTES, OPENS) else ""


def _inner(name: str, key: str, value: Any) -> str:
    """What a key of an argument's value would do; "" where it is the revision's own to set."""
    if why := ONLY_IN.get((name, key), ""):
        return "" if key == "backend" and value in BACKENDS else why
    return EXECUTES if EXECUTING.fullmatch(key) and value else OPENS if OPENING.fullmatch(key) and value else ""


def _keys(given: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The keys an argument sets within its value: those behind dots in its name, and those of a JSON value, however
    deep.
    """
    for key in given.split(".")[1:]:
        yield key.removesuffix("+").replace("-", "_"), value
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return  # no JSON: a chat template, or what the engine's parser refuses
    pending = [value] if isinstance(value, dict | list) else []
    while pending:
        part = pending.pop()
        for key, inner in part.items() if isinstance(part, dict) else ():
            yield str(key).replace("-", "_"), inner
        pending += [
            inner for inner in (part.values() if isinstance(part, dict) else part) if isinstance(inner, dict | list)
        ]


NAME = re.compile(r"[a-z0-9][a-z0-9-]*(\.[A-Za-z0-9_-]+)*\+?")


def plain_name(name: str) -> str:
    """With hyphens, as vLLM's parser takes it too. What is behind a dot is a key of the argument's value, which has one
    spelling only.
    """
    argument, dot, key = name.partition(".")
    return argument.replace("_", "-") + dot + key


def one_spelling(engine_args: Mapping[str, Value]) -> dict[str, Value]:
    """The arguments of one request with names spelt as `plain_name` has them. Raises ValueError where a name is none,
    or comes twice.
    """
    found: dict[str, str] = {}
    for given in engine_args:
        name = plain_name(given)
        if not NAME.fullmatch(name):
            raise ValueError(
                f"{given!r} is not a name of an argument: use a-z, 0-9, - and _, without leading dashes, such as max-model-len"
            )
        if name in found:
            raise ValueError(f"{found[name]} and {given} are the same argument: give one of them")
        found[name] = given
    return {name: engine_args[given] for name, given in found.items()}


def spelt(name: str) -> str:
    """As vLLM's parser knows it: dashes, without what of a JSON value it sets (`speculative-config.method`, `x+`)."""
    return name.replace("_", "-").strip().lstrip("-").split(".")[0].removesuffix("+").split("=")[0].casefold()


KNOWN_BEGINNINGS = frozenset({"reasoning-parser"})  # names of vLLM that are also the beginning of a refused one
