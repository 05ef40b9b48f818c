"""The tokenizer is loaded while the engine core builds the engine, not before it: two processes, two cores. Step 8.

vLLM's AsyncLLM loads the tokenizer (0.4 s with 151,000 tokens), then forks the engine core and waits for it. Here the
core is forked first, and the tokenizer loaded as soon as the core has been sent all it needs. No thread is involved:
one would hold the interpreter's lock for 0.1 s at a time, while the core waits for an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq
from vllm.v1.engine.core_client import AsyncMPClient, EngineCoreClient
from vllm.v1.executor.abstract import Executor

from runtime.engine import seams


def load_the_tokenizer_beside_the_engine_core(*, log_stats: bool) -> None:
    """For the one engine this process will build: what AsyncLLM does first now does both, and what it does later finds
    it done.
    """
    make_client = EngineCoreClient.make_async_mp_client
    clients: list[AsyncMPClient] = []

    def beside(load_renderer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def renderer_from_config(config: Any) -> Any:
            renderers: list[Any] = []
            _once_the_core_is_answered(lambda: renderers.append(load_renderer(config)))
            client = make_client(config, Executor.get_class(config), log_stats)
            clients.append(client)
            (client._renderer,) = renderers
            renderers[0].start_mm_warmup_in_background()
            return renderers[0]

        return renderer_from_config

    seams.replace("renderer", beside)
    seams.replace("client of the engine core", lambda make: staticmethod(lambda *args, **kwargs: clients.pop()))


def _once_the_core_is_answered(meanwhile: Callable[[], None]) -> None:
    """Have `meanwhile` done in the middle of vLLM's wait: the core has said hello and been told where to connect."""

    class Handshake(zmq.Socket[bytes]):
        def send_multipart(self, *args: Any, **kwargs: Any) -> Any:
            sent = super().send_multipart(*args, **kwargs)
            meanwhile()
            return sent

    def meanwhile_too(wait: Callable[..., None]) -> Callable[..., None]:
        def wait_for_engine_startup(handshake: Any, *args: Any) -> None:
            seams.give(handshake, "__class__", Handshake)
            wait(handshake, *args)

        return wait_for_engine_startup

    seams.replace("wait for the engine core", meanwhile_too)
