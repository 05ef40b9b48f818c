"""What a fork inherits and must not share: the table, and how each entry is made the fork's own. Step 8.

A fork is a copy of its standby, down to the state of every random generator. Left alone, two replicas would answer an
unseeded question alike, word for word, and so would one endpoint after each wake. Everything of that kind stands here,
once. It is made anew right after the fork, before anything of the engine runs. What belongs to a process is made anew
again where the engine core forks. What must survive is a new entry nobody thinks of: the test forks twice and compares
what `shown` gives.

CPython, OpenSSL and zmq renew some things at a fork, which the test only watches: `secrets`, `uuid`, `ssl`, the names
of `tempfile`, zmq contexts. Nobody draws from the generators of sympy and of aiohttp's websockets; the session id of
transformers is sent nowhere. The address layout, the stack protector's value and the secret of `hash()` cannot be
changed in a running process. They are the standby's in all its forks.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.resource_tracker
import multiprocessing.shared_memory
import os
import random
import secrets
import ssl
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy.random
import torch

from runtime.engine import seams
from runtime.reap import shared_memory_prefix

SEED_BITS = 32  # numpy takes no larger seed, and vLLM gives one seed to Python, numpy and torch

_c = ctypes.CDLL(None)
_c.random.restype = ctypes.c_long
_c.drand48.restype = ctypes.c_double


@dataclass(frozen=True)
class Replica:
    """Whose process this is."""

    replica_id: str
    folder: str


@dataclass(frozen=True)
class Own:
    """One thing that a fork may not share with another."""

    what: str
    per: Literal["replica", "process"]  # `replica`: its processes share it, and may have to
    make: Callable[[Replica], None]
    shown: Callable[[], Any]  # differs between any two that own it; may use some of it up
    why: str


def engine_seed() -> int:
    """For a replica whose revision names none: vLLM's own default is 0, at every start, and its workers seed all they
    use with it.
    """
    return secrets.randbits(SEED_BITS)


def adopt_replica(replica: Replica) -> None:
    """Right after the standby's fork, before anything of the engine runs. Everything on the list."""
    for own in OWN:
        own.make(replica)


def adopt_process(replica: Replica) -> None:
    """In a process that the replica itself forked: what two processes of one replica may not share either."""
    for own in OWN:
        if own.per == "process":
            own.make(replica)


def _numpy(_: Replica) -> None:
    numpy.random.seed(secrets.randbits(32))


def _torch(_: Replica) -> None:
    # not `torch.seed`: it would also note what CUDA is to do later
    torch.default_generator.manual_seed(secrets.randbits(63))


def _c_library(_: Replica) -> None:
    _c.srandom(ctypes.c_uint(secrets.randbits(32)))  # `rand` has the same state
    _c.srand48(ctypes.c_long(secrets.randbits(32)))


def _authentication(_: Replica) -> None:
    seams.give(multiprocessing.current_process(), "authkey", secrets.token_bytes(32))


def _names(replica: Replica) -> None:
    """vLLM reads these once, makes them up where they are missing, and leaves them to every child."""
    os.environ.pop("VLLM_DIST_IDENT", None)
    os.environ["VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME"] = shared_memory_prefix(replica.replica_id) + "objects"


def _folders(replica: Replica) -> None:
    """Temporary files, ZMQ sockets and shared memory where the agent finds and removes them."""
    os.environ["TMPDIR"] = os.environ["VLLM_RPC_BASE_PATH"] = replica.folder
    seams.replace("folder of temporary files", lambda usual: replica.folder)
    multiprocessing.process.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
    seams.replace("prefix of shared memory", lambda usual: "/" + shared_memory_prefix(replica.replica_id))


def _tracker(_: Replica) -> None:
    """The standby's tracker of shared memory is no child of this process: it would remove what is ours when the standby
    ends.
    """
    tracker: Any = multiprocessing.resource_tracker._resource_tracker
    if tracker._fd is not None:
        os.close(tracker._fd)
        tracker._fd = tracker._pid = None


OWN: tuple[Own, ...] = (
    Own("Python's random", "process", lambda _: random.seed(), lambda: random.getrandbits(64), "request ids of traces, back-off, ports"),
    Own("numpy.random", "process", _numpy, lambda: numpy.random.bytes(8), "samplers and mock data draw from it until a worker seeds it"),
    Own("torch's CPU generator", "process", _torch, lambda: torch.rand(4).tolist(), "sampling without a seed, on CPU"),
    Own("rand, random and drand48 of the C library", "process", _c_library, lambda: (_c.random(), _c.drand48()), "compiled libraries"),
    Own("multiprocessing's key", "replica", _authentication, lambda: bytes(multiprocessing.current_process().authkey),
        "who knows it may speak to a process's managers and listeners"),
    Own("names vLLM leaves in the environment", "replica", _names, lambda: os.environ["VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME"],
        "two replicas would open one another's shared memory"),
    Own("folder and prefix of temporary names", "replica", _folders,
        lambda: (tempfile.gettempdir(), os.environ["VLLM_RPC_BASE_PATH"], multiprocessing.shared_memory._SHM_NAME_PREFIX),  # type: ignore[attr-defined]
        "the agent removes what a dead replica left, by these names"),
    Own("tracker of shared memory", "replica", _tracker,
        lambda: (os.getpid(), multiprocessing.resource_tracker._resource_tracker._pid),  # type: ignore[attr-defined]
        "it removes what it was told of when the process that started it ends"),
)  # fmt: skip

# What is made anew at a fork without us. Watched by the test, since a release may drop it.
BY_THEMSELVES: tuple[tuple[str, Callable[[], Any]], ...] = (
    ("secrets", lambda: secrets.token_bytes(8)),
    ("uuid", lambda: (uuid.uuid4(), uuid.uuid1())),
    ("OpenSSL", lambda: ssl.RAND_bytes(8)),
    ("names of temporary files", lambda: next(tempfile._get_candidate_names())),  # type: ignore[attr-defined]
    ("the seed of an engine", engine_seed),
)
