"""How much memory log-probabilities of prompts take, where an endpoint allows them. Step 8. Reads the model's config.

The engine makes them for all prompt tokens of a step at once: logits, log-probabilities and ranks, each over the whole
vocabulary. So fewer tokens go into one step, and what those may take is counted as the replica's need. The failure to
survive is a prompt of thousands of tokens at a model with a large vocabulary. It takes gigabytes that nobody had
counted, and the kernel ends a neighbour.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

TOKENS = 512  # of prompts in one step
TOKEN_BYTES = 12  # for each of those and each word of the vocabulary


def served(allow: Collection[str]) -> bool:
    return not {"prompt_logprobs", "echo_logprobs"}.isdisjoint(allow)


def step_bytes(
    snapshot: Path, allow: Collection[str], engine_args: Mapping[str, str | int | float | bool], *, slots: int
) -> int:
    """What one step may take for them; 0 where they are not allowed. Raises OSError, ValueError."""
    if not served(allow):
        return 0
    config = json.loads((snapshot / "config.json").read_text())
    words = int(config.get("text_config", config).get("vocab_size", 0))
    given = {name.replace("_", "-"): value for name, value in engine_args.items()}.get("max-num-batched-tokens", 0)
    tokens = given if isinstance(given, int) and given > 0 else max(TOKENS, slots)
    return tokens * words * TOKEN_BYTES
