"""What a user's program needs to trust us: one file of authorities, and the lines of shell that name it.

Clients of nearly every language take such a file by SSL_CERT_FILE (Node's by NODE_EXTRA_CA_CERTS), and then trust
nothing else. With our authority alone in it a program could reach no other server any more, so the machine's own are in
it too. What must survive is a shell that has that variable set to this very file when `up` starts again: nothing in it
is ever doubled.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from pilotlight.files import write_atomic
from pilotlight.settings import Paths

# Where distributions keep theirs: Debian, Fedora and RHEL, Alpine, SUSE.
KNOWN = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)


def write_bundle(paths: Paths, environ: Mapping[str, str] = os.environ) -> None:
    """Beside `ca.pem`, for everybody to read; a file that has it all already stays. Raises OSError."""
    content = bundle(machines(paths, environ), paths.ca_cert.read_bytes())
    if not paths.ca_bundle.exists() or paths.ca_bundle.read_bytes() != content:
        write_atomic(paths.ca_bundle, content, mode=0o644)


def bundle(machine: bytes, ours: bytes) -> bytes:
    """Ours last, each certificate whole and in lines of its own. Pure."""
    return b"".join(part.rstrip(b"\n") + b"\n" for part in (machine, ours) if part.strip())


def machines(paths: Paths, environ: Mapping[str, str]) -> bytes:
    """The authorities this machine trusts; those of certifi where it has no such file; b"" where there are none at
    all.
    """
    given = environ.get("SSL_CERT_FILE", "")
    for name in (given, ssl.get_default_verify_paths().openssl_cafile, *KNOWN):
        file = Path(name or "/nonexistent")
        if file.is_file() and not _is_ours(file, paths):
            return file.read_bytes()
    try:
        import certifi
    except ImportError:
        return b""
    return Path(certifi.where()).read_bytes()


def _is_ours(file: Path, paths: Paths) -> bool:
    return any(other.exists() and file.samefile(other) for other in (paths.ca_bundle, paths.ca_cert))


def lines(url: str, name: str, key: str, bundle_file: str) -> list[str]:
    """What a shell needs to know so that OpenAI's clients, and those built on them, ask the endpoint. Pure."""
    from shlex import quote

    values = {
        "OPENAI_BASE_URL": f"{url}/e/{name}/v1",
        "OPENAI_API_KEY": key,
        "SSL_CERT_FILE": bundle_file,
        "NODE_EXTRA_CA_CERTS": bundle_file,
    }
    return [f"export {variable}={quote(value)}" for variable, value in values.items()]
