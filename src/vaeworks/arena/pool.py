"""A pool of processes for tasks of minutes, each of which keeps its results so that it can be stopped and continued."""

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
from multiprocessing.connection import wait as wait_for
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
    """A top-level function of a module, which other processes can import."""

    def __call__(self, task: Task, wanted: Callable[[], bool], tell: Callable[[int], None]) -> Result | None:
        """Do or continue a task. wanted: returns whether to stop soon, and return None. tell: gets the images seen."""
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

    jobs: processes; 1: this process. told: gets every task that ends, and its result. progress: gets the images seen by
    all tasks.
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
"""In a worker process: the stop event, the array of images seen, and the parent's process id."""

_working = threading.Lock()
"""In a worker process: held while a task runs."""


def _begin(stop: Event, seen: Any, threads: int, parent: int) -> None:
    """Set up a worker process: it ignores signals and stops at the end of a step, on request or without its parent."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _shared.update(stop=stop, seen=seen, parent=parent)
    threading.Thread(target=_end_without_parent, daemon=True).start()


def _end_without_parent() -> None:
    """End this worker process when its parent is gone and its task, if it has one, has kept its results.

    A worker of the pool would wait for its next task for ever: it holds both ends of the queue.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    with _working:
        os._exit(1)


def _in_worker(work: Work[Any, Any], number: int, task: Any) -> Any:
    def tell(images: int) -> None:
        _shared["seen"][number] = images

    with _working:
        return work(task, lambda: _shared["stop"].is_set() or os.getppid() != _shared["parent"], tell)


@contextmanager
def heard() -> Iterator[None]:
    """In a worker process, pass a stop request on as a signal, for functions that react to signals only, such as
    `train`."""
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
    """Number of tasks at once: one per core, or one on a GPU. Errors: ConfigError for less than one."""
    if jobs is None:
        return 1 if device.type == "cuda" else cores()
    if jobs < 1:
        raise ConfigError(f"jobs (={jobs}) must be at least 1")
    return jobs
