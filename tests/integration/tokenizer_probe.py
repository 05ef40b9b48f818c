"""What vLLM's tokenizer pool says of some text, before and after the patches were applied and its vocabulary kept. For
a fork: it takes seams.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TEXTS = ["hello there", "What is 2 + 2?\n\n", "Größe, 尺寸, 📏", "", "a" * 3000]
CHAT = [{"role": "user", "content": "hello"}]


def told(model: str) -> dict[str, Any]:
    import vllm.platforms
    from vllm.renderers import hf as renderer
    from vllm.tokenizers.hf import CachedHfTokenizer

    from runtime.engine import patches, vocabulary

    def said() -> dict[str, Any]:
        own = CachedHfTokenizer.from_pretrained(model)
        pool = renderer.maybe_make_thread_pool(own, 2)
        with ThreadPoolExecutor(4) as threads:
            together = list(
                threads.map(
                    lambda text: list(pool(text, truncation=len(text) % 2 == 0, max_length=64).input_ids), TEXTS * 8
                )
            )
        return {
            "together": together,
            "encoded": [list(pool.encode(text)) for text in TEXTS],
            "decoded": [pool.decode(pool.encode(text)) for text in TEXTS],
            "chat": pool.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True),
            "length": len(pool),
            "largest": pool.max_token_id,
            "longest": pool.max_chars_per_token,
            "vocabulary": sorted(pool.get_vocab().items())[::37],
            "special": [list(pool.all_special_ids), list(pool.all_special_tokens)],
            "processor": renderer._try_get_processor_chat_template(
                own, revision=None, code_revision=None, trust_remote_code=False
            ),
        }

    before = said()
    renderer._PROCESSOR_CHAT_TEMPLATES.clear()
    assert vllm.platforms.current_platform.is_cpu()
    patches.apply("cpu")
    found: dict[str, Any] = {"before": before, "after": said(), "again": said()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "new" / "vocabulary.json"
        vocabulary.remember(file, model)
        found |= {"not yet kept": said(), "file": vocabulary.read(file), "kept": said(), "kept still": said()}
        file.write_text("[")
        found["torn"] = said()
    return found
