"""Keys are recognised offline, remembered only as a keyed hash, and the secrets they rest on are made once."""

from __future__ import annotations

import hashlib
import hmac
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight import keys
from pilotlight.settings import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "state")
    made.make()
    return made


def test_minted_keys_are_well_formed_and_never_the_same() -> None:
    minted = {keys.mint() for _ in range(200)}
    assert len(minted) == 200
    assert all(keys.well_formed(key) and len(key) == 33 and key.startswith("pl_") for key in minted)


@given(st.integers(3, 32), st.sampled_from(string.ascii_letters + string.digits))
def test_one_wrong_character_is_noticed(where: int, other: str) -> None:
    key = "pl_" + "0" * 24 + keys._checksum("pl_" + "0" * 24)
    assert keys.well_formed(key)
    wrong = key[:where] + other + key[where + 1 :]
    assert keys.well_formed(wrong) == (wrong == key)


@given(st.text(max_size=40))
def test_any_text_can_be_asked_and_hashed(text: str) -> None:
    assert not keys.well_formed(text)
    assert len(keys.hash_key(b"pepper", text)) == 32


def test_half_a_character_is_hashed_too() -> None:
    assert len(keys.hash_key(b"pepper", "pl_\ud800")) == 32


def test_newline_after_a_key_is_no_key() -> None:
    assert not keys.well_formed(keys.mint() + "\n")


def test_the_hash_is_hmac_sha256_under_the_pepper() -> None:
    assert keys.hash_key(b"p", "pl_x") == hmac.new(b"p", b"pl_x", hashlib.sha256).digest()
    assert keys.hash_key(b"p", "pl_x") != keys.hash_key(b"q", "pl_x")


def test_secrets_are_made_once_and_private(paths: Paths) -> None:
    pepper, admin = keys.ensure_pepper(paths), keys.ensure_admin_key(paths)
    assert len(pepper) == 32
    assert keys.well_formed(admin)
    assert (keys.ensure_pepper(paths), keys.ensure_admin_key(paths)) == (pepper, admin)
    for file in (paths.key_pepper, paths.admin_key):
        assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in paths.secrets.iterdir()) == ["admin.key", "key.pepper"]  # no temporary left


def test_damaged_secrets_are_an_error_and_are_not_replaced(paths: Paths) -> None:
    paths.key_pepper.write_text("cut")
    paths.admin_key.write_text("pl_typo")
    with pytest.raises(keys.SecretError, match="backup"):
        keys.ensure_pepper(paths)
    with pytest.raises(keys.SecretError, match="Remove it"):
        keys.ensure_admin_key(paths)
    assert (paths.key_pepper.read_text(), paths.admin_key.read_text()) == ("cut", "pl_typo")
