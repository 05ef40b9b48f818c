"""Where the engine's tokens are counted: in vLLM's output processor, which sees every one of them once. Step 12.

Its table of running sequences is ours. What comes into it is opened in the journal, and what goes out of it is closed,
by whatever way vLLM takes. Those are an end, an abort that calls itself for the choices of `n`, and a failed start. The
counts are those of the answer's own `usage`: a prompt counts once, with what the first of its sequences found cached.
Tokens that nobody asked for or sees (`max_tokens` 0 with `echo`) count nowhere, neither here nor in vLLM's counters.

The failure to survive is a hook that vLLM does not call any more. So the canary goes the same way, and its own count is
compared before every `ready`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from vllm.exceptions import VLLMValidationError
from vllm.v1.engine import EngineCoreOutput, FinishReason
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor, RequestState
from vllm.v1.engine.parallel_sampling import ParentRequest

from runtime.engine import seams
from runtime.engine.prefill_progress import Reading, note_what_is_read
from runtime.errors import MeteringBroken
from runtime.serving.usage import CANARY, Counts, Journal

ABANDONED_SECONDS = 1.0  # vLLM stops what nobody waits for by itself; what it has forgotten is stopped for it
UNSEEN = "pilotlight_unseen"  # in a request's extra arguments: the one token vLLM makes for it is not asked for
UNCOMPILED = (
    "The grammar or schema of this request cannot be compiled. Change 'response_format' or 'structured_outputs'."
)

log = logging.getLogger("vllm.pilotlight")


@dataclass(slots=True, eq=False)
class Counted:
    """One sequence, beside vLLM's own state of it."""

    state: RequestState
    reading: Reading
    guided: bool
    unseen: bool
    prefilled: bool = False
    finish: str = ""

    @property
    def must_step(self) -> bool:
        """Whether the engine must be seen to step for it. One whose grammar is being compiled may wait for minutes, and
        rightly; from outside the engine core nobody sees when that is done, so until its prompt is read it is waited
        for by none.
        """
        return self.prefilled or not self.guided

    def counts(self) -> Counts:
        """A prompt counts once it has been read, as in `vllm:prompt_tokens_total`, and until then the parts of it that
        were.
        """
        state = self.state
        if not self.prefilled:
            return Counts(*self.reading.of(state.request_id))
        made = state.detokenizer.num_output_tokens() if state.detokenizer else 0
        return Counts(state.prompt_len, state.num_cached_tokens, made)


class States(dict[str, RequestState]):
    """vLLM's table of running sequences, by its own ids. Whatever leaves it is closed."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal
        self.counted: dict[str, Counted] = {}

    def pop(self, sequence_id: str, *default: Any) -> Any:
        state = super().pop(sequence_id, *default)
        self._gone(sequence_id)
        return state

    def __delitem__(self, sequence_id: str) -> None:
        super().__delitem__(sequence_id)
        self._gone(sequence_id)

    def _gone(self, sequence_id: str) -> None:
        if counted := self.counted.pop(sequence_id, None):
            self._journal.closed(sequence_id, counted.finish or "abort")


class Metered(OutputProcessor):  # type: ignore[misc]
    """vLLM's own, and counts. `journal` and `reading` are given once, before the engine is built."""

    journal: Journal
    reading: Reading
    unlisted = False  # what is asked now does not appear in vLLM's counters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request_states = self._states = States(self.journal)
        # of the prompt, as its first sequence found it
        self._cached: WeakKeyDictionary[ParentRequest, int] = WeakKeyDictionary()

    def must_step(self) -> int:
        """Sequences in work that the engine must be seen to step for."""
        return sum(counted.must_step for counted in self._states.counted.values())

    def add_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        fresh = request.request_id not in self.request_states
        super().add_request(request, *args, **kwargs)
        if fresh:
            params = request.sampling_params
            counted = Counted(
                self.request_states[request.request_id],
                self.reading,
                guided=params is not None and params.structured_outputs is not None,
                unseen=params is not None and UNSEEN in (params.extra_args or {}),
            )
            self._states.counted[request.request_id] = counted
            self.journal.opened(request.request_id, request.external_req_id, counted.counts)

    def process_outputs(
        self,
        engine_core_outputs: Any,
        engine_core_timestamp: Any = None,
        iteration_stats: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        uncompiled = [counted for output in engine_core_outputs if (counted := self._look(output)) is not None]
        stats = None if self.unlisted else iteration_stats
        processed = super().process_outputs(engine_core_outputs, engine_core_timestamp, stats, *args, **kwargs)
        for counted in uncompiled:  # vLLM would call it an internal error, 500
            if counted.state.queue is not None:
                counted.state.queue.put(VLLMValidationError(UNCOMPILED))
        return processed

    def _finish_request(self, req_state: RequestState) -> None:
        counted = self._states.counted.get(req_state.request_id)
        if counted is not None and not counted.finish:
            counted.finish = "stop"  # at a stop string, which the engine core does not know of
        super()._finish_request(req_state)

    def _look(self, output: EngineCoreOutput) -> Counted | None:
        """Before vLLM takes it in. Returns the sequence if it has ended because its grammar cannot be compiled."""
        counted = self._states.counted.get(output.request_id)
        if counted is None:
            return None
        if output.finish_reason is not None:
            counted.finish = str(output.finish_reason)
        if counted.prefilled:
            return None
        if not output.new_token_ids and output.pooling_output is None and output.prefill_stats is None:
            return counted if counted.guided and output.finish_reason == FinishReason.ERROR else None
        counted.prefilled = True
        if counted.unseen:
            output.new_token_ids, output.new_logprobs = [], None
        parent = counted.state.parent_req
        if parent is not None and output.prefill_stats is not None:
            # The choices after the first find its prompt in the cache, which is no saving of the caller's.
            counted.state.remote_prefill_cached_tokens = self._cached.setdefault(
                parent, output.prefill_stats.num_cached_tokens
            )
        return None


def meter(journal: Journal) -> None:
    """Before the engine is built."""
    Metered.journal, Metered.reading = journal, Reading()
    note_what_is_read(Metered.reading)
    seams.replace("output processor", lambda theirs: Metered)
    _mark_what_is_not_asked_for()


def _mark_what_is_not_asked_for() -> None:
    """`max_tokens` 0 with `echo` asks for nothing new; vLLM makes one token all the same, and counts it."""

    def marking(original: Callable[..., Any]) -> Callable[..., Any]:
        def to_sampling_params(self: Any, *args: Any, **kwargs: Any) -> Any:
            params = original(self, *args, **kwargs)
            if self.echo and self.max_tokens == 0:
                params.extra_args = {**(params.extra_args or {}), UNSEEN: True}
            return params

        return to_sampling_params

    seams.replace("sampling parameters", marking)


@contextlib.contextmanager
def of_the_canary(engine: AsyncLLM, journal: Journal, *, asked: int, made: int) -> Iterator[str]:
    """What is asked meanwhile under the id given is nobody's: it appears neither in the journal nor in vLLM's counters.

    But it is counted as everything is, and must come to `asked` tokens of input and `made` of output. Raises
    MeteringBroken.
    """
    engine.output_processor.unlisted = True
    journal.begun(CANARY)
    try:
        yield f"canary-{CANARY}"
    finally:
        engine.output_processor.unlisted = False
        counted = journal.discard(CANARY)
    if counted is None or (counted.input, counted.output) != (asked, made):
        found = "nothing" if counted is None else f"{counted.input} + {counted.output}"
        raise MeteringBroken(
            f"the canary took {asked} + {made} tokens, and counted were: {found}; what this engine does cannot be billed"
        )


class Abandoned:
    """Sequences whose exchange is over: what vLLM has not stopped in a moment is stopped for it, so that each is
    closed.
    """

    def __init__(self, engine: AsyncLLM, journal: Journal) -> None:
        self._engine, self._journal = engine, journal
        self._stopping: set[asyncio.Task[None]] = set()

    def left(self, sequence_ids: list[str]) -> None:
        asyncio.get_running_loop().call_later(ABANDONED_SECONDS, self._stop, sequence_ids)

    def _stop(self, sequence_ids: list[str]) -> None:
        if still := [sequence_id for sequence_id in sequence_ids if self._journal.is_open(sequence_id)]:
            task = asyncio.ensure_future(self._engine.abort(still, internal=True))
            self._stopping.add(task)
            task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """Here they are closed in any case; what may fail is to tell an engine core that is dead."""
        self._stopping.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("left sequences could not be stopped in the engine core: %s: %s", type(error).__name__, error)
