"""API keys: how they are made, recognised and remembered. Step 2 looks one up by `hash_key`.

A key is `pl_`, 24 random base62 characters (142 bits) and 6 more that are the CRC-32 of what precedes them. So a typing
error, or a leaked key in a log, is recognised without a database. Only `hash_key`'s result, the first five and the last
four characters are ever stored.

The failures to survive: a database that is stolen without the pepper, a file in `paths.secrets`, gives no way to test
guesses. A pepper that is lost makes every key worthless, so it is written once and never replaced.
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
import zlib
from pathlib import Path

from pilotlight.files import write_once
from pilotlight.settings import Paths

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
PREFIX = "pl_"
RANDOM_CHARACTERS = 24  # log2(62 ** 24) = 142 bits
CHECK_CHARACTERS = 6  # 62 ** 6 > 2 ** 32
SHOWN_PREFIX = 5  # characters of a key that may be stored and shown: "pl_ab"
SHOWN_LAST = 4
PEPPER_BYTES = 32

_SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECK_CHARACTERS}}}", re.ASCII)


class SecretError(Exception):
    """A file in the secrets folder is not what we wrote there; the text says what to do."""


def mint() -> str:
    """A new key. It is shown once; store `hash_key(pepper, key)`, `key[:SHOWN_PREFIX]` and `key[-SHOWN_LAST:]`."""
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return body + _checksum(body)


def well_formed(key: str) -> bool:
    """Whether `key` has a key's shape and checksum. Says nothing about whether it was ever given to anyone."""
    return _SHAPE.fullmatch(key) is not None and key[-CHECK_CHARACTERS:] == _checksum(key[:-CHECK_CHARACTERS])


def hash_key(pepper: bytes, key: str) -> bytes:
    """HMAC-SHA-256 of any text a caller may send, 32 bytes: the only form in which a key is stored or looked up."""
    return hmac.digest(pepper, key.encode("utf-8", "surrogatepass"), "sha256")


def ensure_pepper(paths: Paths) -> bytes:
    """This installation's pepper, made on first use. Raises SecretError, OSError."""
    text = _ensure(paths.key_pepper, secrets.token_hex(PEPPER_BYTES))
    try:
        pepper = bytes.fromhex(text)
    except ValueError:
        pepper = b""
    if len(pepper) != PEPPER_BYTES:
        raise SecretError(f"{paths.key_pepper} is damaged: it should hold {2 * PEPPER_BYTES} hex digits. Restore it from a backup; "
                          "or remove it, and every API key must be made anew.")  # fmt: skip
    return pepper


def ensure_admin_key(paths: Paths) -> str:
    """The key of this machine's own command line, made on first use, 0600. Raises SecretError, OSError."""
    key = _ensure(paths.admin_key, mint())
    if not well_formed(key):
        raise SecretError(
            f"{paths.admin_key} holds no key (damaged or edited). Remove it; the next `pilotlight up` makes a new one."
        )
    return key


def _ensure(path: Path, fresh: str) -> str:
    content = path.read_bytes() if path.exists() else write_once(path, fresh.encode() + b"\n")
    return content.decode("utf-8", "replace").strip()


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECK_CHARACTERS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
