"""How far a download from a hub is, in bytes, without a bar of the library's own. Beside `hub.py`.

huggingface_hub wants the class of a progress bar. It makes one for bytes written, one for bytes received and one for
files; ours listens to the first and says nothing of the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Progress = Callable[[int, int], None]  # bytes done, bytes in all
COUNTED = "Reconstructing"  # the beginning of what the bar for bytes written is called


def bar_class(progress: Progress | None) -> type[Any]:
    """A class that does what of a bar is used, and tells `progress`."""

    class Bar:
        _lock = threading.RLock()

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.n: float = kwargs.get("initial") or 0
            self.total: float = kwargs.get("total") or 0
            self.desc = str(kwargs.get("desc") or "")
            self.format_dict: dict[str, Any] = {}
            self.disable = False

        @classmethod
        def get_lock(cls) -> Any:
            return cls._lock

        @classmethod
        def set_lock(cls, lock: Any) -> None:
            cls._lock = lock

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            with self._lock:
                self.n += n or 0
                self._tell()

        def refresh(self, *args: Any, **kwargs: Any) -> None:
            self._tell()

        def _tell(self) -> None:
            if progress and self.desc.startswith(COUNTED):
                progress(int(self.n), max(int(self.total), int(self.n)))

        def set_description(self, *args: Any, **kwargs: Any) -> None:
            pass

        set_description_str = set_postfix = set_postfix_str = reset = close = set_description

    return Bar
