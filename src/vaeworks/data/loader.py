"""Prepare batches of crops in worker processes, and replace workers that die."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..distributed import starting
from ..errors import DataError
from ..launcher import cores
from .crops import BatchShare, CropSource, Loaded, Say

DEATHS = 3
"""Most deaths of workers in a row, without a batch in between."""

Load = Callable[[list[Any]], Loaded]
Sent = tuple[Tensor | np.ndarray, dict[int, str]]
"""A `Loaded` on its way from another process."""


def batches(
    crops: CropSource,
    start: int,
    stop: int,
    batch: int,
    workers: int,
    *,
    rank: int = 0,
    world: int = 1,
    say: Say | None = None,
) -> Generator[tuple[Tensor, list[int]]]:
    """Crops start..stop of a run in batches: uint8 n c size size, and their counters. A smaller last batch is left out.

    batch: images per batch over all `world` data-parallel processes, a multiple of `world`. Process `rank` gets its
    part of each batch, so that all processes together see the images that one process would see. workers: processes
    that prepare crops; dead ones are replaced, which changes no crop. say: gets a line about each death.
    Errors: DataError that names an image which cannot be read any more, after all batches before it; DataError where
    workers keep dying.
    """
    say = say or _silent
    workers = min(workers, cores())
    with (
        closing(crops.parts(start, stop, batch, rank, world, say)) as parts,
        closing(_by_workers(crops.load, parts, workers, say) if workers else _alone(crops.load, parts)) as loaded,
    ):
        for part, values in loaded:
            yield crops.finish(part, values, say), part.counters


def _alone(load: Load, parts: Iterator[BatchShare]) -> Generator[tuple[BatchShare, Loaded]]:
    for part in parts:
        yield part, _pinned(load(part.work))


def _by_workers(
    load: Load, parts: Iterator[BatchShare], workers: int, say: Say
) -> Generator[tuple[BatchShare, Loaded]]:
    """Every part with what `load` makes of it, in order; two for each worker are on the way."""
    waiting: deque[BatchShare] = deque()
    ending: list[DataError] = []
    deaths = 0
    while True:
        try:
            with _processes(load, workers) as submit:
                coming: deque[Future[Any]] = deque()
                while True:
                    # after a death one at a time, so that a batch that kills its process harms none before it
                    while len(coming) < (1 if deaths else 2 * workers):
                        if len(coming) == len(waiting):
                            if (part := _next(parts, ending)) is None:
                                break
                            waiting.append(part)
                        coming.append(submit(waiting[len(coming)].work))
                    if not coming:
                        break
                    values = _arrived(coming.popleft().result())
                    deaths = 0
                    yield waiting.popleft(), values
        except BrokenProcessPool:
            deaths += 1
            first = waiting[0].counters[0]
            if deaths > DEATHS:
                raise DataError(
                    f"the processes that prepare images died {deaths} times in a row at image {first:,}; if memory ran "
                    "out, lower data.workers (0: none) or data.cache-mib, or in a container raise its shared memory"
                ) from None
            say(f"a process that prepares images died, perhaps for lack of memory; new ones go on at image {first:,}")
            continue
        except _NoProcessesError as error:
            say(f"no process that prepares images could be started ({error}); this one does it, which is slower")
            for part in itertools.chain(waiting, iter(lambda: _next(parts, ending), None)):
                yield part, _pinned(load(part.work))
        if ending:
            raise ending[0]
        return


def _next(parts: Iterator[BatchShare], ending: list[DataError]) -> BatchShare | None:
    """The next part; None at the end. An error at the end waits in `ending` until all parts before it are done."""
    try:
        return next(parts, None)
    except DataError as error:
        ending.append(error)
        return None


@contextmanager
def _processes(load: Load, workers: int) -> Iterator[Callable[[list[Any]], Future[Any]]]:
    """Start worker processes; the context is a function that gives them work. Its futures hold `Sent`, or on GPU
    machines `Loaded` in page-locked memory.

    Errors: _NoProcessesError.
    """
    hears_end, tells_end = multiprocessing.Pipe(duplex=False)
    try:
        pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(load, hears_end))
        with starting():
            pool.submit(os.getpid)  # they start now, before there are other threads, whose locks they would inherit
    except OSError as error:  # /dev/shm has no room for their locks, or the system none for processes
        raise _NoProcessesError(error.strerror or str(error)) from None
    pinning = ThreadPoolExecutor(1) if torch.cuda.is_available() else None

    def submit(work: list[Any]) -> Future[Any]:
        future = pool.submit(_work, work)
        return pinning.submit(lambda: _pinned(_arrived(future.result()))) if pinning else future

    try:
        yield submit
    finally:
        # a pool waits until its workers have ended in order, which they cannot where a dead one had the lock of their
        # queue
        tells_end.send_bytes(b"end")
        pool.shutdown(cancel_futures=True)
        if pinning:
            pinning.shutdown(cancel_futures=True)
        hears_end.close()
        tells_end.close()


class _NoProcessesError(Exception):
    """No process can be started."""


_load: Load
"""The function of a worker process."""


def _start(load: Load, hears_end: Connection) -> None:
    """Begin a worker process."""
    global _load
    _load = load
    torch.set_num_threads(1)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes of a terminal; the training one decides what it means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # training has a handler of its own
    threading.Thread(target=_wait_for_end, args=(hears_end,), daemon=True).start()


def _wait_for_end(hears_end: Connection) -> None:
    """End this worker process at the signal in the pipe, which stays unread so that all workers see it, or when the
    training process is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel, hears_end])
    os._exit(0)


def _work(work: list[Any]) -> Sent:
    """Run in a worker process: crops in shared memory or, if that is full, as an array for the pipe."""
    crops, rest = _load(work)
    try:
        return crops.share_memory_(), rest
    except (RuntimeError, OSError):
        return crops.numpy(), rest


def _arrived(sent: Sent) -> Loaded:
    crops, rest = sent
    return (crops if isinstance(crops, Tensor) else torch.from_numpy(crops)), rest


def _pinned(loaded: Loaded) -> Loaded:
    return (loaded[0].pin_memory(), loaded[1]) if torch.cuda.is_available() else loaded


def _silent(message: str) -> None:
    pass
