"""gptme, by its command line."""

import os

from trying import BIN, WIDE, WIDE_KEY, WIDE_URL, out, run


def one():
    """one prompt, its tools"""
    ours = {"OPENAI_BASE_URL": WIDE_URL, "OPENAI_API_KEY": WIDE_KEY, "MODEL": f"local/{WIDE}"}
    asked = ("--non-interactive", "--no-confirm", "-m", f"local/{WIDE}", "What is Pilotlight?")
    assert out(BIN / "gptme", *asked, given=b"", **ours)


assert os.environ["SSL_CERT_FILE"]
run(one)
