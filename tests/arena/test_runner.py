"""A whole arena, small: every process, every check, the pages, the commands."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import vaeworks as vw
from vaeworks.arena.entries import CHECKS, Entrant, entrants_of
from vaeworks.arena.page import RECORD, REPORT, write_outcome
from vaeworks.arena.probe_run import RESULT, Result, ScoredSnapshot, Trial
from vaeworks.arena.results import Outcome, conclude
from vaeworks.arena.scorer import SampleSetScore
from vaeworks.arena.study.autoencoders import ArmTask, train_arms
from vaeworks.arena.study.run import correlations
from vaeworks.arena.tournament import run_tournament
from vaeworks.cli.main import main
from vaeworks.config import ArenaConfig
from vaeworks.data import scan
from vaeworks.data.labels import find_labels
from vaeworks.data.square_images import prepare
from vaeworks.errors import ConfigError
from vaeworks.models import Autoencoder
from vaeworks.models.init import linear_init_
from vaeworks.recipes.studies import BASELINE, STUDIES, StudyScale, base, study

TINY = ArenaConfig(shifts=("none", "dimension"), images=64, batch=32, samples=16, sampler_steps=2, looks=(0.5, 1.0))
SOURCE = "procedural:256:32"


def saved(path: Path, channels: int = 3, seed: int = 0, latent_channels: int = 4) -> str:
    """A small f4 that reconstructs, in a file."""
    config = dataclasses.replace(
        base(StudyScale(channels=8), latent_channels=latent_channels).model, in_channels=channels, out_channels=channels
    )
    model = Autoencoder(config).eval()
    linear_init_(model, torch.Generator().manual_seed(seed))
    vw.save(model, path, layout="native", overwrite=True)
    return str(path)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """An arena of two models with all checks, in this process."""
    folder = tmp_path_factory.mktemp("arena")
    entrants = entrants_of(
        ["a", "b"], [saved(folder / "a.safetensors"), saved(folder / "b.safetensors", latent_channels=8)]
    )
    return enter_here(entrants, folder, 1), folder


def enter_here(entrants: list[Entrant], folder: Path, jobs: int, with_checks: bool = True) -> Outcome:
    """An arena on procedural images."""
    images = scan(SOURCE)
    return run_tournament(
        entrants,
        images,
        folder / f"kept{jobs}",
        TINY,
        size=32,
        labels=find_labels(images.files),
        features="statistics",
        jobs=jobs,
        with_checks=with_checks,
    )


def test_everything_is_in_the_outcome(held: tuple[Outcome, Path]) -> None:
    """Two models, four checks, both generators, two seeds, the better shift of both."""
    outcome, folder = held
    assert [row.entrant.name for row in outcome.rows] == ["a", "b", *CHECKS]
    for row in outcome.rows:
        assert set(row.figures["fd_recon"]) == {"xs", "s"}
        assert all(len(outcome.results[row.entrant.name][p]) == 2 for p in ("xs", "s"))
        shifts = {r.trial.shift for p in ("xs", "s") for r in outcome.results[row.entrant.name][p]}
        assert shifts <= {"none", "dimension"}
    trials = list((folder / "kept1" / "trials").iterdir())
    assert len(trials) == 6 * (2 + 3)  # the smaller generator's first seed with two shifts, all others with one
    assert outcome.row("a").floor.fd_real < outcome.row("a").figures["fd_real"]["s"].value


def test_untrained_generators_conclude_nothing(held: tuple[Outcome, Path]) -> None:
    """After two steps the checks cannot come out, and no verdict is given to anybody."""
    outcome, _ = held
    assert not outcome.conclusive
    assert {c.verdict for row in outcome.rows for c in row.comparisons.values()} == {"undecided"}
    assert any("must come out" in line for line in outcome.failures)


def test_processes_give_the_same(held: tuple[Outcome, Path]) -> None:
    """Two processes, and one: equal figures, to the last bit."""
    outcome, folder = held
    other = enter_here(entrants_of(["a"], [str(folder / "a.safetensors")]), folder, 2, with_checks=False)
    for probe, results in other.results["a"].items():
        assert [r.looks for r in results] == [r.looks for r in outcome.results["a"][probe]]


def test_a_second_call_computes_nothing(held: tuple[Outcome, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is taken; what is missing is made, and nothing else."""
    outcome, folder = held
    entrants = entrants_of(["a", "b"], [str(folder / "a.safetensors"), str(folder / "b.safetensors")])
    missing = outcome.results["b"]["xs"][1].folder / RESULT
    before = missing.read_text()
    missing.unlink()
    trained: list[str] = []
    from vaeworks.arena import probe_run as trial

    real: Callable[..., None] = trial._Training.train_step

    def counted(self: trial._Training) -> None:
        trained.append(self.trial.probe)
        real(self)

    monkeypatch.setattr(trial._Training, "train_step", counted)
    again = enter_here(entrants, folder, 1)
    assert len(trained) == TINY.images // TINY.batch
    made, was = json.loads(missing.read_text()), json.loads(before)
    assert made["looks"] == was["looks"]
    assert again.row("b").figures == outcome.row("b").figures


def test_the_page_stands_alone(held: tuple[Outcome, Path], tmp_path: Path) -> None:
    """Everything is in one file; the record has every trial; nothing is concluded in words either."""
    outcome, _ = held
    write_outcome(tmp_path, outcome)
    page = (tmp_path / REPORT).read_text()
    assert "This arena concludes nothing" in page
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]', page)
    for name in ("scrambled", "patches", "pixels", "again"):
        assert name in page
    record = json.loads((tmp_path / RECORD).read_text())
    assert record["conclusive"] is False
    assert page.count("the arena&#39;s own checks have failed") == 2  # once for each distance
    assert "<dt>probes</dt><dd>xs, s</dd>" in page and "('" not in page and "(&#39;" not in page
    assert "Positive control" in page
    assert record["positive_control"]["fd_real"]["sentences"][0] in page
    assert len(record["rows"][0]["trials"]["s"]) == 2
    assert record["config"]["images"] == 64


def planted(name: str, value: float, config: ArenaConfig) -> dict[str, list[Result]]:
    """Results with these distances, a little apart from seed to seed."""
    return {
        p: [
            Result(
                Trial(name, p, "none", s),
                tuple(
                    ScoredSnapshot(
                        round(share * config.images),
                        SampleSetScore(value * factor / share, value * factor / share, 0.0, 0.5),
                    )
                    for share in config.looks
                ),
                0.0,
                1.0,
                1,
            )
            for s, factor in ((0, 1.0), (1, 1.02))
        ]
        for p in config.probes
    }


class TestConclusions:
    """From figures to sentences."""

    def outcome(self, shape: tuple[int, ...] = (4, 8, 8), config: ArenaConfig = TINY, **values: float) -> Outcome:
        """Of planted distances; checks as they must be, where none is given."""
        from vaeworks.arena.entries import checks
        from vaeworks.arena.runner import Floor, Held

        base_entrant = entrants_of(["base"], ["m"])[0]
        entrants = [base_entrant, *entrants_of(["row"], ["n"]), *checks(base_entrant, 3)]
        given = {"base": 10.0, "row": 5.0, "again": 10.1, "scrambled": 30.0, "patches": 40.0, "pixels": 40.0} | values
        entrants = [e for e in entrants if given[e.name] > 0]
        results = {e.name: planted(e.name, given[e.name], config) for e in entrants}
        floors = {e.name: Floor(1.0, shape) for e in entrants}
        return conclude(
            entrants,
            Held(results, {name: {"none": by["xs"][0]} for name, by in results.items()}),
            floors,
            config,
            "base",
            protocol="p",
            features="f",
            images=100,
            size=32,
            classes=8,
            source="s",
        )

    def test_a_ranked_row(self) -> None:
        """With all checks in order, half the distance is better, and takes half the images."""
        found = self.outcome()
        assert found.conclusive
        assert found.row("row").comparisons["fd_recon"].verdict == "better"
        assert found.row("row").speedup["s"] == pytest.approx(2.0, rel=0.01)
        assert found.row("base").comparisons == {}

    @pytest.mark.parametrize(
        ("check", "value"), [("scrambled", 10.0), ("pixels", 5.0), ("patches", 10.0), ("again", 20.0)]
    )
    def test_a_check_that_fails_stops_everything(self, check: str, value: float) -> None:
        """The row is as good as before, and gets no verdict."""
        found = self.outcome(**{check: value})
        assert len(found.failures) == 1
        assert check in found.failures[0]
        assert found.row("row").comparisons["fd_recon"].verdict == "undecided"

    def test_without_checks_nothing_is_concluded(self) -> None:
        """Left out is not passed."""
        found = self.outcome(scrambled=0.0)
        assert "left out" in found.failures[0]
        assert found.row("row").comparisons["fd_real"].verdict == "undecided"

    def test_a_positive_control_that_passes(self) -> None:
        """Pixels at 4 and 8 times the distance: the smallest effect is said, with what is visible."""
        control = self.outcome().controls["fd_real"]
        assert control.passed
        assert [c.row for c in control.comparisons] == ["base", "row"]
        assert [c.ratios["s"].value for c in control.comparisons] == pytest.approx([4.0, 8.0])
        first, second, third = control.sentences
        assert re.search(
            r"passed: .*every autoencoder, by at least 4\.00, 3\.\d\d to 4\.\d\d times its .*base\)", first
        )
        assert "says nothing about smaller ones" in second
        factor = control.visible["s"]
        assert 1 < factor < 1.1
        assert f"a factor of {control.visible['xs']:.2f} (xs) and {factor:.2f} (s)" in third
        assert self.outcome(row=40.0 / factor * 0.999).controls["fd_real"].passed
        assert not self.outcome(row=40.0 / factor * 1.001).controls["fd_real"].passed

    def test_a_positive_control_that_fails(self, tmp_path: Path) -> None:
        """One autoencoder as far as pixels: named, with its interval, in the record and on the page; verdicts stay."""
        found = self.outcome(row=39.0)
        assert found.conclusive
        assert found.row("row").comparisons["fd_real"].verdict == "worse"
        control = found.controls["fd_real"]
        assert not control.passed
        assert [c.row for c in control.missed] == ["row"]
        assert re.search(
            r"failed: pixels do not come out worse than row \(xs 1\.03, 0\.9\d to 1\.0\d; s ", control.sentences[0]
        )
        assert "could not have seen an effect of that size" in control.sentences[1]
        assert found.to_dict()["positive_control"]["fd_real"]["passed"] is False
        write_outcome(tmp_path, found)
        assert f'<p class="said"><b>How good the pictures are in the end.</b> {control.sentences[0]}' in (
            tmp_path / REPORT
        ).read_text(encoding="utf-8")

    def test_a_positive_control_that_nothing_can_decide(self) -> None:
        """With one generator, large effects are no failure of the arena: it is undecided. The reason is said once."""
        one = dataclasses.replace(TINY, probes=("xs",))
        found = self.outcome(config=one)
        control = found.controls["fd_real"]
        assert not control.passed and control.hidden
        assert control.sentences[0].startswith("Positive control undecided: pixels against base (xs 4.00, 3.")
        assert control.sentences[0].endswith("): undecided, one generator alone decides nothing; take two sizes")
        assert "So nothing says whether" in control.sentences[1]
        assert len(found.failures) == 1 and found.failures[0] == (
            "again must come out tie, scrambled must come out worse, patches must come out worse, pixels must come out "
            "worse and all are undecided (one generator alone decides nothing; take two sizes)"
        )

    def test_a_positive_control_of_wide_tokens(self) -> None:
        """Tokens of pixels that are wider than a generator may be the reason, and that is said."""
        assert self.outcome().controls["fd_real"].handicap == ""
        wide = self.outcome(shape=(3, 32, 32)).controls["fd_real"].handicap
        assert wide == (
            "xs is 64 wide, and a token of pixels has 192 numbers; s is 128 wide, and a token of pixels has 192 "
            "numbers: a part of the effect may be that"
        )

    def test_without_pixels_there_is_no_positive_control(self) -> None:
        """That is said, too."""
        control = self.outcome(pixels=0.0).controls["fd_real"]
        assert not control.passed
        assert control.sentences[0].startswith("No positive control was run")
        assert control.to_dict()["visible"] == {}

    def test_learning_by_heart_is_told(self) -> None:
        """100 images seen 655 times are not learned, but remembered."""
        config = dataclasses.replace(TINY, images=65_536)
        assert not self.outcome().notes
        from vaeworks.arena.results import _notes

        assert "by heart" in _notes(config, 100)[0]


class TestCommand:
    """vaeworks arena."""

    def run(self, tmp_path: Path, *words: str, model: str | None = None) -> int:
        """The command on a small arena."""
        path = model or saved(tmp_path / "a.safetensors")
        options = ["--budget", "128", "--samples", "16", "--features", "statistics", "--jobs", "1", "--shifts", "none"]
        return main(
            [
                "arena",
                path,
                "--out",
                str(tmp_path / "out"),
                *(["--data", SOURCE] if "--data" not in words else []),
                *options,
                *words,
            ]
        )

    def test_one_model(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A page, a record, a table; nothing is ranked."""
        assert self.run(tmp_path, "--json", "--probes", "xs") == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["conclusive"] is False
        assert "concludes nothing" in said.err
        assert (tmp_path / "out" / REPORT).exists()
        assert self.run(tmp_path) == 2
        assert "exists" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--data", "procedural:64:32"), "64 images"),
            (("--tokens", "25"), "cannot be cut into 5x5 tokens"),
            (("--tokens", "12"), "square of a number"),
            (("--budget", "many"), "neither a number"),
            (("--size", "30"), "divisible by"),
            (("--probes", "xl"), "not known"),
            (("--baseline", "other"), "not among the models"),
            (("--jobs", "0"), "at least 1"),
            (("--seeds", "0"), "at least 1"),
            (("--no-checks", "--features", "classifier", "--labels", "none"), "no classes"),
        ],
    )
    def test_bad_input_is_one_line(
        self, words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The rule, the value, the remedy; no page is written."""
        assert self.run(tmp_path, *words) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert said in error
        assert error.startswith("vaeworks: ")
        assert not (tmp_path / "out" / REPORT).exists()

    def test_models_of_other_images(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A gray VAE and one for colours are not compared."""
        first, gray = saved(tmp_path / "a.safetensors"), saved(tmp_path / "gray.safetensors", channels=1)
        assert (
            main(["arena", first, gray, "--data", SOURCE, "--out", str(tmp_path / "out"), "--features", "statistics"])
            == 2
        )
        assert "1 channels" in capsys.readouterr().err

    def test_a_gray_model_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Checks are gray as well."""
        assert (
            self.run(tmp_path, "--probes", "xs", "--seeds", "1", model=saved(tmp_path / "gray.safetensors", channels=1))
            == 0
        )

    def test_interrupted_and_taken_up(self, tmp_path: Path) -> None:
        """SIGINT to the process alone ends it with 130; the same command then goes on to the end, with the same
        figures."""
        path = saved(tmp_path / "a.safetensors")
        words = [
            "arena",
            path,
            "--data",
            SOURCE,
            "--features",
            "statistics",
            "--shifts",
            "none",
            "--budget",
            "3200",
            "--samples",
            "16",
            "--probes",
            "xs",
            "--seeds",
            "1",
            "--no-checks",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "vaeworks", *words, "--jobs", "2", "--out", str(tmp_path / "out")],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            end = time.monotonic() + 120
            while (
                not list((tmp_path / "out" / "kept").glob("trials/*"))
                and time.monotonic() < end
                and process.poll() is None
            ):
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 130, said
        assert "goes on from there" in said
        for out in ("out", "other"):
            assert main([*words, "--jobs", "1", "--out", str(tmp_path / out)]) == 0
        first, second = (
            json.loads((tmp_path / out / RECORD).read_text())["rows"][0]["trials"]["xs"][0]["looks"]
            for out in ("out", "other")
        )
        assert first == second


class TestStudies:
    """Autoencoders that differ in one thing."""

    def test_every_arm_can_be_built(self) -> None:
        """At every scale; the baseline is the same in all studies and comes first; each arm differs from it."""
        for scale in (StudyScale(), StudyScale(size=64, channels=64), StudyScale(size=128)):
            for name, what in STUDIES.items():
                arms = what.arms(scale)
                assert next(iter(arms)) == BASELINE
                assert arms[BASELINE] == base(scale)
                assert all(config != base(scale) for arm, config in arms.items() if arm != BASELINE), name
                assert {config.images for config in arms.values()} == {scale.images}

    @pytest.mark.parametrize("name", STUDIES)
    def test_every_arm_trains(self, name: str, tmp_path: Path) -> None:
        """A few steps, with a finite end."""
        from vaeworks.training import train

        scale = StudyScale(channels=8, images=32, batch=16)
        for arm, config in study(name).arms(scale).items():
            result = train(dataclasses.replace(config, stats_images=16), SOURCE, tmp_path / arm, show=False)
            assert result.val_psnr is not None
            assert result.val_psnr > 5, arm

    def test_an_arm_is_kept(self, tmp_path: Path) -> None:
        """Its figures are there, a second call reads them, and another seed is another model."""
        said: list[str] = []
        first, other = train_arms(self.tasks(tmp_path), 1, said.append, lambda done, total: None)
        assert len(said) == 2
        assert train_arms(self.tasks(tmp_path), 1, said.append, lambda done, total: None) == [first, other]
        assert len(said) == 2
        assert other.psnr != first.psnr > 10
        assert any(key.startswith("spectrum.") for key in first.doctor)
        assert (tmp_path / first.path).exists()

    @staticmethod
    def tasks(folder: Path) -> list[ArmTask]:
        """The baseline with two seeds."""
        scale = StudyScale(channels=8, images=32, batch=16)
        images = scan(SOURCE)
        labels = find_labels(images.files)
        pictures = prepare(images, folder / "pictures", 32, 3, labels)
        place = folder / "pictures" / pictures.digest[:16]
        return [ArmTask(folder, BASELINE, base(scale), seed, SOURCE, place, images, labels, None) for seed in (0, 1)]

    def test_autoencoders_are_interrupted(self, tmp_path: Path) -> None:
        """SIGTERM to the process alone, while two others train: 130, all of them end, and what was trained is kept."""
        words = [
            "study",
            "kl",
            "--data",
            SOURCE,
            "--out",
            str(tmp_path),
            "--arms",
            "kl-0.1",
            "--channels",
            "8",
            "--images",
            "9999999",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "vaeworks", "arena", *words, "--jobs", "2"], stderr=subprocess.PIPE, text=True
        )
        try:
            end = time.monotonic() + 120
            while (
                len(list(tmp_path.glob("arms/*/*/run/log.jsonl"))) < 2
                and time.monotonic() < end
                and process.poll() is None
            ):
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 130, said
        assert "goes on from there" in said
        assert len(list(tmp_path.glob("arms/*/*/run/checkpoints/*"))) == 2

    def test_unknown_study_and_arm(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """One line with what there is."""
        with pytest.raises(ConfigError, match="choose from kl, channels"):
            study("size")
        words = ["arena", "study", "kl", "--data", SOURCE, "--out", str(tmp_path / "o"), "--arms", "kl-7"]
        assert main(words) == 2
        assert "kl-7" in capsys.readouterr().err

    @pytest.mark.parametrize("features", ["auto", "statistics"])
    def test_too_few_images_are_refused_before_the_training(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], features: str
    ) -> None:
        """The line says how many are needed; nothing was trained."""
        words = ["arena", "study", "kl", "--data", "procedural:200:16", "--out", str(tmp_path / "o")]
        assert main([*words, "--arms", "kl-0.1", "--size", "16", "--features", features]) == 2
        said = capsys.readouterr().err
        assert "200 images" in said and "are too few" in said and "give at least 256" in said
        assert not (tmp_path / "o" / "arms").exists()

    def test_a_study_from_the_command_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two arms, two seeds each, the doctor, an arena, a page with the plot; studies share what they share."""
        monkeypatch.setattr("vaeworks.arena.study.autoencoders.EXAMINED", 16)
        words = [
            "--data",
            SOURCE,
            "--out",
            str(tmp_path),
            "--channels",
            "8",
            "--images",
            "32",
            "--budget",
            "128",
            "--samples",
            "16",
            "--features",
            "statistics",
            "--jobs",
            "1",
            "--shifts",
            "none",
            "--probes",
            "xs",
            "--json",
        ]
        assert main(["arena", "study", "kl", "--arms", "kl-0.1", *words]) == 0
        record = json.loads(capsys.readouterr().out)
        assert set(record["arms"]) == {BASELINE, "kl-0.1"}
        assert [len(arms) for arms in record["arms"].values()] == [2, 2]
        assert len({spec["model"] for row in record["arena"]["rows"][:2] for spec in row["spaces"]}) == 4
        page = (tmp_path / "kl" / REPORT).read_text()
        assert "How much KL is good" in page
        assert "PSNR of reconstructions" in page
        trials = len(list((tmp_path / "trials").iterdir()))
        assert main(["arena", "study", "channels", "--arms", "f4c8", *words]) == 0
        assert len(list((tmp_path / "trials").iterdir())) == trials + 2  # the new arm's two seeds alone

    def test_correlations_find_what_is_planted(self) -> None:
        """A figure that orders arms as the arena does has rank 1, its opposite -1; a constant is left out."""
        from vaeworks.arena.study.autoencoders import StudyArm

        class Row:
            def __init__(self, value: float):
                from vaeworks.intervals import Interval

                self.figures = {
                    d: {"xs": Interval(value, 0, 9), "s": Interval(value, 0, 9)} for d in ("fd_recon", "fd_real")
                }

        class Planted:
            def row(self, name: str) -> Row:
                return Row(float(name))

        arms = {
            str(k): [StudyArm(str(k), 0, "", 30.0 - k, 1.0, 1.0, {"p.up": k * 2.0, "p.flat": 1.0}, 1.0)]
            for k in range(1, 7)
        }
        found = {c.figure: c.rank for c in correlations(arms, Planted())}  # type: ignore[arg-type]
        assert found["p.up"] == pytest.approx(1.0)
        assert found["psnr"] == pytest.approx(-1.0)
        assert "p.flat" not in found


def test_no_process_is_left(held: tuple[Outcome, Path]) -> None:
    """Workers end with the arena."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if children.exists():
        names = [
            Path(f"/proc/{pid}/cmdline").read_bytes()
            for pid in children.read_text().split()
            if Path(f"/proc/{pid}/cmdline").exists()
        ]
        assert not [n for n in names if b"spawn_main" in n and b"resource_tracker" not in n]
