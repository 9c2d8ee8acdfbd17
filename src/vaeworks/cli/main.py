"""The command line. A skin: it parses, calls, and prints; it computes nothing.

Commands are plain functions in a plain dict, and their signatures are their options. Results go to stdout: tables and
lines, or with --json what a command returns, as one document; bars and warnings go to stderr. torch is imported only
once a command runs.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import io
import itertools
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import PaintConfig, TrainConfig, dumps, from_dict, to_dict
from ..errors import ConfigError, VaeworksError, shortage
from ..launcher import share_cores, shared, speaks, tells
from ..recipes import RECIPES, paint_recipe, recipe
from ..words import close_if_broken, one_line, speak
from .anomaly import anomaly
from .arena import arena
from .arena_report import arena_report
from .arena_study import arena_study
from .augment import augment
from .bake import bake
from .console import description, summary
from .convert import convert
from .decode import decode
from .demo import demo
from .doctor import doctor
from .edit import edit
from .encode import encode
from .eval import evaluate
from .exit_status import FailOnTriggered
from .export import export
from .extract import extract
from .features import features
from .fold import fold
from .generate import generate
from .inspect import inspect
from .install import install
from .interpolate import interpolate
from .listen import listen
from .match import match
from .parsing import ALL, parsed
from .recipes import recipes
from .reconstruct import reconstruct
from .repair import repair
from .restore import restore
from .sample import sample
from .train import train
from .train_pipeline import train_pipeline
from .vary import vary

COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "recipes": recipes,
    "train": train,
    "train-pipeline": train_pipeline,
    "eval": evaluate,
    "doctor": doctor,
    "arena": arena,
    "arena study": arena_study,
    "arena report": arena_report,
    "reconstruct": reconstruct,
    "encode": encode,
    "decode": decode,
    "generate": generate,
    "interpolate": interpolate,
    "vary": vary,
    "sample": sample,
    "edit": edit,
    "restore": restore,
    "anomaly": anomaly,
    "listen": listen,
    "augment": augment,
    "features": features,
    "inspect": inspect,
    "convert": convert,
    "export": export,
    "extract": extract,
    "bake": bake,
    "install": install,
    "match": match,
    "fold": fold,
    "repair": repair,
}
"""Commands by name."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 1 a finding that --fail-on asked for or values that are no
    numbers, 2 a user's error, 130 interrupted."""
    share_cores()
    words = list(sys.argv[1:] if argv is None else argv)
    as_json, debug = (_take(words, flag) for flag in ("--json", "--debug"))
    words = list(_with_weights(words))
    try:
        return _run(words, as_json)
    except VaeworksError as error:
        if debug:
            raise
        _tell(error, str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe has gone
        for stream in (sys.stdout, sys.stderr):
            close_if_broken(stream)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        if debug:
            raise
        _tell(error, f"{_place(error)}: {error.strerror or error}")
        return 2
    except (MemoryError, RuntimeError) as error:
        what = shortage(error)
        if debug or what is None:
            raise
        _tell(error, what)
        return 2
    except KeyboardInterrupt as stop:
        _tell(stop, str(stop) or "interrupted")
        return 130


def _run(words: list[str], as_json: bool) -> int:
    """Do what the words say, and print what comes of it."""
    try:
        if not words or words[0] in ("-h", "--help"):
            _print_help()
            return 0 if words else 2
        if words[0] == "--version":
            print(f"vaeworks {__version__}")
            return 0
        _bear_all_characters()
        with _plain_warnings(), _plain_logs(), _terminated_as_interrupted():
            command = _command(words)
            # of what others print, libraries too, nothing may stand beside the document
            with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
                result = command()
        if as_json and speaks():
            print(dumps(result), flush=True)
        return 0
    except FailOnTriggered as judged:
        if as_json and speaks():
            print(dumps(judged.result), flush=True)
        for sentence in judged.sentences:
            speak(f"vaeworks: {sentence}")
        return judged.exit_code


def _bear_all_characters() -> None:
    """Let stdout escape what its encoding lacks, as stderr does, instead of failing after the work."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _place(error: OSError) -> str:
    """What an error of the system is about."""
    if error.filename is not None:
        return os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(error.filename)
    return "a disk or /dev/shm" if error.errno == errno.ENOSPC else "a file"


def _tell(error: BaseException, text: str) -> None:
    """One line about an error; of several processes that have it, one tells it."""
    if tells(error):
        speak(f"vaeworks: {text}")


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, so that nothing half-written stays behind."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt("terminated")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as lines for people, without the place in the source that Python shows."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: speak(f"vaeworks: {message}") if speaks() else None
        yield


class _PlainRecord(logging.LogRecord):
    """What a library logs, as a line: names from files may stand in it."""

    def getMessage(self) -> str:  # noqa: N802 - the standard library's name
        return one_line(super().getMessage())


@contextlib.contextmanager
def _plain_logs() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(_PlainRecord)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


def _command(words: list[str]) -> Callable[[], Any]:
    """As `_bound`; what is wrong with the words is so in every process that a launcher has started with them."""
    try:
        return _bound(words)
    except VaeworksError as error:
        raise shared(error) from error.__cause__


def _bound(words: list[str]) -> Callable[[], Any]:
    """The command that these words name, with the arguments that they give.

    Errors: ConfigError for words that are no command or do not fit it.
    """
    name, *rest = words
    if " ".join(words[:2]) in COMMANDS:
        name, rest = " ".join(words[:2]), words[2:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise ConfigError(
            f"unknown command {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COMMANDS)}")
        )

    @functools.wraps(COMMANDS[name])
    def bind(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(COMMANDS[name], *args, **kwargs)

    defaults = {"train": _default_config, "train-pipeline": _default_painting}
    function = functools.partial(bind, config=defaults[name](rest)) if name in defaults else bind
    return parsed(name, function, rest, description(COMMANDS[name]))


HELP = ("-h", "--help", ALL)


def _default_config(words: list[str]) -> TrainConfig:
    """What `train`'s options default to: the recipe's numbers, or those of the run that --resume continues."""
    if not words or words[0] in HELP:
        return TrainConfig()
    if words[0].startswith("-"):
        raise ConfigError(
            f"the recipe comes first: vaeworks train RECIPE --data SRC --out RUN; known: {', '.join(RECIPES)}"
        )
    default = recipe(words[0])
    folder = _option(words, "--out")
    if "--resume" in words and folder is not None:
        from ..training.run.folder import read_run

        default = read_run(Path(folder)).config
    # the parser prints defaults by itself, and a run's are words of a file
    return from_dict(TrainConfig, _shown(to_dict(default))) if set(HELP) & set(words) else default


def _default_painting(words: list[str]) -> PaintConfig:
    """As `_default_config`, for `train-pipeline`."""
    default = paint_recipe(_option(words, "--recipe") or "paint-tiny")
    folder = _option(words, "--out")
    if "--resume" in words and folder is not None:
        from ..painting.folder import read_record

        default = read_record(Path(folder)).config
    return from_dict(PaintConfig, _shown(to_dict(default))) if set(HELP) & set(words) else default


def _option(words: list[str], name: str) -> str | None:
    """The value of an option among the words; None without it."""
    pairs = itertools.zip_longest(words, words[1:])
    return next((w.partition("=")[2] or n for w, n in pairs if w.partition("=")[0] == name), None)


def _shown(value: Any) -> Any:
    """Plain values with their strings as they may stand before a reader."""
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(each) for each in value]
    return one_line(value) if isinstance(value, str) else value


def _take(words: list[str], flag: str) -> bool:
    """Remove a flag that every command knows; whether it was there."""
    present = flag in words
    while flag in words:
        words.remove(flag)
    return present


def _with_weights(words: list[str]) -> Iterator[str]:
    """The words, with `--weights NAME`, which chooses one of the VAEs in a file, as a fact about the model."""
    waiting = iter(words)
    for word in waiting:
        if word == "--weights" and (name := next(waiting, None)) is not None:
            yield from ("--set", f"weights={name}")
        elif word.startswith("--weights="):
            yield from ("--set", word.removeprefix("--"))
        else:
            yield word


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False, markup=False)
    out.print(
        "vaeworks COMMAND ...: build, train, test, swap and run the VAEs of Stable Diffusion and its successors\n"
    )
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, command in COMMANDS.items():
        table.add_row(name, summary(command))
    out.print(table)
    out.print(
        "\nvaeworks COMMAND --help lists the options of a command. Every command takes --json (one JSON document on "
        "stdout) and --debug (tracebacks)."
    )
