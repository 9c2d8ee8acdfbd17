"""Work above two seconds says how far it is: functions to their reporter, training on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configs import TINY
from PIL import Image

import vaeworks as vw
from vaeworks.training import measure_latents


class Bars(vw.Reporter):
    """Keeps what bars have shown, by their titles: how much was done, and of how much."""

    def __init__(self) -> None:
        self.shown: dict[str, list[tuple[int, int]]] = {}

    def track(self, items: Iterable[Any], what: str) -> Iterable[Any]:
        items = list(items)
        for number, item in enumerate(items, 1):
            yield item
            self.shown.setdefault(what, []).append((number, len(items)))

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: self.shown.setdefault(what, []).append((done, total))

    bytes = counting


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six images."""
    root = tmp_path_factory.mktemp("bars")
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


LOOKING = "looking at images"
OF_MODELS: dict[str, tuple[str, Callable[[Any, str, Bars, Path], object]]] = {
    "repair: activations": (
        "measuring activations",
        lambda vae, data, bars, out: vw.repair(vae, out, data=data, layout="diffusers", reporter=bars),
    ),
    "repair: precisions": (
        "comparing precisions",
        lambda vae, data, bars, out: vw.repair(vae, data=data, reporter=bars),
    ),
    "evaluate": (LOOKING, lambda vae, data, bars, out: vw.evaluate(vae, data, reporter=bars)),
    "examine_models": (
        LOOKING,
        lambda vae, data, bars, out: vw.examine_models([vae], data, panels=["scale"], size=16, reporter=bars),
    ),
    "encode": (
        LOOKING,
        lambda vae, data, bars, out: vw.encode(vae, data, out, into="shards", size=16, workers=0, reporter=bars),
    ),
    "sample": (LOOKING, lambda vae, data, bars, out: vw.sample(vae, data=data, count=2, size=16, reporter=bars)),
    "detect_anomalies": (
        LOOKING,
        lambda vae, data, bars, out: vw.detect_anomalies(vae, normal=data, false_alarms=0.5, reporter=bars),
    ),
    "restore": (
        LOOKING,
        lambda vae, data, bars, out: vw.restore(vae, data, noise=9, prior=data, prior_size=16, steps=1, reporter=bars),
    ),
    "augment": (
        LOOKING,
        lambda vae, data, bars, out: vw.augment(vae, data, out, labels="names", per_image=1, reporter=bars),
    ),
}


@pytest.mark.parametrize("use", OF_MODELS)
def test_bars_reach_their_end(use: str, place: Path, tmp_path: Path) -> None:
    """A bar begins, moves on, and ends at the whole."""
    title, function = OF_MODELS[use]
    torch.manual_seed(0)
    bars = Bars()
    try:
        function(vw.build(TINY).eval(), place, bars, tmp_path / "out")
    except vw.VaeworksError:  # six images are few for some; the bar comes before
        assert title == LOOKING
    shown = bars.shown[title]
    done = [number for number, _ in shown]
    assert len(shown) > 1 and done == sorted(done) and shown[-1][0] == shown[-1][1]
    assert title != LOOKING or shown[-1] == (6, 6)


def test_the_statistics_after_training(place: Path) -> None:
    """`measure_latents` counts images until the number that it takes."""
    from vaeworks.config import DataConfig
    from vaeworks.data import scan, training_crops

    seen: list[tuple[int, int]] = []
    crops = training_crops(scan(place), DataConfig(size=16, workers=0), 0, 3)
    stats = measure_latents(vw.build(TINY), crops, 10, 4, lambda done, total: seen.append((done, total)))
    assert seen == [(4, 8), (8, 8)] and stats.num_images == 8


def test_training_shows_bars_on_a_terminal(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at the images before, and measuring the latents after; without a terminal, no bar."""
    titles: list[str] = []
    from rich.progress import Progress

    original = Progress.add_task

    def noted(self: Progress, description: str, *arguments: Any, **options: Any) -> Any:
        if not self.disable:
            titles.append(description)
        return original(self, description, *arguments, **options)

    monkeypatch.setattr(Progress, "add_task", noted)
    vw.train("small-f4c4-tiny", place, tmp_path / "silent")
    assert titles == []
    monkeypatch.setenv("FORCE_COLOR", "1")
    vw.train("small-f4c4-tiny", place, tmp_path / "shown")
    assert titles[0] == "looking at images" and titles[-1] == "measuring the latents"
