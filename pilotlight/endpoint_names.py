"""What an endpoint may be called: a DNS label in small letters, for it is part of its URL, and may be a host's name
(`router.domain`). Pure.

Told once, for the command line, manifests, the admin API and the activator: a name that one of them takes and another
does not would be an endpoint that can be made and not removed.
"""

from __future__ import annotations

import re

PATTERN = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
SAID = "1 to 63 of a-z, 0-9 and inner hyphens"


def is_name(text: str) -> bool:
    return re.fullmatch(PATTERN, text) is not None
