"""The tensors of a snapshot in the order in which their bytes lie, and so arrive. Steps 8 and 9, phase `load`.

Which files a model needs and what becomes of its tensors stays vLLM's own. Each tensor here is a view of the mapped
file, so nothing is copied on the way to the parameter. Of a snapshot that is still being fetched, a tensor is given out
only when every byte of it has been checked against the manifest. It must survive a fetch that ends half-way: that ends
the load.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from runtime.loader.device import DTYPES
from snapshots.arrival import Arrival
from snapshots.safetensors_header import BITS, Tensor, header_length, parse

LENGTH_BYTES = 8  # of the header's length


class ArrivingLoader(DefaultModelLoader):  # type: ignore[misc]
    """vLLM's own loader, fed from here. `partial`: the folder of a fetch that may still be under way
    (`snapshots/arrival.py`).
    """

    counter_before_loading_weights: float = 0.0  # seconds of perf_counter, for vLLM's own message

    def __init__(self, load_config: Any, partial: Path | None) -> None:
        super().__init__(load_config)
        self.arrival: Arrival | None = None
        if partial is not None:
            with suppress(FileNotFoundError):  # all of it has arrived meanwhile, and lies in the store
                self.arrival = Arrival(partial)

    def _get_weights_iterator(self, source: Any) -> Iterator[tuple[str, torch.Tensor]]:
        folder, files, _, _ = self._prepare_weights(
            source.model_or_path,
            source.subfolder,
            source.revision,
            source.fall_back_to_pt,
            source.allow_patterns_overrides,
        )
        if self.load_config.safetensors_load_strategy == "torchao":  # vLLM's own; it reads in another way
            self._wait_for_all(Path(folder), files)
            own: Iterator[tuple[str, torch.Tensor]] = super()._get_weights_iterator(source)
            return own
        self.counter_before_loading_weights = self.counter_before_loading_weights or time.perf_counter()
        return (
            (source.prefix + name, tensor)
            for name, tensor in tensors(Path(folder), sorted(map(Path, files)), self.arrival)
        )

    def _wait_for_all(self, folder: Path, files: list[str]) -> None:
        for file in map(Path, files):
            if self.arrival:
                self.arrival.wait(file.relative_to(folder).as_posix(), 0, file.stat().st_size)


def tensors(
    folder: Path, files: Iterable[Path], arrival: Arrival | None
) -> Generator[tuple[str, torch.Tensor], None, None]:
    """Name and tensor, in the order of the files and of the data in each. Raises FetchEnded, HeaderError, OSError."""
    for file in files:
        path = file.relative_to(folder).as_posix()
        with file.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        if arrival:
            arrival.wait(path, 0, LENGTH_BYTES)
        length = header_length(mapped[:LENGTH_BYTES], len(mapped))
        if arrival:
            arrival.wait(path, 0, LENGTH_BYTES + length)
        for tensor in parse(mapped[LENGTH_BYTES : LENGTH_BYTES + length], len(mapped)).tensors:
            if arrival:
                arrival.wait(path, tensor.begin, tensor.end)
            yield tensor.name, _view(mapped, tensor)


def _view(mapped: mmap.mmap, tensor: Tensor) -> torch.Tensor:
    """Private and writable, as torch wants it; nobody writes, so every page stays the page cache's."""
    dtype = DTYPES[tensor.dtype]
    if tensor.begin == tensor.end:
        return torch.empty(tensor.shape, dtype=dtype)
    aligned = tensor.begin % max(1, BITS[tensor.dtype] // 8) == 0
    content = torch.frombuffer(
        mapped if aligned else bytearray(mapped[tensor.begin : tensor.end]),
        dtype=torch.uint8,
        count=tensor.end - tensor.begin,
        offset=tensor.begin if aligned else 0,
    )
    return content.view(dtype).view(tensor.shape)
