"""How every process of ours starts another: which Python, from which folder, with which variables. Before step 1.

The failure to survive: a working folder or an environment that was not made for us. A `queue.py` in the folder where
somebody typed `pilotlight up` would be imported in place of Python's. A `VLLM_API_KEY` of another program would lock
every caller out, and a token of another tool would lie in the memory of an engine.

So a child has no folder of its starter's in its import path (`-P`, and `PYTHONSAFEPATH` for its own children). Of the
variables it gets only those that stand here. An operator who needs another in the engines, such as `LD_PRELOAD` or
`NCCL_DEBUG`, names it in `runtime.environment`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path


def names(text: str) -> frozenset[str]:
    """The names in a setting: separated by blanks or commas. Pure."""
    return frozenset(text.replace(",", " ").split())


# of every child: no folder of anybody's is kept busy, and nothing lies there that only its owner may have put there
FOLDER = "/"

# What says how this machine is: places of programs and libraries, time, and which devices are ours.
MACHINE = names(
    "PATH HOME USER LOGNAME TZ TZDIR LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER NVIDIA_VISIBLE_DEVICES "
    "NVIDIA_DRIVER_CAPABILITIES OPENBLAS_CORETYPE OPENBLAS_L2_SIZE"
)
# How a store, or Postgres, elsewhere is reached; and to whom is said that we turn. Nothing of it is an engine's
# business.
NETWORK = names(
    "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy SSL_CERT_FILE SSL_CERT_DIR "
    "PGPASSWORD PGPASSFILE NOTIFY_SOCKET NO_COLOR"
)
PREFIXES = ("PILOTLIGHT_", "AWS_")
ENGINES_SETTINGS = frozenset({"PILOTLIGHT_STATE_DIR", "PILOTLIGHT_RUNTIME__UNTESTED_ENGINE"})
# Python's own text is UTF-8 whatever the locale says; what it starts itself has no working folder in its import path
# either.
ALWAYS = {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours; what lies in the working folder is never it."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(environ: Mapping[str, str], *, also: Collection[str] = ()) -> dict[str, str]:
    """What a process of ours gets of these variables; `also`: further names. Pure."""
    wanted = MACHINE | NETWORK | set(also)
    return {name: value for name, value in environ.items() if name in wanted or name.startswith(PREFIXES)} | ALWAYS


def engine_environment(environ: Mapping[str, str], *, cache: Path, also: Collection[str] = ()) -> dict[str, str]:
    """What a standby and its replicas get: no keys, no way out, and folders of the installation's for whatever is kept.

    Whoever talks a model into telling its environment learns nothing. Caches that would lie in a home that may not
    exist, or in a /tmp that others write to (and would be compiled code that we run), lie in `cache`. A user without a
    name gets one. Looks at whether HOME is there; otherwise pure.
    """
    wanted = MACHINE | ENGINES_SETTINGS | set(also)
    kept = {name: value for name, value in environ.items() if name in wanted}
    home = kept.get("HOME", "")
    if not (home and Path(home).is_absolute() and Path(home).is_dir()):
        kept["HOME"] = str(cache)
    who = kept.get("USER") or kept.get("LOGNAME") or str(os.geteuid())
    places = {
        "TMPDIR": "tmp",
        "XDG_CACHE_HOME": "xdg",
        "XDG_CONFIG_HOME": "xdg",
        "HF_HOME": "hf",
        "VLLM_CACHE_ROOT": "vllm",
        "VLLM_CONFIG_ROOT": "vllm",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "TRITON_CACHE_DIR": "triton",
    }
    return (
        kept | {"USER": who, "LOGNAME": who} | {name: str(cache / folder) for name, folder in places.items()} | ALWAYS
    )
