"""Fencing: a command older than one already seen comes from an activator that no longer leads. Step 7.

The epoch is kept in a file, written before its first command is obeyed: an agent started anew refuses the old leader too.
"""

from __future__ import annotations

from pathlib import Path

from pilotlight.files import write_atomic


class Fence:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.highest = self._read()

    def admit(self, at: tuple[int, int]) -> bool:
        """Is a command of this (epoch, sequence) not older than what was seen? If so it is the highest now. Raises OSError."""
        if at < self.highest:
            return False
        if at[0] > self.highest[0]:
            write_atomic(self._file, f"{at[0]} 0".encode())
        self.highest = at
        return True

    def _read(self) -> tuple[int, int]:
        try:
            epoch, sequence = self._file.read_text().split()
            return int(epoch), int(sequence)
        except (FileNotFoundError, ValueError):
            return 0, 0
