"""aider, by its command line: its instructions, a file, one message."""

from trying import BIN, FOLDER, WIDE, WIDE_KEY, WIDE_URL, out, run

QUIET = (
    "--no-git",
    "--yes-always",
    "--no-check-update",
    "--no-show-model-warnings",
    "--no-analytics",
    "--no-detect-urls",
    "--map-tokens",
    "0",
)


def ask(*options):
    (FOLDER / "hello.py").write_text("print('hello')\n")
    ours = {"OPENAI_BASE_URL": WIDE_URL, "OPENAI_API_KEY": WIDE_KEY}
    (FOLDER / ".aider.model.settings.yml").write_text(f"- name: openai/{WIDE}\n  extra_params: {{max_tokens: 40}}\n")
    said = out(
        BIN / "aider",
        "--model",
        f"openai/{WIDE}",
        *QUIET,
        *options,
        "--message",
        "What is Pilotlight?",
        "hello.py",
        **ours,
    )
    assert "Tokens:" in said, said[-300:]


def streamed():
    """one message"""
    ask("--edit-format", "ask")


def whole():
    """--no-stream, diff"""
    ask("--no-stream", "--edit-format", "diff")


run(streamed, whole)
