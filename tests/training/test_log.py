"""A run's log: lines that depend on nothing but the run, what people see of them, and trackers that never stop a
run."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import random
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from vaeworks.config import AdversarialConfig, AutoencoderConfig, BottleneckConfig, TrainConfig
from vaeworks.errors import ConfigError, MissingExtraError
from vaeworks.training.gan.balance_state import StepPlan
from vaeworks.training.monitor import trackers as trackers_module
from vaeworks.training.monitor.log import RunLog, last_look, read_log, train_log
from vaeworks.training.monitor.log_schema import duration, number, percent, plain, written
from vaeworks.training.monitor.terminal import SPARK, Curve, Pace, train_view
from vaeworks.training.monitor.trackers import Trackers, check_trackers
from vaeworks.training.validation import ValidationResult

CONFIG = TrainConfig(
    model=AutoencoderConfig(channels=8, channel_mult=(1, 2), norm_groups=4), images=4000, val_every=500, trackers=()
)
SUPERVISED = dataclasses.replace(CONFIG, adversarial=AdversarialConfig(discriminator="patch"))


def looked(psnr: float, kl: float = 3.0) -> ValidationResult:
    picture = Image.new("RGB", (16, 52))
    return ValidationResult(psnr, 0.8, (0.0,) * 4, (1.0,) * 4, 5.0, (0.1,) * 4, (kl,) * 4, picture)


def happen(log: RunLog, since: int, until: int) -> None:
    """What a run of CONFIG does between two counts of images: steps, looks that raise alarms, events."""
    for images in range(since + 100, until + 1, 100):
        rng = random.Random(images)
        log.live(images, images / CONFIG.images)
        log.step(
            images,
            {"loss": rng.random(), "psnr": 20 + rng.random(), "grad_norm": 0.3, "lr": 1e-4, "bits_per_dimension": 2.5},
        )
        if images % 500 == 0:
            log.look(images, looked(20 + images / 1000, kl=0.001 if 1000 < images < 3000 else 3.0))
        if images == 1700:
            log.event(images, "the discriminator starts", action="save")


def test_a_resumed_log_is_the_undisturbed_one(tmp_path: Path) -> None:
    """Wherever a run is killed and from whichever checkpoint it goes on, its log ends up the same, byte for byte,
    alarms included."""
    whole = tmp_path / "whole"
    whole.mkdir()
    with train_log(whole, CONFIG, show=False) as log:
        happen(log, 0, 4000)
    expected = (whole / "log.jsonl").read_text()
    assert {"posterior collapse"} == {line["kind"] for line in read_log(whole) if "kind" in line}
    assert [line["alarm"] for line in read_log(whole) if "kind" in line] == [True, False]
    for saved, killed in ((100, 100), (1000, 1400), (1500, 2000), (1700, 1700), (2000, 3900), (4000, 4000)):
        run = tmp_path / f"{saved}-{killed}"
        run.mkdir()
        with train_log(run, CONFIG, show=False) as log:
            happen(log, 0, killed)
        with (run / "log.jsonl").open("a") as file:
            file.write('{"images_seen": 90, "lo')  # torn in the middle of a line
        with train_log(run, CONFIG, images_seen=saved, show=False) as log:
            happen(log, saved, 4000)
        assert (run / "log.jsonl").read_text() == expected, (saved, killed)


def test_lines_are_json_for_everyone(tmp_path: Path) -> None:
    """Figures that are not finite are null, not NaN, which only Python reads; lists and words stay."""
    with train_log(tmp_path, CONFIG, show=False) as log:
        log.step(100, {"loss": float("nan"), "grad_norm": float("inf"), "psnr": 20.0, "shape": (1, float("-inf"))})
        log.look(200, looked(float("nan")))
        log.event(300, 'said "so"', alarm=True, action="halve", kind="learning rate")
    text = (tmp_path / "log.jsonl").read_text()
    first, second, third = (json.loads(line, parse_constant=pytest.fail) for line in text.splitlines())
    assert first == {"images_seen": 100, "loss": None, "grad_norm": None, "psnr": 20.0, "shape": [1, None]}
    assert second["val_psnr"] is None
    assert second["kl_per_channel"] == [3.0] * 4
    assert third == {
        "images_seen": 300,
        "event": 'said "so"',
        "alarm": True,
        "action": "halve",
        "kind": "learning rate",
    }
    assert last_look(tmp_path, 1000) == (200, None, None)
    assert last_look(tmp_path, 150) == (None, None, None)


def test_the_silent_twin_does_nothing(tmp_path: Path, capfd, monkeypatch) -> None:
    """Every method is there, and neither a file nor a word comes of it."""
    monkeypatch.chdir(tmp_path)
    with RunLog.silent() as log:
        log.config(CONFIG)
        log.say("hello")
        happen(log, 0, 2000)
        log.finish()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_in_a_file_there_is_a_line_for_each_look_and_event(tmp_path: Path, capsys) -> None:
    """Nothing is redrawn where nobody watches, and steps say nothing."""
    with train_log(tmp_path, CONFIG) as log:
        happen(log, 0, 2000)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    lines = [line for line in err.splitlines() if "report.html" not in line and "page" not in line]
    looks = [line for line in lines if "on held-out images" in line]
    assert len(looks) == 4
    assert "500 images   12 %  20.50 dB, SSIM 0.8000 on held-out images" in looks[0]
    assert "2.5 bits/dim" in looks[0]
    assert sum("the discriminator starts" in line for line in lines) == 1
    assert sum("alarm: posterior collapse" in line for line in lines) == 1
    assert len(lines) == 6


def test_without_held_out_images_there_are_lines_nevertheless(tmp_path: Path, capsys) -> None:
    """As often as there would be looks."""
    with train_log(tmp_path, CONFIG) as log:
        for images in range(100, 2001, 100):
            log.step(images, {"loss": 0.1, "psnr": 20.0})
    assert sum("loss 0.1, 20.00 dB" in line for line in capsys.readouterr().err.splitlines()) == 3  # 600, 1200, 1800


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_log as t
with t.train_log(Path(sys.argv[2]), t.CONFIG) as log:
    t.happen(log, 0, 2000)
    raise KeyboardInterrupt("stopped at 2,000 images")
"""


def test_on_a_terminal_the_view_is_redrawn_and_cleaned_up(tmp_path: Path) -> None:
    """A pseudo-terminal: the view and its last state are there, drawn a few times only, and the cursor is back after an
    interruption."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "LINES": "40", "TERM": "xterm-256color"}
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path)]
    process = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    said = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        said += chunk
    os.close(ours)
    assert process.wait() != 0
    text = said.decode()
    assert "PSNR, held out" in text
    assert "2,000 of 4,000 images" in text
    assert "the discriminator starts" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
    assert text.count("2,000 of 4,000 images") < 10


ODD = {
    "loss": float("inf"),
    "psnr": None,
    "grad_norm": float("nan"),
    "lr": "fast",
    "kl": -1e30,
    "bits_per_dimension": 1e300,
    "spectrum": None,
}


@pytest.mark.parametrize("width", [20, 40, 60, 80, 81, 120, 200])
def test_the_view_fits_any_terminal_and_any_figure(width: int) -> None:
    """No line is wider than the terminal, whatever the figures are; what is missing is a dash."""
    view = train_view(SUPERVISED)
    view.step(100, 0.5, StepPlan("ramp", True, 0.123456))
    for images in range(100, 3000, 100):
        view.take({"images_seen": images, **ODD})
        view.take(
            {
                "images_seen": images,
                "loss": 0.1,
                "accuracy_real": None,
                "logit_real": 1e9,
                "logit_fake": None,
                "adaptive_weight": 1e4,
            }
        )
    view.take({"images_seen": 3000, "val_psnr": None, "val_ssim": None})
    view.take({"images_seen": 3000, "event": "word " * 60, "alarm": True, "action": "restore"})
    console = Console(file=io.StringIO(), width=width, height=50, force_terminal=True, color_system=None)
    console.print(view)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    assert any("–" in line for line in lines)
    assert "ramp" in " ".join(lines)
    assert "nan" not in view.line() + " ".join(lines)


def test_the_view_shows_what_the_log_says() -> None:
    """Figures, regularizers by name, the discriminator while it learns, the last events; the plain line says the
    same."""
    view = train_view(SUPERVISED)
    view.step(1234, 0.3, StepPlan("adversarial", False, 0.5))
    view.take(
        {
            "images_seen": 1200,
            "loss": 0.1234,
            "psnr": 23.456,
            "bits_per_dimension": 1.5,
            "scale_equivariance": 0.02,
            "accuracy_real": 0.7,
            "accuracy_fake": 0.6,
            "logit_real": 1.0,
            "logit_fake": -0.5,
            "adversarial_weight": 0.2,
        }
    )
    view.take({"images_seen": 1200, "val_psnr": 25.0, "val_ssim": 0.9})
    view.take({"images_seen": 1234, "val_psnr": 24.0, "val_ssim": 0.88})
    for i in range(9):
        view.take({"images_seen": i, "event": f"event {i}", "alarm": False, "action": None})
    console = Console(file=io.StringIO(), width=140, color_system=None, force_terminal=True)
    console.print(view)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for word in (
        "30 %",
        "1,234 of 4,000",
        "0.1234",
        "23.46 dB",
        "1.5 bits/dim",
        "scale equivariance",
        "24.00 dB",
        "25.00 dB",
        "0.8800",
        "paused, weight 0.5",
        "70 %",
        "60 %",
        "logits 1.5 apart",
        "event 8",
        "event 5",
    ):
        assert word in text, word
    assert "event 4" not in text
    assert "24.00 dB, SSIM 0.8800 on held-out images; loss 0.1234, 23.46 dB, 1.5 bits/dim in training" in view.line()
    view.take({"images_seen": 1300, "loss": 0.1, "psnr": 23.0})
    console.file.seek(0)
    console.file.truncate()  # a discriminator that no longer learns has no figures
    console.print(view)
    assert "logits" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_pace_is_that_of_the_last_minute() -> None:
    """100 images/s for long and then 10: soon 10, and the time left follows; a run by the clock is told right as
    well."""
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.rate is None
    assert pace.left is None
    pace.step(0, 0.0)
    seen = 0
    for rate in (100, 10):
        for _ in range(1200):
            now += 0.1
            seen += rate // 10
            pace.step(seen, now / 480)  # a run of eight minutes
        assert pace.rate == pytest.approx(rate, rel=0.02)
        assert pace.left == pytest.approx(480 - now, rel=0.05)
    assert len(pace._marks) < 130


@pytest.mark.parametrize("count", [0, 1, 2, 3, 11, 12, 13, 24, 25, 100, 10_001])
def test_small_curves_show_the_whole_run(count: int) -> None:
    """At most eight characters, from the lowest at the start to the highest at the end of a rise, however long it
    is."""
    curve = Curve()
    for i in range(count):
        curve.add(float(i))
    text = str(curve)
    assert len(text) <= SPARK + 1
    if count >= 3:
        assert text[0] == "▁"
        assert text[-1] == "█"
        assert list(text) == sorted(text)
    else:
        assert text == ""


def test_numbers_for_people() -> None:
    """Absent and infinite ones are dashes; booleans and words are no numbers."""
    assert [number(x) for x in (1, 2.5, True, None, "3", float("nan"), float("inf"))] == [
        1.0,
        2.5,
        None,
        None,
        None,
        None,
        None,
    ]
    assert [duration(x) for x in (None, -1.0, 59.6, 3723)] == ["–", "0:00", "1:00", "1:02:03"]
    assert (written(float("nan")), written(0.12345), percent(0.666), percent(None)) == ("–", "0.123", "67 %", "–")
    assert plain({"a": (1, float("nan")), "b": {"c": float("inf")}}) == {"a": [1, None], "b": {"c": None}}


# ------------------------------------------------------------------ trackers


class Recorder(types.ModuleType):
    """A stand-in for wandb and trackio that writes down what it is told."""

    def __init__(self, name: str):
        super().__init__(name)
        self.calls: list[tuple[Any, ...]] = []
        self.id = "abc123"

    def init(self, **options: Any) -> Recorder:
        print("noise on stdout")
        self.calls.append(("init", options))
        return self

    def Image(self, picture: Image.Image) -> str:
        return f"picture {picture.size}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **options: self.calls.append((name, *args, options))


def tracked(run: Path, name: str, images_seen: int = 0) -> None:
    config = TrainConfig(trackers=(name,))  # type: ignore[arg-type]
    with train_log(run, config, images_seen, show=False) as log:
        log.step(images_seen + 100, {"loss": 0.5, "psnr": float("nan"), "phase": "ramp"})
        log.look(images_seen + 200, looked(25.0))
        log.event(images_seen + 200, "something is wrong", alarm=True)


def test_wandb_gets_numbers_by_images_and_goes_on_under_the_same_id(tmp_path: Path, monkeypatch, capsys) -> None:
    """Scalars alone, x axis images seen, alarms as alerts, pictures; a resumed run has the id that is kept in the run
    folder."""
    wandb = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run = tmp_path / "dogs"
    run.mkdir()
    tracked(run, "wandb")
    assert capsys.readouterr().out == ""  # stdout belongs to --json
    init = wandb.calls[0][1]
    assert (init["project"], init["name"], init["id"], init["config"]["batch"]) == ("vaeworks", "dogs", None, 16)
    assert ("log", {"images_seen": 100, "loss": 0.5}, {}) in wandb.calls
    assert ("log", {"images_seen": 200, "val_psnr": 25.0, "val_ssim": 0.8, "latent_absmax": 5.0}, {}) in wandb.calls
    assert ("log", {"images_seen": 200, "reconstructions": "picture (16, 52)"}, {}) in wandb.calls
    assert ("define_metric", "*", {"step_metric": "images_seen"}) in wandb.calls
    assert [call[-1]["text"] for call in wandb.calls if call[0] == "alert"] == ["something is wrong"]
    assert wandb.calls[-1][0] == "finish"
    tracked(run, "wandb", images_seen=200)
    assert [call[1]["id"] for call in wandb.calls if call[0] == "init"] == [None, "abc123"]


def test_trackio_goes_on_only_where_a_run_goes_on(tmp_path: Path, monkeypatch, capsys) -> None:
    """A new run never continues another one of the same name; steps are images."""
    trackio = Recorder("trackio")
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    tracked(tmp_path, "trackio")
    tracked(tmp_path, "trackio", images_seen=200)
    assert capsys.readouterr().out == ""
    assert [call[1]["resume"] for call in trackio.calls if call[0] == "init"] == ["never", "allow"]
    assert ("log", {"loss": 0.5}, {"step": 100}) in trackio.calls
    assert [call[-1]["text"] for call in trackio.calls if call[0] == "alert"] == ["something is wrong"] * 2


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    """Read back by TensorBoard itself: scalars by images seen, the picture, the alarm as text."""
    tracked(tmp_path, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "val_psnr", "val_ssim", "latent_absmax"}
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("val_psnr")] == [(200, 25.0)]
    assert events.Tags()["images"] == ["reconstructions"]
    assert events.Tags()["tensors"] == ["alarms/text_summary"]


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(tmp_path: Path, monkeypatch) -> None:
    """At the start or on the way, whatever it raises: told once in one line, and the others still get everything."""
    said: list[str] = []
    good, bad = Recorder("wandb"), Recorder("trackio")
    monkeypatch.setitem(sys.modules, "wandb", good)
    monkeypatch.setitem(sys.modules, "trackio", bad)

    def broken(*args: Any, **options: Any) -> None:
        raise RuntimeError("no\nnetwork")

    monkeypatch.setattr(bad, "log", broken, raising=False)
    both = Trackers(("trackio", "wandb"), tmp_path, CONFIG, 0, said.append)
    for images in (100, 200, 300):
        both.scalars(images, {"loss": 1.0})
    both.close()
    assert said == ["trackio is left out from now on, because it failed (RuntimeError: no network); the run goes on"]
    assert sum(call[0] == "log" for call in good.calls) == 3
    monkeypatch.setattr(good, "init", broken)
    Trackers(("wandb",), tmp_path, CONFIG, 0, said.append).scalars(100, {"loss": 1.0})
    assert len(said) == 2


def test_what_is_not_installed_is_said_before_any_work(tmp_path: Path, monkeypatch) -> None:
    """wandb and trackio were asked for, so their absence is an error that names the extra; TensorBoard's is only
    told."""
    monkeypatch.setattr(trackers_module.importlib.util, "find_spec", lambda name: None)
    for name in ("wandb", "trackio"):
        with pytest.raises(MissingExtraError, match=rf"vaeworks\[{name}\]"):
            check_trackers((name,))
    check_trackers(("tensorboard",))
    with pytest.raises(ConfigError, match="unknown tracker 'mlflow'"):
        check_trackers(("mlflow",))
    said: list[str] = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    Trackers(("tensorboard",), tmp_path, CONFIG, 0, said.append).scalars(100, {"loss": 1.0})
    assert said == ["tensorboard is left out, because it is not installed: pip install 'vaeworks[tensorboard]' adds it"]


# ------------------------------------------------------------------ pages and cards are luxuries


def test_a_page_that_cannot_be_written_does_not_stop_a_run(tmp_path: Path, monkeypatch, capsys) -> None:
    """Without jinja2 that is said once; a full disk is said each time, because the next time may be better; a bug of
    ours likewise."""
    from vaeworks.training.monitor import log as log_module

    errors: list[Exception] = [MissingExtraError("jinja2", "report", "the page")]

    def broken(self: Any, status: Any) -> None:
        raise errors[0]

    monkeypatch.setattr(log_module.RunPage, "write", broken)
    with train_log(tmp_path, CONFIG) as log:
        happen(log, 0, 2000)
    assert capsys.readouterr().err.count("pip install 'vaeworks[report]'") == 1
    for error in (OSError(28, "No space left on device"), ZeroDivisionError("division by zero")):
        errors[0] = error
        with train_log(tmp_path, CONFIG) as log:
            happen(log, 0, 1000)
        assert capsys.readouterr().err.count(str(error)) == 2


def test_what_a_run_has_not_is_not_shown() -> None:
    """Points have no KL; without a discriminator in the configuration, the supervisor's plan is of no interest."""
    model = AutoencoderConfig(bottleneck=BottleneckConfig(kind="point"))
    for config, shown in (
        (TrainConfig(model=model), False),
        (TrainConfig(adversarial=AdversarialConfig(discriminator="patch")), True),
    ):
        view = train_view(config)
        view.step(100, 0.1, StepPlan("off", False, 0.0))
        view.take({"images_seen": 100, "loss": 0.1, "psnr": 20.0, "bits_per_dimension": 1.0})
        console = Console(file=io.StringIO(), width=100)
        console.print(view)
        text = view.line() + console.file.getvalue()  # type: ignore[attr-defined]
        assert ("bits/dim" in text) == shown
        assert ("discriminator" in text) == shown
