"""Inputs by the thousand, each in a process that may be lost: no foreign error, no hang, no flood of memory, and no
code.

    python tests/hostile/fuzzing.py --inputs 20000 --seed 1        what `make fuzz` runs python tests/hostile/fuzzing.py
    --only NAME --first 123 --inputs 1 --keep FOLDER    one input again, which stays in the folder

An input is a function of its target's name, the seed and its number, so that a failure's line is all that is needed to
see it again.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaeworks.errors import VaeworksError
from vaeworks.words import MOST

SECONDS = 5.0
"""An answer may take no longer."""

MEMORY = 2**30
"""Bytes by which a process may grow while it answers."""

ADDRESSES = 8 * 2**30
"""Address space beyond what the process has: a larger claim is refused by the system, so that this machine stays
usable."""

LONGEST_MESSAGE = MOST + 100
"""Characters of an error's message: those that are kept of a longer one, and how many are left out."""

BATCH = 50
"""Inputs after which a process makes way for a fresh one."""

MODULES = ("fuzz_models", "fuzz_data", "fuzz_runs")

SECRET = "secret"
"""A folder beside the input's; an input may name what is in it (`../secret/image.png`), and nobody may open that."""

Input = Path | str
"""What a user would hand over."""


@dataclass(frozen=True)
class Target:
    """A way into the product, and inputs for it."""

    name: str
    make: Callable[[random.Random, Path], Input]
    """writes one input into this empty folder, and returns what a user would hand over"""
    use: Callable[[Input], object]
    """what the product does with it; a result is a right answer, and so is a VaeworksError"""


@dataclass(frozen=True)
class Failure:
    """An input that had a wrong answer."""

    target: str
    seed: int
    number: int
    why: str

    def __str__(self) -> str:
        return f"{self.target} --seed {self.seed} --first {self.number}: {self.why}"


def all_targets() -> list[Target]:
    """Every target of the modules beside this one."""
    sys.path.insert(0, str(Path(__file__).parent))
    found = [target for module in MODULES for target in importlib.import_module(module).TARGETS]
    twice = [name for name, count in Counter(target.name for target in found).items() if count > 1]
    assert not twice, f"two targets are called {twice}"
    return found


def fuzz(target: Target, seed: int, count: int, first: int = 0, keep: Path | None = None) -> Iterator[Failure]:
    """Wrong answers to the inputs `first` to `first + count - 1`. keep: a folder in which the inputs stay."""
    number, end = first, first + count
    while number < end:
        last = min(number + BATCH, end)
        for done, why in _batch(target, seed, range(number, last), keep):
            number = done + 1
            if why:
                yield Failure(target.name, seed, done, why)


def _batch(target: Target, seed: int, numbers: range, keep: Path | None) -> Iterator[tuple[int, str]]:
    """(number, what is wrong or nothing) of inputs until all are done or their process is lost."""
    with tempfile.TemporaryDirectory(prefix="vaeworks-fuzz-") as name:
        root = keep or Path(name)
        (root / SECRET).mkdir(parents=True, exist_ok=True)
        (root / SECRET / "image.png").write_bytes(b"nobody may read this")
        reading, writing = os.pipe()
        sys.stdout.flush()
        with warnings.catch_warnings(
            action="ignore"
        ):  # Python 3.12 warns where there are threads; ours compute nothing
            child = os.fork()
        if not child:
            os.close(reading)
            _work(target, seed, numbers, root, writing)
        os.close(writing)
        try:
            yield from _judged(reading, child, numbers)
        finally:
            os.close(reading)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _judged(reading: int, child: int, numbers: range) -> Iterator[tuple[int, str]]:
    """What the child reports, or what became of it."""
    lines = _Lines(reading)
    for number in numbers:
        if lines.next(60.0) != "made":
            yield number, "its generator failed or hung"
            return
        started = time.monotonic()
        answer = lines.next(4 * SECONDS)  # patience: with other work on the cores, a second is not a second
        if answer is None:
            yield number, f"no answer within {4 * SECONDS:.0f} s"
            return
        if answer == "":
            ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            yield number, f"the process died with {ended.si_status if ended else 'nothing said'}"
            return
        seconds, why = answer.split(" ", 1)
        if not why and float(seconds) > SECONDS:
            why = f"{float(seconds):.1f} s of processor time, {time.monotonic() - started:.1f} s in all"
        yield number, why


class _Lines:
    """Lines from a pipe, each within some seconds: None if none came, "" at the end."""

    def __init__(self, descriptor: int):
        self.descriptor, self.rest = descriptor, b""

    def next(self, seconds: float) -> str | None:
        until = time.monotonic() + seconds
        while b"\n" not in self.rest:
            if not select.select([self.descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            if not (more := os.read(self.descriptor, 65536)):
                return ""
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()


def _work(target: Target, seed: int, numbers: range, root: Path, pipe: int) -> None:
    """The child: makes and uses inputs, and reports; never returns."""
    guard = _Guard(root)
    keeps = root.name and not root.name.startswith("vaeworks-fuzz-")
    try:
        _limit_addresses()
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        sys.addaudithook(guard)
        for number in numbers:
            folder = root / f"{target.name.replace(' ', '-')}-{number}"
            folder.mkdir()
            given = target.make(random.Random(f"{target.name} {seed} {number}"), folder)
            os.write(pipe, b"made\n")
            before, started = _peak(), time.process_time()
            why = guard.watched(target.use, given)
            if not why and _peak() - before > MEMORY:
                why = f"{(_peak() - before) / 2**20:,.0f} MiB of memory"
            os.write(pipe, f"{time.process_time() - started:.3f} {why}\n".encode())
            if not keeps:
                shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


class _Guard:
    """An audit hook that sees programs, sockets, pickles, and files outside the input's folder, while it is on."""

    FORBIDDEN = (
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
        "subprocess.Popen",
        "pty.spawn",
        "socket.connect",
        "socket.bind",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "pickle.find_class",
        "webbrowser.open",
        "urllib.Request",
        "ftplib.connect",
    )
    CHANGES = (
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "shutil.rmtree",
    )
    NOT_TO_BE_READ = ("/etc/", "/dev/zero", "/dev/random", "/dev/urandom", "/root/.ssh", "/proc/")

    def __init__(self, root: Path):
        self.secret, self.seen, self.on = str((root / SECRET).resolve()), list[str](), False
        self.allowed = tuple(str(Path(p).resolve()) for p in (tempfile.gettempdir(), "/dev/null", "/dev/shm"))

    def watched(self, use: Callable[[Input], object], given: Input) -> str:
        """What is wrong with the answer, in a line; empty if nothing is."""
        self.seen, self.on = [], True
        why = ""
        try:
            with warnings.catch_warnings(action="ignore"):
                use(given)
        except VaeworksError as error:
            text = str(error)
            if len(text) > LONGEST_MESSAGE or not text.isprintable():
                why = f"a message of {len(text)} characters that is no line of print: {text[:100]!r}"
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            ours = [
                f
                for f in traceback.extract_tb(error.__traceback__)
                if "vaeworks" in f.filename and "fuzz" not in f.filename
            ]
            where = (
                f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
                if ours
                else f"{Path(place.filename).name}:{place.lineno}"
            )
            why = f"foreign error at {where}: {type(error).__name__}: {' '.join(str(error)[:200].split())}"
        finally:
            self.on = False
        return " ".join("; ".join([why, *self.seen[:2]] if why else self.seen[:2]).split())

    def __call__(self, event: str, values: tuple[object, ...]) -> None:
        if not self.on:
            return
        if event in self.FORBIDDEN:
            self._saw(f"{event} {str(values)[:100]}")
        elif event == "import" and str(values[0]).startswith("evil"):
            self._saw(f"import of {values[0]}")
        elif event == "open" and isinstance(values[0], (str, bytes)):
            path = os.path.realpath(os.fsdecode(values[0]))
            writes = isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if path.startswith((self.secret, *self.NOT_TO_BE_READ)) or (writes and not self._may_write(path)):
                self._saw(f"{'write to' if writes else 'open of'} {path[:100]}")
        elif event in self.CHANGES and isinstance(values[0], (str, bytes)):
            path = os.path.realpath(os.path.join(_folder_of(event, values), os.fsdecode(values[0])))
            if path.startswith(self.secret) or not self._may_write(path):
                self._saw(f"{event} {path[:100]}")

    def _may_write(self, path: str) -> bool:
        return path.startswith(self.allowed)

    def _saw(self, what: str) -> None:
        self.seen.append(f"forbidden: {what}")
        raise PermissionError(f"forbidden while fuzzing: {what}")


def _folder_of(event: str, values: tuple[object, ...]) -> str:
    """What a relative name is relative to: an open folder (`dir_fd`), as of shutil.rmtree, or the working directory."""
    number = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.chmod": 2, "os.rename": 2, "os.link": 2}.get(event)
    folder = values[number] if number is not None and number < len(values) else -1
    opened = f"/proc/self/fd/{folder}"
    return os.readlink(opened) if isinstance(folder, int) and folder >= 0 and os.path.exists(opened) else os.getcwd()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _limit_addresses() -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():
        has = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + ADDRESSES, resource.RLIM_INFINITY))


def main(words: Sequence[str] | None = None) -> int:
    """Fuzz all targets alike, print what failed, and return 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="targets whose name contains this")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--keep", type=Path, help="folder in which the inputs stay")
    given = parser.parse_args(words)
    targets = [target for target in all_targets() if given.only is None or given.only in target.name]
    failures = 0
    for i, target in enumerate(targets):
        count = given.inputs // len(targets) + (i < given.inputs % len(targets))
        started, wrong = time.monotonic(), 0
        for failure in fuzz(target, given.seed, count, given.first, given.keep):
            wrong += 1
            if wrong <= 20:
                print(failure, flush=True)
        failures += wrong
        print(f"{target.name}: {count:,} inputs, {wrong} failures, {time.monotonic() - started:.0f} s", flush=True)
    print(f"{given.inputs:,} inputs, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
