"""Says why a replica failed, in one line, for its agent and for operators. Steps 8 and 9. Standard library only.

The kernel's "No space left on device" names no place where a library asked for shared memory or a temporary file. The
failure to survive is an operator who looks at the wrong disk: the places that are full are named.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterable

SHARED_MEMORY = "/dev/shm"
LEAST = 1 << 20  # bytes free; with fewer nothing of an engine's fits


def failure(
    error: BaseException,
    *,
    places: Iterable[str] | None = None,
    free: Callable[[str], int] = lambda place: shutil.disk_usage(place).free,
) -> str:
    """The error's kind and words; `places`: where engines write besides the state folder."""
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename:
        return text
    try:
        looked_at = (SHARED_MEMORY, tempfile.gettempdir()) if places is None else places
        full = [place for place in looked_at if free(place) < LEAST]
    except OSError:  # a place that is not there, or a full disk on which no folder can be tried: the words alone
        full = []
    return (
        f"{text}; {' and '.join(full)} {'is' if len(full) == 1 else 'are'} full: free some space there"
        if full
        else text
    )
