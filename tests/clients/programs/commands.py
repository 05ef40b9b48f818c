"""Programs of the command line: curl, wget, HTTPie, llm, k6. Which of them is tried says the first argument."""

import gzip
import json
import os
import sys

from trying import BIN, CHAT, FOLDER, KEY, SAY, URL, out, run

BODY = json.dumps({"model": CHAT, "messages": SAY, "max_tokens": 8})
AUTH = f"Authorization: Bearer {KEY}"


def curl(*arguments, given=None):
    return out(
        "curl",
        "-sS",
        "--cacert",
        os.environ["SSL_CERT_FILE"],
        "-H",
        AUTH,
        "-H",
        "content-type: application/json",
        *arguments,
        given=given,
    )


def curl_chat():
    """chat"""
    assert json.loads(curl(f"{URL}/chat/completions", "-d", BODY))["choices"]


def curl_stream():
    """event stream, its head"""
    told = curl("-N", "-i", f"{URL}/chat/completions", "-d", BODY[:-1] + ',"stream":true}')
    head, _, events = told.partition("\r\n\r\n")
    assert "text/event-stream" in head
    assert events.rstrip().endswith("data: [DONE]") or ": pilotlight" in events.rstrip().rsplit("\n", 1)[-1]


def curl_gzip():
    """gzip body"""
    packed = gzip.compress(BODY.encode())
    assert json.loads(
        curl("-H", "content-encoding: gzip", "--data-binary", "@-", f"{URL}/chat/completions", given=packed)
    )["choices"]


def curl_chunked():
    """chunked, Expect: 100-continue"""
    arguments = ("-H", "transfer-encoding: chunked", "-H", "expect: 100-continue")
    assert json.loads(curl(*arguments, "--data-binary", "@-", f"{URL}/chat/completions", given=BODY.encode()))[
        "choices"
    ]


def curl_http2():
    """offers HTTP/2, goes on with 1.1"""
    assert json.loads(curl("--http2", f"{URL}/chat/completions", "-d", BODY))["choices"]


def httpie_chat():
    """chat"""
    verify = os.environ["SSL_CERT_FILE"]
    assert json.loads(
        out(BIN / "http", "--ignore-stdin", "--verify", verify, "--raw", BODY, f"{URL}/chat/completions", AUTH)
    )["choices"]


def httpie_stream():
    """stream"""
    verify, body = os.environ["SSL_CERT_FILE"], BODY[:-1] + ',"stream":true}'
    assert "data: [DONE]" in out(
        BIN / "http", "--ignore-stdin", "--stream", "--verify", verify, "--raw", body, f"{URL}/chat/completions", AUTH
    )


def llm_prompt():
    """prompt, --no-stream, --schema"""
    (FOLDER / "extra-openai-models.yaml").write_text(
        f"- model_id: tried\n  model_name: {CHAT}\n  api_base: {URL}\n  api_key_name: tried\n  supports_schema: true\n"
    )
    ours = {"LLM_USER_PATH": str(FOLDER)}
    few = ("-o", "max_tokens", "30", "--key", KEY)
    assert out(BIN / "llm", "-m", "tried", "What is Pilotlight?", *few, **ours).strip()
    assert out(BIN / "llm", "-m", "tried", "--no-stream", "What is Pilotlight?", *few, **ours).strip()
    assert "yes" in out(BIN / "llm", "-m", "tried", "--schema", "yes bool", "Is it?", *few, **ours)


def wget_chat():
    """chat, event stream"""
    head = ("wget", "-q", "-O", "-", "--ca-certificate", os.environ["SSL_CERT_FILE"], "--header", AUTH)
    head = (*head, "--header", "content-type: application/json")
    assert json.loads(out(*head, "--post-data", BODY, f"{URL}/chat/completions"))["choices"]
    assert "data: [DONE]" in out(*head, "--post-data", BODY[:-1] + ',"stream":true}', f"{URL}/chat/completions")


def k6_users():
    """three users"""
    script = FOLDER / "k6.js"
    script.write_text(
        "import http from 'k6/http'; import { check } from 'k6';\n"
        "export const options = { vus: 3, iterations: 9, thresholds: { checks: ['rate==1'] } };\n"
        f"export default function () {{ const r = http.post('{URL}/chat/completions', JSON.stringify({BODY}),\n"
        f"  {{ headers: {{ 'content-type': 'application/json', authorization: 'Bearer {KEY}' }} }});\n"
        "  check(r, { ok: (r) => r.status === 200 && r.json('choices').length === 1 }); }\n"
    )
    out(BIN / "k6", "run", "--quiet", "--no-usage-report", script)


TRIES = {
    "curl": (curl_chat, curl_stream, curl_gzip, curl_chunked, curl_http2),
    "httpie": (httpie_chat, httpie_stream),
    "llm": (llm_prompt,),
    "k6": (k6_users,),
    "wget": (wget_chat,),
}
run(*TRIES[sys.argv[1]])
