"""`python -m router`: the public face of one machine. With one worker it serves itself, with more it is their parent."""

from __future__ import annotations

import asyncio
import errno
import sys

from pilotlight import logs, settings, tls
from pilotlight.keys import SecretError, ensure_pepper
from pilotlight.settings import Settings, SettingsError
from router import worker, workers


def main() -> int:
    logs.configure("router")
    try:
        config = settings.load()
        config.paths.make()
        ensure_pepper(config.paths)
        tls.ensure(config.paths, tls.names(config.router))
        listener = workers.listen(config)
    except (SettingsError, SecretError, tls.NameRefused) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(_explain(error, config))
    if config.router.workers == 1:
        worker.run(config, listener)
        return 0
    return asyncio.run(workers.supervise(config, listener))


def _explain(error: OSError, config: Settings) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {config.router.port} on {config.router.host} is taken: stop what listens there (`ss -ltnp`), "
            "or choose another with PILOTLIGHT_ROUTER__PORT"
        )
    return str(error)


def _complain(text: str) -> int:
    print(f"router: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
