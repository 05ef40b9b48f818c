"""vLLM and what most looks at it import besides: for `forks.py`, which has it once. No thread may be left by it, and
nothing is computed.
"""

from __future__ import annotations

import os

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
}
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "OMP_WAIT_POLICY": "passive",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}

import transformers
import vllm.entrypoints.llm
import vllm.v1.engine.llm_engine
import vllm.v1.worker.cpu_worker

from runtime.engine import rehearsed
from runtime.engine.threads import check_threads

rehearsed._import_architectures()  # else vLLM asks a new process about each class, which imports everything again
check_threads(())

__all__ = ["transformers", "vllm"]
