"""Pieces of work that take minutes, in as many processes as there are cores; each keeps what it makes, so that any can
be stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any, Protocol, TypeVar

import torch

from ..distributed import starting
from ..errors import ConfigError, TrainingError
from ..launcher import cores, share_cores
from ..training.interrupt import SIGNALS, Interrupt

Task = TypeVar("Task", contravariant=True)
Result = TypeVar("Result", covariant=True)
Key = TypeVar("Key", bound=Hashable)


class Work(Protocol[Task, Result]):
    """A function of a module's top level, which other processes can find."""

    def __call__(self, task: Task, wanted: Callable[[], bool], tell: Callable[[int], None]) -> Result | None:
        """Do a task, from where it was left. wanted: whether to stop soon, and return None; tell: is told images
        seen."""
        ...


def run_all(
    work: Work[Any, Any],
    tasks: Mapping[Key, Any],
    jobs: int,
    *,
    told: Callable[[Any, Any], None],
    progress: Callable[[int], None] = lambda images: None,
) -> dict[Key, Any]:
    """Every task's result.

    jobs: processes; 1: this one. told: is given every task that ends, and its result. progress: is told the images seen
    by all.
    Errors: KeyboardInterrupt after Ctrl-C or SIGTERM, with everything kept; TrainingError where a process was killed;
    those of `work`.
    """
    with Interrupt() as interrupt:
        run = _here if jobs == 1 or len(tasks) < 2 else partial(_in_processes, jobs=jobs)
        made = run(work, tasks, told=told, progress=progress, wanted=lambda: interrupt.wanted)
    if len(made) < len(tasks):
        raise KeyboardInterrupt("stopped; what is done is kept, and the same command goes on from there")
    return made


def _here(
    work: Work[Any, Any],
    tasks: Mapping[Key, Any],
    told: Callable[[Any, Any], None],
    progress: Callable[[int], None],
    wanted: Callable[[], bool],
) -> dict[Key, Any]:
    made: dict[Key, Any] = {}
    before = seen = 0

    def tell(images: int) -> None:
        nonlocal seen
        seen = images
        progress(before + images)

    for key, task in tasks.items():
        before, seen = before + seen, 0
        result = None if wanted() else work(task, wanted, tell)
        if result is None:
            break
        made[key] = result
        told(task, result)
    return made


_shared: dict[str, Any] = {}
"""In a worker process: the event that asks to stop, the array of images seen, and who began it."""


def _begin(stop: Event, seen: Any, threads: int, parent: int) -> None:
    """A worker process is not interrupted itself: it is told to stop, at the end of a step; and it ends when its parent
    has gone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _shared.update(stop=stop, seen=seen, parent=parent)


def _in_worker(work: Work[Any, Any], number: int, task: Any) -> Any:
    def tell(images: int) -> None:
        _shared["seen"][number] = images

    return work(task, lambda: _shared["stop"].is_set() or os.getppid() != _shared["parent"], tell)


@contextmanager
def heard() -> Iterator[None]:
    """In a worker process, a wish to stop reaches what listens to signals alone, such as `train`; elsewhere signals
    come by themselves."""
    done = threading.Event()

    def listen() -> None:
        while not done.wait(0.2):
            if _shared["stop"].is_set() or os.getppid() != _shared["parent"]:
                os.kill(os.getpid(), signal.SIGTERM)  # ignored but while somebody listens

    listener = threading.Thread(target=listen, daemon=True)
    if _shared:
        listener.start()
    try:
        yield
    finally:
        done.set()
        if _shared:
            listener.join()


def _in_processes(
    work: Work[Any, Any],
    tasks: Mapping[Key, Any],
    told: Callable[[Any, Any], None],
    progress: Callable[[int], None],
    wanted: Callable[[], bool],
    jobs: int,
) -> dict[Key, Any]:
    made: dict[Key, Any] = {}
    share_cores()
    context = multiprocessing.get_context("spawn")
    stop, seen = context.Event(), context.Array("q", len(tasks))
    threads = max(1, torch.get_num_threads() // jobs)

    def collect(patience: float | None) -> None:
        for future in wait(waiting, patience, "FIRST_COMPLETED").done:
            key = waiting.pop(future)
            try:
                result = future.result()
            except BrokenProcessPool:
                raise TrainingError(
                    "a process was killed, perhaps for want of memory; what is done is kept, and the same command goes "
                    "on from there: try fewer --jobs"
                ) from None
            if result is not None:
                made[key] = result
                told(tasks[key], result)

    with ProcessPoolExecutor(jobs, context, _begin, (stop, seen, threads, os.getpid())) as pool:
        waiting: dict[Future[Any], Key] = {}
        rest = list(enumerate(tasks.items()))
        try:
            while (rest or waiting) and not stop.is_set():
                while rest and len(waiting) < jobs:
                    number, (key, task) = rest.pop(0)
                    with starting():
                        future = pool.submit(_in_worker, work, number, task)
                    waiting[future] = key
                collect(0.2)
                progress(sum(seen[:]))
                if wanted():
                    stop.set()
        finally:
            stop.set()
        while waiting:  # they end with their step
            collect(None)
    return made


def check_jobs(jobs: int | None, device: torch.device) -> int:
    """How many run at once: one a core, or one on a GPU. Errors: ConfigError for less than one."""
    if jobs is None:
        return 1 if device.type == "cuda" else cores()
    if jobs < 1:
        raise ConfigError(f"jobs (={jobs}) must be at least 1")
    return jobs
