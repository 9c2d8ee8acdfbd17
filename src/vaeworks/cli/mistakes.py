"""What is wrong with a command's words, as a sentence: the parser's message, with the option that was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

OTHER_NAMES = {
    "learning-rate": ("optimizer.lr",),
    "lr": ("optimizer.lr",),
    "iterations": ("images", "steps"),
    "samples": ("count", "images"),
    "num-images": ("images", "limit", "count"),
    "n": ("images", "limit", "count"),
    "batch-size": ("batch",),
    "train-batch-size": ("batch",),
    "gradient-accumulation-steps": ("micro-batch",),
    "weight-decay": ("optimizer.weight-decay",),
    "warmup": ("optimizer.warmup-images",),
    "clip": ("optimizer.clip-norm",),
    "max-grad-norm": ("optimizer.clip-norm",),
    "kl-weight": ("loss.beta",),
    "lpips-weight": ("loss.perceptual-weight",),
    "perceptual": ("loss.perceptual-weight",),
    "resolution": ("size", "data.size"),
    "image-size": ("size", "data.size"),
    "size": ("data.size",),
    "num-workers": ("workers", "data.workers"),
    "workers": ("data.workers",),
    "val-split": ("val-fraction", "data.val-fraction"),
    "latent-channels": ("model.latent-channels",),
    "ema": ("ema-halflife",),
    "ema-decay": ("ema-halflife",),
    "mixed-precision": ("precision", "dtype"),
    "fp16": ("precision", "dtype", "for"),
    "bf16": ("precision", "dtype"),
    "half": ("precision", "dtype"),
    "gpu": ("device",),
    "cuda": ("device",),
    "minutes": ("max-minutes",),
    "time": ("max-minutes",),
    "output": ("out",),
    "output-dir": ("out",),
    "save-to": ("out",),
    "dataset": ("data",),
    "data-dir": ("data",),
    "train-data-dir": ("data",),
    "input": ("data",),
    "pretrained": ("from",),
    "init-from": ("from",),
    "finetune": ("from",),
    "checkpoint": ("from", "for"),
    "yes": ("overwrite",),
    "limit": ("images", "prior-images"),
    "max-images": ("images", "limit"),
    "num-samples": ("samples", "count", "images"),
    "random-seed": ("seed",),
}
"""Names that other programs give to options, without dashes in front, and ours, the best first."""

UNITS = {
    "epochs": "a run's length is counted in images: --images = epochs x images of the data",
    "steps": "a run's length is counted in images: --images = steps x --batch",
}
"""How to convert what is given, by the end of the foreign name."""

_FRAME = "╭╮╰╯│─-"
"""What the parser draws around and between the parts of its messages, on terminals of all kinds."""


HELPS = ("--help", "--help-all")
"""Options that show help instead of doing anything."""


def sentence(message: str, command: str, options: Sequence[str], words: Sequence[str]) -> str:
    """The parser's message, which has a heading, parts and a hint in a frame, as a line that ends with the remedy.

    command: such as "vaeworks train". options: all of the command. words: what was given. An option that there is not
    stands first, because the parser names none where an argument is missing; alone where it means help.
    """
    strange = [word for word in words if _is_strange(word, options)]
    if helps := [word for word in strange if set(meant(word, options)) & set(HELPS)]:
        return "; ".join([*_unknown(helps[:1], command, options), f"see {command} --help"])
    parts = list(_parts(message))
    headed = len(parts) > 1 and not message.lstrip().startswith("╭")
    told = [said for part in parts[headed:] for said in _said(part, command, options)]
    return "; ".join(dict.fromkeys([*_unknown(strange, command, options), *told, f"see {command} --help"]))


def _is_strange(word: str, options: Sequence[str]) -> bool:
    """Whether a word looks like an option and is none of these. The parser takes underscores for dashes."""
    name = word.partition("=")[0]
    return bool(re.match(r"--?[A-Za-z]{2}", name)) and name.replace("_", "-") not in options


def _parts(message: str) -> Iterator[str]:
    """The parts of a message, without frames, headings, hints at help and the parser's own proposals."""
    words = list[str]()
    for line in [*message.splitlines(), "─"]:
        text = line.strip(" │")
        if text.strip(_FRAME):
            words += [] if text.startswith("╭") else text.split()
        elif words:
            part = " ".join(words).rstrip(".:")
            words = []
            if not part.startswith(_ITS_HINTS):
                yield part


def _said(part: str, command: str, options: Sequence[str]) -> Iterator[str]:
    """The sentences about a part of a message."""
    if found := re.match(r"Unrecognized options: (.*)", part):
        yield from _unknown(re.split(r",? ", found[1]), command, options)
    elif found := re.match(r"Missing from [^:]*: ?(.*)", part):
        yield from (_missing(what.strip()) for what in found[1].split("(required)") if what.strip())
    elif found := re.match(_NO_NUMBER, part):
        yield f"{found[1]} {found[4]} must be {'a whole number' if found[2] else 'a number'}"
    elif found := re.match(r"invalid choice (.*) for argument '?(\S+?)'?\. Expected one of \((.*?),?\)", part):
        choices = [choice.strip(" '") for choice in found[3].split(",")]
        yield f"{found[2]} {found[1]} must be {'one of ' if len(choices) > 1 else ''}{', '.join(choices)}"
    elif found := re.match(r"Missing value for argument '?(\S+?)'?\.", part):
        yield f"{found[1]} needs a value"
    else:
        yield part


_ITS_HINTS = ("For full helptext", "Arguments similar to", "Perhaps you meant", "Argument helptext")
"""Beginnings of parts that this module says better."""

_NO_NUMBER = r"Error parsing (\S+): (?:invalid literal for (int)|could not convert string to (float)).*: (.*)"


def _missing(what: str) -> str:
    """A sentence about an option or argument without a value: its name, and what it takes."""
    name, _, rest = what.partition(" ")
    if name.startswith("-"):
        metavar, _, rest = rest.partition(" ")
        name = f"{name} {metavar}"
    return f"{name} is missing" + (f": {rest}" if rest else "")


def _unknown(given: Sequence[str], command: str, options: Sequence[str]) -> Iterator[str]:
    """A sentence for each option that there is not, with those that may be meant. The values behind them are theirs."""
    flags = [word for word in given if re.match(r"--?[A-Za-z]{2}", word)]
    for word in flags:
        name = word.partition("=")[0]
        near = meant(word, options)
        unit = next((said for end, said in UNITS.items() if name.endswith(end) and near == ["--images"]), "")
        hint = f"; {unit}" if unit else f"; did you mean {' or '.join(near)}?" if near else ""
        yield f"{name} is no option of {command}{hint}"
    if given and not flags:
        yield f"{' '.join(map(repr, given))} is more than {command} takes"


def meant(name: str, options: Sequence[str]) -> list[str]:
    """The options that an unknown one may mean, the best first: by another program's name, by the last part of ours, by
    its spelling."""
    bare = name.partition("=")[0].lstrip("-").replace("_", "-").lower()
    if bare.endswith(tuple(UNITS)) and {"--images", "--batch"} <= set(options):
        return ["--images"]
    if f"--{bare}" in options:
        return [f"--{bare}"]
    if known := _ours(bare, options):
        return known
    if ends := sorted((option for option in options if option.endswith((f".{bare}", f"-{bare}"))), key=len):
        return ends[:2]
    if near := difflib.get_close_matches(f"--{bare}", options, n=1, cutoff=0.7):
        return near
    tails = {option.rpartition(".")[2].lstrip("-"): option for option in reversed(options)}
    if tail := difflib.get_close_matches(bare, tails, n=1, cutoff=0.75):
        return [tails[tail[0]]]
    other = difflib.get_close_matches(bare, OTHER_NAMES, n=1, cutoff=0.8)
    return _ours(other[0], options) if other else []


def _ours(foreign: str, options: Sequence[str]) -> list[str]:
    """The option that has another name in other programs, if the command has it."""
    return [f"--{ours}" for ours in OTHER_NAMES.get(foreign, ()) if f"--{ours}" in options][:1]
