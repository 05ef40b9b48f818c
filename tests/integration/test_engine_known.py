"""Packing and deploying: what vLLM and transformers have by name is in a table of ours. A release of them with a new
argument or kind of model fails here.
"""

from __future__ import annotations

import re

from runtime.argument_names import KNOWN_BEGINNINGS, REFUSED, _inner
from snapshots.known import known
from tests.integration import engine_probe
from tests.integration.forks import call


def test_refused_names_are_the_engines_and_no_beginning_of_one_is_an_argument_that_may_be_set() -> None:
    options = set(call(engine_probe.options))
    assert REFUSED.keys() <= options
    beginnings = {name for name in options - REFUSED.keys() for refused in REFUSED if refused.startswith(name)}
    assert beginnings == KNOWN_BEGINNINGS


# Fields of the engine's configuration that are named like something that opens or executes, and do neither.
HARMLESS = {"LoRAConfig.target_modules"}
# Refused by the name of their own argument, or of the whole configuration they are in.
OF_REFUSED = {
    "ProfilerConfig",
    "KVTransferConfig",
    "ECTransferConfig",
    "EncoderCacheManagerConfig",
    "LoggingConfig",
    "WeightTransferConfig",
}


def test_what_the_engines_configuration_opens_or_executes_is_refused_as_a_key_too() -> None:
    """A field that a release adds, and that is named as such fields are, is in our patterns or in a list above."""
    named = re.compile(r".*(path|dir|file|uri|url|cls|plugin|module|qualname|hook|passes|trust_remote).*")
    texts = call(engine_probe.texts_of_the_configuration)
    asked = [(kind, field) for kind, field in texts if kind not in OF_REFUSED and named.fullmatch(field)]
    assert len(asked) > 10
    free = [
        f"{kind}.{field}"
        for kind, field in asked
        if field.replace("_", "-") not in REFUSED and not _inner("x", field, "x")
    ]
    assert set(free) <= HARMLESS


def test_what_packing_knows_of_the_engine_is_what_the_engine_knows() -> None:
    theirs = call(engine_probe.known)
    assert known("model_type") == theirs["model_type"]
    assert known("quantization") == theirs["quantization"]
    assert theirs["kernels of four and eight bits on CPUs"] == [False] * 3, (
        "then these may be deployed on CPUs: snapshots/known.py"
    )
    assert known("draft") | known("pooling") <= theirs["architecture"]
    assert not (known("draft") | known("pooling")) & theirs["makes text"]
    assert theirs["no tokenizer"] == set()
