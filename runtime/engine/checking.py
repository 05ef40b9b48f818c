"""Whether an engine would take a revision's arguments, by its own parser and configuration. Step 6.

A deploy asks before anything moves. A child of the standby answers. What must survive is the standby. vLLM changes its
process while it builds a configuration, so that is done in a fork that ends right after. One that hangs is ended by its
alarm.
"""

from __future__ import annotations

import difflib
import os
import signal
from typing import Any

from pydantic import ValidationError
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.model_executor.model_loader import get_model_loader
from vllm.usage.usage_lib import UsageContext

from runtime.argument_names import too_wide
from runtime.control import Check, Checked, Control, Fork
from runtime.engine import arguments
from runtime.engine.rehearsed import REFUSED, Rehearsal
from runtime.reason import first_sentences

CHECK_SECONDS = 10  # a child that takes longer is ended, and its deploy is told that nothing was checked
KV_CACHE_BYTES = 1 << 30  # as good as any: how much there is, the node decides at a start
LONGEST_REASON = 400  # characters


def answer(rehearsal: Rehearsal, order: Check, control: Control) -> None:
    """In a fork of the standby; never returns."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHECK_SECONDS)
        control.send(Checked(check_id=order.check_id, reason=reason(rehearsal, order)))
    finally:
        os._exit(0)


def reason(rehearsal: Rehearsal, order: Check) -> str:
    """Why vLLM would not start with these, in one line; "" where it would, as far as can be told without building
    it.
    """
    try:
        given = arguments.arguments(_fork(order), device=rehearsal.device, version=rehearsal.version, seed=0)
        if misspelt := _misspelt(rehearsal, order):
            return misspelt
        if rehearsal.device == "cpu" and (spread := too_wide(order.engine_args, cpus=len(os.sched_getaffinity(0)))):
            return spread
        parsed = rehearsal.parser.parse_args(arguments.words(given))
        validate_parsed_serve_args(parsed)
        validate_api_server_args(parsed)
        if order.snapshot:
            config = AsyncEngineArgs.from_cli_args(parsed).create_engine_config(
                usage_context=UsageContext.OPENAI_API_SERVER
            )
            get_model_loader(config.load_config)
    except ValidationError as error:
        return _line("; ".join(_of_the_configuration(found) for found in error.errors()))
    except Exception as error:
        return _line((str(error) or type(error).__name__).removeprefix(REFUSED))  # who asked says so
    return ""


def _fork(order: Check) -> Fork:
    """The start that these arguments would come to."""
    return Fork(
        replica_id=order.check_id, endpoint="check", snapshot=order.snapshot or "check", task=order.task, engine_args=order.engine_args,
        slots=1, folder="", baked="", journal="", canary="", log="", threads=1, kv_cache_bytes=KV_CACHE_BYTES, max_model_len=0, asked_at=0.0,
    )  # fmt: skip


def _misspelt(rehearsal: Rehearsal, order: Check) -> str:
    """What vLLM's parser would let pass: the beginning of a name for the name, and a flag's value for the name of a
    model.
    """
    options = {
        option.removeprefix("--"): action
        for option, action in rehearsal.parser._option_string_actions.items()
        if "--" in option
    }
    for name, value in arguments.revisions(_fork(order)).items():
        plain = name.split(".")[0].removesuffix("+")
        if plain == arguments.GRAPHS_WHEN_IDLE:
            continue
        if plain not in options:
            near = difflib.get_close_matches(plain, options, n=1)
            return f"engine argument {name}: vLLM {rehearsal.version} has none of that name{f'; is it {near[0]}?' if near else ''}"
        if options[plain].nargs == 0 and not isinstance(value, bool):
            return f"engine argument {name}: write true or false, not {value!r}"
    return ""


def _of_the_configuration(found: Any) -> str:
    """One of pydantic's findings: where, and what."""
    where = ".".join(map(str, found["loc"])).replace("_", "-")
    return f"engine argument {where}: {found['msg']}" if where else str(found["msg"]).removeprefix("Value error, ")


def _line(text: Any) -> str:
    """The first sentences of an error that may have pages."""
    return first_sentences(str(text), LONGEST_REASON)
