"""`python -m router`: the public face of one machine. With one worker it serves itself, with more it is their
parent.
"""

from __future__ import annotations

import asyncio
import errno
import sys

from pilotlight import logs, settings
from pilotlight.certificate_terms import NameRefused
from pilotlight.keys import SecretError, ensure_pepper
from pilotlight.settings import SettingsError
from router import parent, worker
from router.edge import certificate
from router.edge.certificate import CertificateRefused
from router.edge.listeners import Listeners


def main() -> int:
    logs.configure("router")
    try:
        config = settings.load()
        config.paths.make()
        ensure_pepper(config.paths)
        certificate.of_settings(config)
        listeners = Listeners.bind(config)
    except (SettingsError, SecretError, NameRefused, CertificateRefused) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(_explain(error))
    if config.router.workers == 1:
        worker.run(config, listeners)
        return 0
    return asyncio.run(parent.supervise(config, listeners))


def _explain(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{error.filename} is taken: stop what listens there (`ss -ltnp`), or choose another with PILOTLIGHT_ROUTER__PORT, for plain "
            "HTTP with PILOTLIGHT_ROUTER__PLAIN"
        )
    return str(error)


def _complain(text: str) -> int:
    print(f"router: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
