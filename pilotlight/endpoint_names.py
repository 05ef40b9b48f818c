"""What an endpoint may be called: a DNS label in small letters, for it is part of its URL and may be a host's name.
Pure.

Command line, manifests, admin API and activator share it. The failure to survive is a name that one of them takes and
another does not. Its endpoint could be made and not removed.
"""

from __future__ import annotations

import re

PATTERN = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
SAID = "1 to 63 of a-z, 0-9 and inner hyphens"


def is_name(text: str) -> bool:
    return re.fullmatch(PATTERN, text) is not None
