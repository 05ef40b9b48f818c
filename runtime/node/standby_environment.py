"""The environment of a standby, and so of every replica that is forked from it: an allow-list, and settings of ours.
Before step 7. Pure.

The failure to survive is a secret of the platform in an engine's environment: of ours only what is named gets there.
"""

from __future__ import annotations

import os

from pilotlight import children
from pilotlight.settings import Settings
from runtime.wire import MOST_STOPS


def standby_environ(settings: Settings, device: str) -> dict[str, str]:
    """One compute thread (a fork must inherit no OpenMP pool), no network, caches in the state folder.

    OpenMP's threads sleep while they wait: spinning ones cost nothing on an idle machine, but beside two busy processes
    on two cores a first token took 1.9 s with them and 0.8 s without. On CPU nothing is compiled while vLLM's samplers
    are imported: the first answer with log-probabilities, or sampled at all, would wait 2 to 18 s for a compiler. On a
    GPU compiled graphs are what makes it fast.
    """
    cache = settings.paths.state / "cache"
    kept = children.engine_environment(os.environ, cache=cache, also=children.names(settings.runtime.environment))
    ours = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_MAX_STOP_STRINGS": str(MOST_STOPS),
        "DO_NOT_TRACK": "1",
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
    }
    ours["PILOTLIGHT_RUNTIME__UNTESTED_ENGINE"] = str(settings.runtime.untested_engine).lower()
    if device == "cpu":
        ours["TORCH_COMPILE_DISABLE"] = "1"
    return {"VLLM_LOGGING_LEVEL": "WARNING"} | kept | ours
