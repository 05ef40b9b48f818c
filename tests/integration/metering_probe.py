"""What our counts say beside an oracle's, with vLLM's own output processor and no engine. For a fork: it takes seams.

Random lives of requests: choices that get tokens, end, are stopped by their parent's id, by their own, by the caller's,
once or more often.
"""

from __future__ import annotations

import os
import random
import tempfile
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LIVES = 300
PROMPT, CACHED = 11, 4


def counted() -> dict[str, Any]:
    from vllm import SamplingParams
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
    from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
    from vllm.v1.engine.parallel_sampling import ParentRequest
    from vllm.v1.metrics.stats import IterationStats, PrefillStats

    from runtime.engine import metering
    from runtime.engine.prefill_progress import Reading
    from runtime.errors import MeteringBroken
    from runtime.journal_line import decode
    from runtime.serving.usage import Journal

    folder = tempfile.TemporaryDirectory()
    reading = Reading()
    dice = random.Random(8)

    class World:
        def __init__(self, processor: type[OutputProcessor] = metering.Metered) -> None:
            self.file = Path(folder.name) / f"{dice.getrandbits(64):x}"
            self.journal = Journal(str(self.file), "r", grown=lambda: None, later=lambda seconds, callback: None)
            metering.Metered.journal, metering.Metered.reading = self.journal, reading
            self.processor: Any = processor(None, log_stats=True)
            self.stats = IterationStats()
            self.queue: RequestOutputCollector | None = None

        def ask(self, external: str, n: int, **params: Any) -> list[str]:
            """As AsyncLLM.add_request does it. Returns the parent's id and its choices'."""
            kind = dice.choice([RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
            request = EngineCoreRequest(
                request_id=f"{external}-{dice.getrandbits(32):08x}",
                prompt_token_ids=list(range(PROMPT)),
                mm_features=None,
                sampling_params=SamplingParams(n=n, max_tokens=64, detokenize=False, output_kind=kind, **params),
                pooling_params=None,
                arrival_time=0.0,
                lora_request=None,
                cache_salt=None,
                data_parallel_rank=None,
                external_req_id=external,
            )
            self.queue = RequestOutputCollector(kind, request.request_id)
            if n == 1:
                self.processor.add_request(request, None, None, 0, self.queue)
                return [request.request_id, request.request_id]
            parent = ParentRequest(request)
            ids = [request.request_id]
            for index in range(n):
                child = copy(request)
                child.request_id, child.sampling_params = parent.get_child_info(index)
                self.processor.add_request(child, None, parent, index, self.queue)
                ids.append(child.request_id)
            return ids

        def give(self, sequence_id: str, *, first: bool, last: bool, cached: int = CACHED) -> None:
            stats = (
                PrefillStats(num_prompt_tokens=PROMPT, num_computed_tokens=PROMPT - cached, num_cached_tokens=cached)
                if first
                else None
            )
            reason = FinishReason.LENGTH if last else None
            output = EngineCoreOutput(
                request_id=sequence_id, new_token_ids=[7], finish_reason=reason, prefill_stats=stats
            )
            self.processor.process_outputs([output], 1.0, self.stats)

        def lines(self) -> list[list[Any]]:
            entries = [decode(line) for line in self.file.read_bytes().splitlines()]
            return [
                [entry.request_id, entry.input_tokens, entry.cached_tokens, entry.output_tokens, entry.finish]
                for entry in entries
            ]

        def nothing_is_left(self) -> bool:
            left = (self.processor.request_states, self.processor.external_req_ids, self.processor.parent_requests)
            ours = (self.journal._tallies, self.journal._sequences, self.processor._states.counted)
            return not any(left) and not any(ours)

    def life() -> dict[str, Any]:
        world = World()
        request_id, n, prompts = f"{dice.getrandbits(128):032x}", dice.choice([1, 1, 2, 8]), dice.choice([1, 1, 3])
        world.journal.begun(request_id)
        asked = [world.ask(f"cmpl-{request_id}-{index}", n) for index in range(prompts)]
        live = {sequence: index for index, ids in enumerate(asked) for sequence in ids[1:]}
        made, read = dict.fromkeys(live, 0), dict[int, int]()
        for _ in range(dice.randrange(60)):
            if not live:
                break
            sequence = dice.choice(list(live))
            prompt = live[sequence]
            roll = dice.random()
            if roll < 0.9:
                first, last = made[sequence] == 0, roll < 0.1
                cached = CACHED if prompt not in read else PROMPT - 1  # its brothers find the prompt in the cache
                world.give(sequence, first=first, last=last, cached=cached)
                read.setdefault(prompt, CACHED)
                made[sequence] += 1
                if last:
                    del live[sequence]
            elif roll < 0.93:
                for _again in range(2):
                    world.processor.abort_requests((sequence,), internal=True)
                del live[sequence]
            else:
                break
        running = sum(count.output_tokens for count in world.journal.running())
        for index, ids in enumerate(asked):  # it is left: one way or another, or two
            for way in dice.sample(["parent", "external", "children"], dice.randint(1, 3)):
                given = [f"cmpl-{request_id}-{index}"] if way == "external" else ids[:1] if way == "parent" else ids[1:]
                world.processor.abort_requests(given, internal=way != "external")
            world.processor.parent_requests.pop(ids[0], None)  # vLLM's own leftover of children stopped one by one
        world.journal.ended(request_id)
        total = sum(made.values())
        return {
            "n": n,
            "right": [request_id, PROMPT * len(read), CACHED * len(read), total] == world.lines()[0][:4]
            and len(world.lines()) == 1,
            "told while it ran": running == total,
            "vllm generation": world.stats.num_generation_tokens == total,
            "nothing left": world.nothing_is_left(),
        }

    def unseen() -> Any:
        world = World()
        request_id = "a" * 32
        request = CompletionRequest(model="m", prompt="p", echo=True, max_tokens=0)
        marked = request.to_sampling_params(64, {}).extra_args
        [_, sequence] = world.ask(f"cmpl-{request_id}-0", 1, extra_args=marked)
        world.journal.begun(request_id)
        world.give(sequence, first=True, last=True)
        world.journal.ended(request_id)
        assert world.queue is not None
        output: Any = world.queue.get_nowait()
        plain = CompletionRequest(model="m", prompt="p", echo=True, max_tokens=1).to_sampling_params(64, {}).extra_args
        return [world.lines(), len(output.outputs[0].token_ids), world.stats.num_generation_tokens, bool(plain)]

    def left_while_it_was_read() -> Any:
        world = World()
        request_id = "c" * 32
        world.journal.begun(request_id)
        [_, *sequences] = world.ask(f"chatcmpl-{request_id}", 2)
        if (engine_core := os.fork()) == 0:  # what it notes is seen here
            reading.note(sequences[0], 6, 2)
            reading.note(sequences[1], 4, 4)
            reading.note("another", 9, 9)
            os._exit(0)
        os.waitpid(engine_core, 0)
        world.processor.abort_requests([f"chatcmpl-{request_id}"], internal=False)
        world.journal.ended(request_id)
        return world.lines()

    def uncompiled() -> Any:
        world = World()
        request_id = "b" * 32
        [_, sequence] = world.ask(f"chatcmpl-{request_id}", 1, structured_outputs=StructuredOutputsParams(regex="("))
        world.journal.begun(request_id)
        output = EngineCoreOutput(request_id=sequence, new_token_ids=[], finish_reason=FinishReason.ERROR)
        world.processor.process_outputs([output], 1.0, world.stats)
        assert world.queue is not None
        try:
            world.queue.get_nowait()
        except VLLMValidationError:
            return [
                list(world.journal.so_far(request_id)),
                world.nothing_is_left() or list(world.journal._tallies) == [request_id],
            ]
        return "no error"

    def grammar() -> list[int]:
        """How many must step: a guided one alone, one beside it, the guided one once it is read, and when both are
        over.
        """
        world, seen = World(), list[int]()
        [_, guided] = world.ask(f"chatcmpl-{'d' * 32}", 1, structured_outputs=StructuredOutputsParams(regex="a"))
        seen.append(world.processor.must_step())
        [_, plain] = world.ask(f"chatcmpl-{'e' * 32}", 1)
        seen.append(world.processor.must_step())
        world.give(guided, first=True, last=False)
        seen.append(world.processor.must_step())
        world.processor.abort_requests((guided, plain), internal=True)
        return [*seen, world.processor.must_step()]

    def canary(processor: type[OutputProcessor], tokens: int, *, closes: bool = True) -> str:
        world = World(processor)
        engine: Any = SimpleNamespace(output_processor=world.processor)
        try:
            with metering.of_the_canary(engine, world.journal, asked=PROMPT, made=2) as name:
                [_, sequence] = world.ask(name, 1)
                for number in range(tokens):
                    world.give(sequence, first=number == 0, last=closes and number == tokens - 1)
        except MeteringBroken as error:
            return str(error)
        return f"ready, {world.stats.num_generation_tokens} in vLLM's counters, {len(world.lines())} lines, left: {world.journal._tallies}"

    metering.meter(World().journal)
    lives = [life() for _ in range(LIVES)]
    return {
        "lives": {name: sum(told[name] for told in lives) for name in lives[0] if name != "n"},
        "choices": sorted({told["n"] for told in lives}),
        "unseen": unseen(),
        "left while it was read": left_while_it_was_read(),
        "uncompiled": uncompiled(),
        "must step": grammar(),
        "canary": canary(metering.Metered, 2),
        "canary, a dead hook": canary(OutputProcessor, 2),
        "canary, a wrong count": canary(metering.Metered, 3),
        "canary, never closed": canary(metering.Metered, 2, closes=False),
    }
