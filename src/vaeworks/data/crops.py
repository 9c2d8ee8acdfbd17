"""The stream of training crops."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..config import DataConfig
from ..errors import DataError
from ..images import open_image, to_uint8
from .folder import ImageFile
from .order import Order
from .transforms import random_crop


class Crops(Dataset[tuple[Tensor, int]]):
    """Training crops by image counter: crop k of a run is the same wherever and whenever it is asked for."""

    def __init__(self, files: tuple[ImageFile, ...], config: DataConfig, seed: int, channels: int = 3):
        self.files = files
        self.config = config
        self.seed = seed
        self.channels = channels
        self.order = Order(len(files), seed)
        self._cache: dict[int, Image.Image] = {}
        self._cached_bytes = 0

    def __getitem__(self, counter: int) -> tuple[Tensor, int]:
        """Crop number `counter`: uint8 c size size, and the counter."""
        image = self._image(self.order[counter])
        crop = random_crop(image, self.config.size, self.config.min_scale, self.config.flip, self.seed, counter)
        return to_uint8(crop), counter

    def _image(self, index: int) -> Image.Image:
        if index in self._cache:
            return self._cache[index]
        file = self.files[index]
        try:
            image = open_image(file.path, self.channels)
        except DataError as error:
            raise DataError(f"{file.path} could be read when the run started and cannot now: {error}") from None
        if image.size != (file.width, file.height):
            raise DataError(
                f"{file.path} had {file.width}x{file.height} pixels when the run started and has {image.width}x{image.height} now"
            )
        size = image.size[0] * image.size[1] * self.channels
        if self._cached_bytes + size <= self.config.cache_mib * 2**20:
            self._cache[index] = image
            self._cached_bytes += size
        return image


def batches(crops: Crops, start: int, stop: int, batch: int, workers: int) -> Iterator[tuple[Tensor, list[int]]]:
    """Crops start..stop of a run in batches: uint8 n c size size, and their counters. A last, smaller batch is left out.

    Errors: DataError naming the file that cannot be read any more.
    """
    loader = DataLoader(
        _Attempts(crops),
        batch_size=batch,
        sampler=range(start, stop),
        num_workers=min(workers, _cores()),
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
        collate_fn=_collate,
        worker_init_fn=_ignore_interrupt,
    )
    for result in loader:
        if isinstance(result, DataError):
            raise result
        yield result


class _Attempts(Dataset):
    """Crops, or the error as a value: raised in a worker, it would come as a traceback, and its workers end 5 s late."""

    def __init__(self, crops: Crops):
        self.crops = crops

    def __getitem__(self, counter: int) -> tuple[Tensor, int] | DataError:
        try:
            return self.crops[counter]
        except DataError as error:
            return DataError(str(error))


def _cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _collate(samples: list) -> tuple[Tensor, list[int]] | DataError:
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
    return torch.stack([crop for crop, _ in samples]), [counter for _, counter in samples]


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the training process decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
