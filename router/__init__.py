"""The public face: data path, ledger and admin API."""

import pilotlight  # noqa: F401  (before structlog: see there)
