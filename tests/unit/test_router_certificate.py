"""Before step 1: which certificate a client is shown, for which name, and after which of an operator's renewals; what
is refused, and how.
"""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from pilotlight import tls
from pilotlight.cli.doctor.state_checks import own_certificate
from pilotlight.settings import Paths, SettingsError, load
from router.edge.certificate import CertificateRefused, Certificates, Pair
from tests.certificates import write_pair


@pytest.fixture
def ours(tmp_path: Path) -> Pair:
    paths = Paths(tmp_path / "state")
    paths.make()
    made = tls.ensure(paths)
    return Pair(made.cert_file, made.key_file)


def shown(certificates: Certificates, name: str | None) -> int:
    """The serial number of what a client is shown that asks for this name, after a whole handshake."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        certificates.context.wrap_bio(to_server, to_client, server_side=True),
        theirs.wrap_bio(to_client, to_server, server_hostname=name),
    )
    for _ in range(6):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = sides[1].getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def serial(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


@pytest.mark.parametrize(
    ("names", "asked", "own"),
    [
        (("llm.example.org",), "llm.example.org", True),
        (("llm.example.org",), "other.example.org", True),
        (("llm.example.org",), "localhost", False),
        (("llm.example.org",), "LOCALHOST.", False),
        (("llm.example.org",), "chat.pilotlight.localhost", False),
        (("llm.example.org",), "notlocalhost", True),
        (("llm.example.org",), None, False),  # to an address, and it names none
        (("llm.example.org", "10.0.0.7"), None, True),
        (("llm.example.org", "10.0.0.7"), "localhost", False),
    ],
)
def test_who_is_shown_which(ours: Pair, tmp_path: Path, names: tuple[str, ...], asked: str | None, own: bool) -> None:
    assert shown(Certificates(ours, write_pair(tmp_path, *names)), asked) == (1 if own else serial(ours))


def test_without_one_of_the_operators_ours_is_shown_to_all(ours: Pair) -> None:
    for name in ("llm.example.org", "localhost", None):
        assert shown(Certificates(ours), name) == serial(ours)


def test_a_certificate_that_is_renewed_is_shown_from_then_on(ours: Pair, tmp_path: Path) -> None:
    certificates = Certificates(ours, write_pair(tmp_path))
    for number in (2, 3):
        write_pair(tmp_path, number=number)
        certificates.look()
        assert shown(certificates, "llm.example.org") == number


def test_one_that_a_link_leads_to_is_taken_up_when_the_link_is_turned(ours: Pair, tmp_path: Path) -> None:
    """As certbot's `live` folder and the secrets of Kubernetes are."""
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        write_pair(tmp_path / str(number), number=number)
    current, turned = tmp_path / "current", tmp_path / "turned"
    current.symlink_to("1")
    certificates = Certificates(ours, Pair(current / "own.pem", current / "own.key"))
    turned.symlink_to("2")
    turned.replace(current)
    certificates.look()
    assert shown(certificates, "llm.example.org") == 2


def test_ours_is_taken_up_when_it_is_renewed(ours: Pair, tmp_path: Path) -> None:
    certificates, before = Certificates(ours), serial(ours)
    tls.ensure(Paths(tmp_path / "state"), ["new.example.org"])
    certificates.look()
    assert shown(certificates, None) == serial(ours) != before


@pytest.mark.parametrize("spoil", ["half", "other key", "gone", "empty"])
def test_what_is_amid_being_written_does_not_end_the_last_good_one(ours: Pair, tmp_path: Path, spoil: str) -> None:
    pair = write_pair(tmp_path)
    certificates = Certificates(ours, pair)
    new = write_pair(tmp_path, number=2, name="new")
    if spoil == "half":
        pair.certificate.write_bytes(new.certificate.read_bytes()[:200])
    elif spoil == "other key":
        pair.certificate.write_bytes(new.certificate.read_bytes())
    elif spoil == "gone":
        pair.certificate.unlink()
    else:
        pair.key.write_bytes(b"")
    with capture_logs() as logs:
        for _ in range(3):
            certificates.look()
            assert shown(certificates, "llm.example.org") == 1
    assert [line["log_level"] for line in logs] == ["error"], "told once, not every few seconds"
    shutil.copy(new.certificate, pair.certificate)
    shutil.copy(new.key, pair.key)
    certificates.look()
    assert shown(certificates, "llm.example.org") == 2


def test_one_file_may_hold_both(ours: Pair, tmp_path: Path) -> None:
    pair = write_pair(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    assert shown(Certificates(ours, Pair(both, both)), "llm.example.org") == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("missing certificate", r"own\.pem cannot be read \(No such file"),
        ("missing key", r"own\.key cannot be read \(No such file"),
        ("folder", r"own\.pem"),
        ("other key", r"not the one of the first certificate.*its own certificate first"),
        ("password", r"own\.key has a password: write it without"),
        ("no PEM", r"no certificate and key in PEM"),
        ("key twice", r"no certificate and key in PEM"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_to_do(ours: Pair, tmp_path: Path, wrong: str, says: str) -> None:
    pair = write_pair(tmp_path, password=b"secret" if wrong == "password" else None)
    if wrong == "missing certificate":
        pair.certificate.unlink()
    elif wrong == "missing key":
        pair.key.unlink()
    elif wrong == "folder":
        pair.certificate.unlink()
        pair.certificate.mkdir()
    elif wrong == "other key":
        pair = Pair(pair.certificate, write_pair(tmp_path, name="other").key)
    elif wrong == "no PEM":
        pair.certificate.write_bytes(b"\x30\x82")
    elif wrong == "key twice":
        pair = Pair(pair.key, pair.key)
    with pytest.raises(CertificateRefused, match=says):
        Certificates(ours, pair)


def test_a_certificate_that_somebody_put_in_ours_place_is_kept_and_said(
    ours: Pair, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = write_pair(tmp_path)
    theirs = own.key.read_bytes() + own.certificate.read_bytes()
    ours.certificate.write_bytes(theirs)
    tls.ensure(Paths(tmp_path / "state"))
    assert ours.certificate.with_name("server.pem.yours").read_bytes() == theirs
    said = capfd.readouterr().err
    assert "router.certificate" in said and "server.pem.yours" in said
    tls.ensure(Paths(tmp_path / "state"), ["new.example.org"])
    assert not capfd.readouterr().err, "a renewal of ours is no news"


def test_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given = load(router={"certificate": "a.pem", "certificate_key": "~/b.pem"}).router
    assert (given.certificate, given.certificate_key) == (str(tmp_path / "a.pem"), str(Path("~/b.pem").expanduser()))
    with pytest.raises(SettingsError, match="certificate_key is given without certificate"):
        load(router={"certificate_key": "b.pem"})


@pytest.mark.parametrize(("days", "says"), [(9, None), (5, "ends on"), (-1, "ended on")])
def test_doctor_says_when_nobody_renews_it(tmp_path: Path, days: int, says: str | None) -> None:
    pair = write_pair(tmp_path, days=days)
    finding = own_certificate(
        load(state_dir=tmp_path / "s", router={"certificate": str(pair.certificate), "certificate_key": str(pair.key)})
    )
    assert (finding and not finding.ok and says in finding.text) if says else finding is None


def test_doctor_says_what_cannot_be_used(tmp_path: Path) -> None:
    finding = own_certificate(load(state_dir=tmp_path / "s", router={"certificate": str(tmp_path / "none.pem")}))
    assert finding is not None and "none.pem cannot be read" in finding.remedy
    assert own_certificate(load(state_dir=tmp_path / "s")) is None
