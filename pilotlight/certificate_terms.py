"""How long our certificates are good, and the names that each of them has. For `tls.py`, which looks, and
`certificates.py`, which makes.
"""

from __future__ import annotations

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397  # the longest that browsers accept
RENEW_DAYS = 30
# OpenSSL refuses a wildcard right below a top-level name: `*.localhost` is for other clients, the second for all.
ALWAYS = ("localhost", "127.0.0.1", "::1", "*.localhost", "*.pilotlight.localhost")


class NameRefused(ValueError):
    """A name that cannot stand in a certificate; the text says which and why."""
