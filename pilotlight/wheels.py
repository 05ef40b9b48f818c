"""Where pip is configured to find packages, in words for uv, which does not read that. Standard library only.

It is for whoever installs: `make setup`, before anything is installed, and the peers that `bench` compares with. The
failures to survive: a machine behind a proxy, behind a TLS inspector with its own authority, or with a mirror only. pip
was told of each of them long ago.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

Configured = dict[str, str]


def configuration(python: Path) -> Configured:
    """What pip goes by, files and variables, by option: `pip config list` of this Python."""
    shown = subprocess.run([python, "-P", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    return parsed(shown.stdout)


def parsed(listed: str) -> Configured:
    """Pure. Variables, which stand first in pip's list and go before files, win."""
    found: Configured = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        found.setdefault(name.rpartition(".")[2], value.strip().strip("'\"").replace("\\n", " ").strip())
    return found


def arguments(found: Mapping[str, str], *, also: Sequence[str] = ("find-links", "extra-index-url")) -> list[str]:
    """uv's arguments; `also`: places beside the index. Those that are not there are left out."""
    names = (*also, "index-url")
    given = [
        part
        for name in names
        for value in found.get(name, "").split()
        if _present(value)
        for part in (f"--{name}", value)
    ]
    alone = ["--no-index"] if found.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    indexes = any(part in ("--extra-index-url", "--index-url") for part in given)
    return [*given, *alone, *(["--index-strategy", "unsafe-best-match"] if indexes else [])]


def environment(found: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """uv's variables: the authority, the proxy and the hosts that pip trusts, where uv's own do not say otherwise.
    Pure.
    """
    ours: dict[str, str] = {}
    if authority := found.get("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE"):
        ours["SSL_CERT_FILE"] = authority
    if client := found.get("client-cert"):
        ours["SSL_CLIENT_CERT"] = client
    if proxy := found.get("proxy"):
        ours |= {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}
    if hosts := found.get("trusted-host"):
        ours["UV_INSECURE_HOST"] = " ".join(hosts.split())
    return ours | dict(environ)


def _present(place: str) -> bool:
    path = place.removeprefix("file://")
    return Path(path).is_dir() if path.startswith("/") else True
