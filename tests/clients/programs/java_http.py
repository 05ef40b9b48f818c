"""Java's own HTTP client, run from its source, with our authority in a trust store."""

import json
import os
from pathlib import Path

from trying import CHAT, FOLDER, SAY, out, run

SOURCE = Path(__file__).parent / "Ask.java"
STORE = FOLDER / "trusted.p12"
SECRET = ("-storepass", "trusted")
BODY = {"model": CHAT, "messages": SAY, "max_tokens": 8}


def ask(body):
    return out(
        "java",
        f"-Djavax.net.ssl.trustStore={STORE}",
        "-Djavax.net.ssl.trustStorePassword=trusted",
        SOURCE,
        json.dumps(body),
    )


def chat():
    """chat, three calls on a connection"""
    out(
        "keytool",
        "-importcert",
        "-noprompt",
        "-alias",
        "ours",
        "-file",
        os.environ["SSL_CERT_FILE"],
        "-keystore",
        STORE,
        *SECRET,
    )
    assert ask(BODY).count('"choices"') == 3


def stream():
    """event stream, by lines"""
    assert ask(BODY | {"stream": True}).count("data: [DONE]") == 3


run(chat, stream)
