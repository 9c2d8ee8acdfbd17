"""The page of a run: everything inside it, right figures, readable in any state of the run, small and quick for long
runs."""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folder import CONFIG, finish_run, go_on, start_run

from vaeworks.config import AdversarialConfig, RegularizerConfig
from vaeworks.pages import chart, thinned
from vaeworks.training.monitor.log import train_log
from vaeworks.training.monitor.page import RunPage, Status, spread

SUPERVISED = dataclasses.replace(
    CONFIG,
    adversarial=AdversarialConfig(discriminator="patch"),
    regularizers=RegularizerConfig(scale_equivariance=0.25),
)


def discriminator(t: float) -> dict[str, float]:
    """What a step line has besides while a discriminator learns."""
    found = {"scale_equivariance": 0.02}
    if t > 0.5:
        found |= {
            "discriminator_loss": 0.8,
            "accuracy_real": 0.7123,
            "accuracy_fake": 0.6,
            "logit_real": 0.5,
            "logit_fake": -0.5,
        }
        found |= {"adversarial": 0.3, "adaptive_weight": 1e3, "adversarial_weight": 0.1}
    return found


def interrupted(folder: Path) -> None:
    """Three quarters of a run, with what may happen in one."""
    with train_log(folder, SUPERVISED, show=False) as log:
        go_on(folder, log, SUPERVISED, looks=3, more=discriminator)
        log.event(2000, "the discriminator <learns> unfelt", action="save")
        log.event(2500, "3 of 4 channels & more have collapsed", alarm=True, kind="posterior collapse")
        log.event(2600, "the latents blow up", alarm=True, kind="latent blow-up")
        log.event(2800, "the latents are calm again", kind="latent blow-up")
        raise KeyboardInterrupt("stopped at 3,000 images; saved something")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a discriminator that is interrupted at three quarters."""
    folder = start_run(tmp_path_factory.mktemp("runs"), SUPERVISED, recipe="small-f8c16")
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder)
    return folder


def page(run: Path, status: Status, config: Any = SUPERVISED) -> str:
    RunPage(run, config).write(status)
    return (run / "report.html").read_text()


def titles(text: str) -> list[str]:
    return re.findall(r"<h[23]>(.*?)</h[23]>", text)


def test_the_page_is_self_contained_and_whole(run: Path) -> None:
    """No address of anything outside, pictures inside with alternative texts, names of files and sentences escaped,
    every tag closed."""
    text = page(run, Status("training", 0.75, 123.4, 3723.0))
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "@import" not in text
    pictures = re.findall(r"<img [^>]*>", text)
    assert len(pictures) == 1 + 1 + 4  # the sheet; the original and a reconstruction of each look
    assert all('src="data:image/' in p and 'alt="' in p for p in pictures)
    assert "the discriminator &lt;learns&gt; unfelt" in text
    assert "broken &lt;b&gt;.png" in text
    assert "<b>.png" not in text
    for tag in ("svg", "div", "figure", "b", "span", "details", "table", "ol", "li", "p", "main"):
        assert len(re.findall(rf"<{tag}[ >]", text)) == text.count(f"</{tag}>"), tag


def test_the_page_has_the_logs_figures(run: Path) -> None:
    """Headlines, curves of all that was on, newest values, counts of images, what differs from the recipe."""
    text = page(run, Status("training", 0.75, 123.4, 3723.0))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    look = [line for line in lines if "val_psnr" in line][-1]
    assert f"<b>{look['val_psnr']:.2f} dB</b>" in text
    assert f"<b>{look['val_ssim']:.4f}</b>" in text
    data = json.loads((run / "data.json").read_text())
    assert f"{len(data['train'])} images of" in text
    assert f"{len(data['val'])} are held out" in text
    drawn = {
        "PSNR, dB",
        "objective and its terms",
        "scale equivariance",
        "standard deviation",
        "what a channel carries, nats per element",
        "share it is right about",
        "distance of the logits",
        "weight of the adversarial term",
        "learning rate",
    }
    assert drawn <= set(titles(text))
    assert "0.71" in text
    assert "training, 75 % done" in text
    assert "123.4 images/s, about 1:02:03 left" in text
    assert "<code>images 4000</code> (recipe: 200000)" in text
    assert f"vaeworks train small-f8c16 --data {run.parent / 'dogs'} --out {run} --resume" in text


def test_alarms_stand_at_the_top_until_they_are_over(run: Path) -> None:
    """The open one twice, at the top and in the order of events, newest first; the one that is over only there."""
    text = page(run, Status("training", 0.75))
    top = text[: text.index('class="figures"')]
    assert "3 of 4 channels" in top
    assert "blow up" not in top
    assert "calm" not in top
    below = text[text.index('class="events"') :]
    assert (
        below.index('class="over">the latents are calm')
        < below.index('class="yes">the latents blow')
        < below.index('class="yes">3 of 4')
    )


def test_states(run: Path) -> None:
    """An interrupted run says so and why, and does not load itself again; one that trains does; one that failed gives
    the error."""
    with pytest.raises(ZeroDivisionError), train_log(run, SUPERVISED, images_seen=3000, show=False):
        raise ZeroDivisionError("the loss was <nan>")
    failed = (run / "report.html").read_text()
    assert "failed at" in failed
    assert "the loss was &lt;nan&gt;" in failed
    with pytest.raises(KeyboardInterrupt), train_log(run, SUPERVISED, images_seen=3000, show=False):
        raise KeyboardInterrupt("stopped at 3,000 images; continue with: something")
    stopped = (run / "report.html").read_text()
    assert "stopped at" in stopped
    assert "continue with: something" in stopped
    training = page(run, Status("training", 0.5))
    assert "location.reload" in training
    assert 'http-equiv="refresh"' in training
    for text in (failed, stopped):
        assert "location.reload" not in text
        assert "refresh" not in text


def test_a_finished_run(tmp_path: Path) -> None:
    """Figures of result.json, no bar, no resuming, the finished model; an alarm that is open at the end stays at the
    top."""
    folder = start_run(tmp_path)
    with train_log(folder, CONFIG, show=False) as log:
        go_on(folder, log, CONFIG)
        log.event(4000, "something is wrong", alarm=True, kind="overfitting")
        finish_run(folder)
        log.finish()
    text = (folder / "report.html").read_text()
    assert "<b>finished</b>" in text
    assert "1:30:00" in text
    assert "--resume" not in text
    assert f'vw.load("{folder}")' in html.unescape(text)
    assert 'class="bar"' not in text
    assert "something is wrong" in text[: text.index('class="figures"')]
    assert (folder / "README.md").is_file()
    assert "Discriminator" not in titles(text)


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    """No line, no picture, no look: a page nevertheless."""
    folder = start_run(tmp_path)
    assert "training, 0 % done" in page(folder, Status("training", 0.0), CONFIG)
    with train_log(folder, CONFIG, show=False) as log:
        log.step(100, {"loss": None, "psnr": 20.0, "bits_per_dimension": None})
    assert "20.00 dB" in page(folder, Status("training", 0.1), CONFIG)


def test_a_streamed_source(tmp_path: Path) -> None:
    """Images that are not known one by one are not counted."""
    folder = start_run(tmp_path)
    data = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({**data, "train": [], "streamed": {"shards": 3, "val_fraction": 0.1}}))
    assert "are trained on as they come" in page(folder, Status("training", 0.0), CONFIG)


def test_long_runs_have_small_pages_quickly(tmp_path: Path) -> None:
    """20,000 steps and 1,000 looks with 64 channels, all terms on: below 2 MB, and a second or two on a busy
    machine."""
    model = dataclasses.replace(CONFIG.model, latent_channels=64)
    config = dataclasses.replace(SUPERVISED, model=model)
    folder = start_run(tmp_path, config)
    lines: list[dict[str, Any]] = []
    for i in range(20_000):
        lines.append(
            {
                "images_seen": 100 * i,
                "loss": 0.1 + math.sin(i),
                "reconstruction": 0.1,
                "psnr": 20 + math.sin(i),
                "kl": 1.0,
                "bits_per_dimension": 1.4,
                "grad_norm": 0.3,
                "lr": 1e-4,
                **discriminator(1.0),
            }
        )
        if i % 20 == 0:
            channels = [1 + 0.01 * c + 0.1 * math.sin(i + c) for c in range(64)]
            lines.append(
                {
                    "images_seen": 100 * i,
                    "val_psnr": 20.0,
                    "val_ssim": 0.8,
                    "latent_mean": channels,
                    "latent_std": channels,
                    "latent_absmax": 5.0,
                    "posterior_std": channels,
                    "kl_per_channel": channels,
                }
            )
        if i % 100 == 0:
            lines.append(
                {"images_seen": 100 * i, "event": f"event {i} " + "words " * 20, "alarm": i % 200 == 0, "action": None}
            )
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    writer = RunPage(folder, config)
    writer.write(Status("training", 0.5))
    started = time.process_time()
    writer.write(Status("training", 0.5))
    assert time.process_time() - started < 4  # measured: about 1
    assert (folder / "report.html").stat().st_size < 1_500_000


def test_the_strip_reaches_from_the_first_to_the_last_look() -> None:
    """At most so many, the early ones closer together, none twice."""
    for count in (1, 2, 11, 12, 40, 1000):
        shown = spread(range(count), 11)
        assert shown[0] == 0
        assert shown[-1] == count - 1
        assert len(shown) <= 11
        assert sorted(set(shown)) == shown
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    assert gaps == sorted(gaps)


def test_thinning_keeps_means_and_ends() -> None:
    """Equal parts: the mean of a rise stays, points stay in order and within the limit, holes are passed over."""
    line = [(float(x), None if x % 7 == 3 else 2.0 * x) for x in range(5000)]
    points = thinned(line, 100)
    assert len(points) == 100
    assert all(y == pytest.approx(2 * x) for x, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert thinned([(0.0, float("nan")), (1.0, 5.0)]) == [(1.0, 5.0)]


figures = st.floats(min_value=-1e30, max_value=1e30) | st.floats(min_value=1e-12, max_value=1e-3) | st.none()


@given(st.lists(figures, max_size=30), st.booleans(), st.integers(0, 10**9))
def test_any_figures_can_be_drawn(values: list[float | None], log: bool, step: int) -> None:
    """Constant, huge, tiny, negative, one, none: every point and every rule lies within the picture, or there is
    none."""
    svg = chart("title", {"a": [(i * step, value) for i, value in enumerate(values)]}, log=log, levels={"level": 1.0})
    if all(value is None for value in values):
        assert svg == ""
        return
    numbers = [float(x) for points in re.findall(r'points="([^"]*)"', svg) for x in re.split("[ ,]", points)]
    assert all(-0.5 <= x <= 460.5 for x in numbers)
    assert "nan" not in svg
    assert "inf" not in svg
    assert 'class="rule"' in svg


def test_rounding_is_no_course() -> None:
    """A constant figure whose means differ in the last bits is a level line with rules around it."""
    svg = chart("title", {"a": [(i, 0.1 if i % 2 else math.nextafter(0.1, 1)) for i in range(10)]})
    heights = {point.split(",")[1] for point in re.findall(r'points="([^"]*)"', svg)[0].split()}
    assert len(heights) == 1
    assert len(set(re.findall(r'text-anchor="end">([^<]*)<', svg))) > 2
