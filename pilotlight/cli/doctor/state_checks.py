"""What `doctor` looks at in the state folder and around it: the folder, its disk, ports, certificates, Postgres."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pilotlight.cli.findings import Finding
from pilotlight.cli.port_checks import why_not
from pilotlight.cli.running import is_running
from pilotlight.parsed import json_of
from pilotlight.settings import LONGEST_STATE, Paths, Settings
from pilotlight.sizes import human

LEAST_SPACE = 1_000_000_000  # bytes
SOON_DAYS = 7  # a certificate that ends sooner is not being renewed
PROBE = 32 << 20  # bytes written to measure
LEAST_SPEED = 20_000_000  # bytes a second, written and synced
LONGEST_SYNC = 0.25  # seconds: a record is durable before its answer begins


def folder(settings: Settings) -> Finding:
    paths = settings.paths
    choose = "choose another with --state"
    if paths.too_long:
        return Finding(
            False,
            f"{paths.state} has more than {LONGEST_STATE} bytes",
            f"{choose}: the socket of Postgres lies below it",
        )
    above = _first_there(paths.state)
    if not above.is_dir():
        return Finding(False, f"{above} is a file where a folder must be", choose)
    if not os.access(above, os.W_OK | os.X_OK):
        return Finding(False, f"{above} is not writable by us", f"run as its owner, or {choose}")
    if above != paths.state:
        return Finding(True, f"{paths.state} is not there yet: `pilotlight up` makes it")
    if damage := _damage(paths):
        return Finding(False, *damage)
    return Finding(True, f"{paths.state}" + (", in use by a running installation" if is_running(paths) else ""))


def disk_space(settings: Settings) -> Finding:
    usage = shutil.disk_usage(_first_there(settings.paths.state))
    otherwise = f"free some, or choose another disk with --state: models alone need more than {human(LEAST_SPACE)}"
    return Finding(usage.free >= LEAST_SPACE, f"{human(usage.free)} of {human(usage.total)} free", otherwise)


def disk_speed(settings: Settings) -> Finding:
    """Writes and syncs a file in the state folder, or above where it is not there yet, and removes it."""
    if shutil.disk_usage(_first_there(settings.paths.state)).free < 2 * PROBE:
        return Finding(False, "no room to measure it", "free some space")
    with tempfile.TemporaryFile(dir=_first_there(settings.paths.state)) as probe:
        block = os.urandom(1 << 20)
        begin = time.monotonic()
        for _ in range(PROBE // len(block)):
            probe.write(block)
        probe.flush()
        os.fdatasync(probe.fileno())
        speed = PROBE / (time.monotonic() - begin)
        syncs = []
        for _ in range(5):
            begin = time.monotonic()
            probe.write(b"\n")
            probe.flush()
            os.fdatasync(probe.fileno())
            syncs.append(time.monotonic() - begin)
    sync = sorted(syncs)[2]
    ok = speed >= LEAST_SPEED and sync <= LONGEST_SYNC
    text = f"{human(speed)}/s written, a small sync takes {sync * 1000:.1f} ms"
    return Finding(
        ok, text, "choose a faster disk with --state: every request's record is synced before its answer begins"
    )


def public_port(settings: Settings) -> Finding:
    host, port = settings.router.host, settings.router.port
    if is_running(settings.paths):
        return Finding(True, f"{host} port {port}: this installation runs")
    reason = why_not(host, port)
    return Finding(not reason, f"{host} port {port}" + ("" if reason else " is free"), reason)


def metrics_port(settings: Settings) -> Finding:
    first = settings.router.metrics_port
    if is_running(settings.paths):
        return Finding(True, f"{_served_metrics(settings.paths) or f'127.0.0.1 port {first}'}: this installation runs")
    for port in range(first, first + settings.router.workers):
        if why_not("127.0.0.1", port):
            return Finding(
                False,
                f"127.0.0.1 port {port} is taken",
                "choose another with PILOTLIGHT_ROUTER__METRICS_PORT, or go without metrics",
            )
    return Finding(True, f"127.0.0.1 port {first} is free")


def own_certificate(settings: Settings) -> Finding | None:
    """The operator's, where there is one that cannot be shown, or ends soon. None: nothing to say of it."""
    from cryptography import x509

    from router.edge.certificate import CertificateRefused, Certificates, own_pair

    pair = own_pair(settings)
    if pair is None:
        return None
    try:
        Certificates(pair)
        ends = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).not_valid_after_utc
    except CertificateRefused as error:
        return Finding(False, "the certificate of router.certificate cannot be used", str(error))
    left = ends - datetime.now(UTC)
    if left < timedelta(days=SOON_DAYS):
        said = "ended" if left < timedelta(0) else "ends"
        return Finding(
            False,
            f"{pair.certificate} {said} on {ends:%Y-%m-%d}",
            "renew it; the router reads the new file by itself",
        )
    return None


def certificates(settings: Settings) -> Finding:
    from cryptography import x509

    if finding := own_certificate(settings):
        return finding
    paths = settings.paths
    server = paths.secrets / "server.pem"
    if not paths.ca_cert.exists() or not server.exists():
        return Finding(True, "no certificate yet: `pilotlight up` makes one")
    renew = "stop and start `pilotlight up`: it makes new ones, and clients need the new CA file"
    try:
        found = [x509.load_pem_x509_certificate(file.read_bytes()) for file in (paths.ca_cert, server)]
    except ValueError as error:
        return Finding(False, f"{paths.ca_cert} or {server} is damaged ({error})", renew)
    now = datetime.now(UTC)
    if any(now < certificate.not_valid_before_utc for certificate in found):
        return Finding(
            False, "the certificate is from the future", "set the clock, then stop and start `pilotlight up`"
        )
    ends = min(certificate.not_valid_after_utc for certificate in found)
    return Finding(now < ends, f"valid until {ends:%Y-%m-%d}" if now < ends else f"it ended on {ends:%Y-%m-%d}", renew)


def _served_metrics(paths: Paths) -> str:
    """Where `up` said that they are; it may have had to take another port than the one in the settings."""
    try:
        return str(json_of(paths.client.read_bytes())["metrics"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _damage(paths: Paths) -> tuple[str, str] | None:
    """(what, remedy) where a file that cannot be made anew is missing or is not what we wrote."""
    from pilotlight import keys

    data = paths.postgres / "data"
    if data.exists() and not (paths.secrets / "database.password").exists():
        return (
            f"{paths.secrets / 'database.password'} is missing",
            "restore it from a backup: the database cannot be opened without it",
        )
    if data.exists() and not (data / "PG_VERSION").is_file():
        return (
            f"{data} is not a complete database",
            "restore it from a backup; or move it away, then `pilotlight up` makes a new one",
        )
    for check, file in ((keys.ensure_pepper, paths.key_pepper), (keys.ensure_admin_key, paths.admin_key)):
        if file.exists():
            try:
                check(paths)
            except keys.SecretError as error:
                return str(error), "the text says how"
    return None


def _first_there(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
