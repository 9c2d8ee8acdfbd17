"""docs/architecture.md: every path that it names exists, and its three walks are the calls that happen."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
import torch

import vaeworks as vw
from vaeworks.cli import main

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "vaeworks"
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SMALL = {"channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "norm_groups": 4, "mid_attention": False}


def named_paths() -> Iterator[str]:
    """What stands in backquotes, or begins a line of the layout, and looks like a file or a folder."""
    layout = TEXT.split("```")[1]
    for line in layout.strip().splitlines():
        yield from re.findall(r"^(?:[\w.]+(?:/|\.py) ?)+", line)[0].split()
        package = line.split()[0]
        yield from (package + inner for inner in re.findall(r"(?<![\w/])(\w+/)(?![\w])", line[len(package) :]))
    for text in re.findall(r"`([^`\n]+)`", TEXT.replace("```", "")):
        if re.fullmatch(r"[\w./-]+(/|\.py|\.md)", text):
            yield text
        elif re.fullmatch(r"images\.\w+", text):
            yield "images/"


@pytest.mark.parametrize("name", sorted(set(named_paths())))
def test_paths_exist(name: str) -> None:
    """Below the package, or below the repository."""
    if "NAME" in name or name.split("/")[0] in ("RUN", ".next"):
        return
    assert (SRC / name).exists() or (ROOT / name).exists(), f"docs/architecture.md names {name}, which is not there"


def walks(command: str) -> list[list[tuple[str, str]]]:
    """The walks below a command's heading, each as lines of (file, function)."""
    section = re.split(r"\n##+ ", TEXT.split(f"### `vaeworks {command}")[1])[0]
    found = [re.findall(r"^([\w/]+\.py) +([\w.]+)$", block, re.M) for block in section.split("```")[1::2]]
    return [walk for walk in found if walk]


class Stacks:
    """The calls below one command that lead to one function: (file, function) of every frame in the package."""

    def __init__(self, last: tuple[str, str]):
        self.last, self.found = last, set[tuple[tuple[str, str], ...]]()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_qualname == self.last[1] and place(frame) == self.last:
            stack, here = [], frame
            while here is not None:
                if (name := place(here)) is not None:
                    stack.append(name)
                here = here.f_back
            self.found.add(tuple(reversed(stack)))


def place(frame: FrameType) -> tuple[str, str] | None:
    """(file, function) of a frame of the package; None for those of others and for anonymous functions."""
    path, name = Path(frame.f_code.co_filename), frame.f_code.co_qualname
    if SRC not in path.parents or name.rpartition(".")[2] in ("<lambda>", "<genexpr>", "<listcomp>", "<dictcomp>"):
        return None
    return path.relative_to(SRC).as_posix(), name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("walks") / "vae.safetensors"
    torch.manual_seed(0)
    vw.save(vw.build(vw.AutoencoderConfig(**SMALL)), path)
    return path


def words(command: str, model: Path, folder: Path) -> list[str]:
    """The command on a small input."""
    if command == "train":
        options = "--images 8 --batch 4 --data.size 16 --data.workers 0 --stats-images 8 --model.channels 8 "
        options += "--model.norm-groups 4 --model.channel-mult 1 2 --precision fp32 --data.val-fraction 0.2"
        return ["train", "small-f8c16", "--data", "photos", "--out", str(folder / "run"), *options.split()]
    if command == "decode":
        assert main(["encode", str(model), "photos", "--out", str(folder / "latents"), "--overwrite"]) == 0
        latents = sorted((folder / "latents").rglob("*.safetensors"))[0]
        return ["decode", str(model), str(latents), "--out", str(folder / "decoded"), "--memory", "60MiB"]
    options = ["--size", "32", "--quick", "--panels", "scale"]
    return ["doctor", str(model), "--data", "photos", "--out", str(folder / "doctor"), *options]


@pytest.mark.parametrize(
    ("command", "expected"),
    [(command, walk) for command in ("train", "decode", "doctor") for walk in walks(command)],
    ids=lambda value: value if isinstance(value, str) else value[-1][1],
)
def test_walks_are_the_calls_that_happen(
    command: str, expected: list[tuple[str, str]], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command to the last line: nothing between two lines but other libraries and anonymous functions."""
    monkeypatch.setenv("VAEWORKS_CACHE", str(tmp_path / "cache"))
    given = words(command, model, tmp_path)
    watch = Stacks(expected[-1])
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        assert main(given) == 0
    finally:
        sys.setprofile(before)
    stacks = [[call for call in stack if call[0] != "cli/main.py"] for stack in watch.found]
    assert expected in stacks, "docs/architecture.md; the calls are:\n" + "\n\n".join(
        "\n".join(f"{file}  {name}" for file, name in stack) for stack in sorted(stacks, key=len)[:9]
    )
