"""Engine arguments that no revision may set, by name, with what to do instead. Asked at a deploy, before anything moves. Pure.

An engine argument of a revision reaches vLLM's own serve command. Some of those belong to Pilotlight, which sets them for every
replica; some would have the replica listen, execute or read where nobody expects it; some break what is measured and billed. They
are refused here without an engine; whether the rest is spelt right, the engine's own parser says (`runtime/engine/checking.py`). What
must survive: vLLM's parser takes any unambiguous beginning of a name, and names in either spelling, so both are refused with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

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


def _each(names: str, why: str, instead: str, judge: Judge = _always) -> dict[str, tuple[str, str, Judge]]:
    return dict.fromkeys(names.split(), (why, instead, judge))


REFUSED: Mapping[str, tuple[str, str, Judge]] = {
    **_each("model", OURS, "deploy another --model or --digest"),
    **_each("served-model-name", OURS, "it is the endpoint's name"),
    **_each("revision code-revision tokenizer-revision hf-token download-dir", OURS, "the snapshot's digest names every byte of it"),
    **_each("disable-fastapi-docs enable-offline-docs fingerprint-mode fingerprint-value device-ids shutdown-timeout", OURS, LEAVE_OUT),
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
    **_each("mm-encoder-fp8-scale-path mm-encoder-fp8-scale-save-path", OPENS, LEAVE_OUT),
    **_each("api-server-count distributed-executor-backend nnodes node-rank master-addr master-port", SPREADS, SCALE),
    **_each("data-parallel-size data-parallel-size-local data-parallel-rank data-parallel-start-rank data-parallel-address", SPREADS, SCALE),
    **_each("data-parallel-rpc-port data-parallel-backend data-parallel-external-lb data-parallel-hybrid-lb", SPREADS, SCALE),
    **_each("data-parallel-multi-port-external-lb data-parallel-supervisor-port enable-elastic-ep", SPREADS, SCALE),
    **_each("tokens-only skip-tokenizer-init", UNCOUNTED, LEAVE_OUT, _on),
    **_each("stream-interval", MISCOUNTED, LEAVE_OUT),
    **_each("help", "is no argument of an engine", LEAVE_OUT),
}  # fmt: skip


def refusal(engine_args: Mapping[str, Value]) -> str:
    """Why these are not to be deployed, the first by name and what to do instead; "" where nothing is against them."""
    for given, value in engine_args.items():
        name = spelt(given)
        positive = name.removeprefix("no-")
        for refused, (why, instead, judge) in REFUSED.items():
            if name == refused and judge(value):
                return f"engine argument {given}: it {why}; {instead}"
            if positive == refused != name:
                return f"engine argument {given}: it {why}; {instead}"
            if name != refused and refused.startswith(name) and name not in KNOWN_BEGINNINGS:
                return f"engine argument {given}: it is the beginning of {refused}, which {why}; write names in full"
    return ""


NAME = re.compile(r"[a-z0-9][a-z0-9-]*(\.[A-Za-z0-9_-]+)*\+?")


def plain_name(name: str) -> str:
    """With hyphens, as vLLM's parser takes it too. What is behind a dot is a key of the argument's value, which has one spelling only."""
    argument, dot, key = name.partition(".")
    return argument.replace("_", "-") + dot + key


def one_spelling(engine_args: Mapping[str, Value]) -> dict[str, Value]:
    """The arguments of one request with names spelt as `plain_name` has them. Raises ValueError where a name is none, or comes twice."""
    found: dict[str, str] = {}
    for given in engine_args:
        name = plain_name(given)
        if not NAME.fullmatch(name):
            raise ValueError(f"{given!r} is no name of an argument: use a-z, 0-9, - and _, without leading dashes, such as max-model-len")
        if name in found:
            raise ValueError(f"{found[name]} and {given} are the same argument: give one of them")
        found[name] = given
    return {name: engine_args[given] for name, given in found.items()}


def spelt(name: str) -> str:
    """As vLLM's parser knows it: dashes, without what of a JSON value it sets (`speculative-config.method`, `x+`)."""
    return name.replace("_", "-").strip().lstrip("-").split(".")[0].removesuffix("+").split("=")[0].casefold()


KNOWN_BEGINNINGS = frozenset({"reasoning-parser"})  # names of vLLM that are also the beginning of a refused one
