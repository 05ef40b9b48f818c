"""ShellGPT, by its command line."""

import os

from trying import BIN, CHAT, KEY, URL, out, run


def sgpt():
    """a question, streamed"""
    ours = {"API_BASE_URL": URL, "OPENAI_API_KEY": KEY, "DEFAULT_MODEL": CHAT, "SHELL_INTERACTION": "false", "PRETTIFY_MARKDOWN": "false",
            "OPENAI_USE_FUNCTIONS": "false", "SHELL": "/bin/sh"}  # fmt: skip
    for options in ((), ("--no-cache", "--code")):
        assert out(BIN / "sgpt", *options, "What is Pilotlight?", given=b"", **ours).strip()


assert os.environ["SSL_CERT_FILE"]
run(sgpt)
