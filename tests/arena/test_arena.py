"""The arena: its spaces, generators, figures and verdicts, and that nothing is lost."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vaeworks as vw
from vaeworks.arena.entries import Entrant, checks, entrants_of, steady
from vaeworks.arena.latent_dataset import Encoded, encode, patch_for
from vaeworks.arena.probe_run import CHECKPOINT, FEATURES, RESULT, Result, Trial, _Training, read_result, run_trial
from vaeworks.arena.scorer import LEAST, Scorer, open_scorer
from vaeworks.arena.space import Latents, Patches, Scrambled, SpaceSpec, open_space
from vaeworks.arena.verdict import compare, images_to_reach, interval_of, seed_noise, speedup
from vaeworks.config import PROBES, ArenaConfig
from vaeworks.data import scan
from vaeworks.data.labels import find_labels
from vaeworks.data.square_images import SquareImages, prepare
from vaeworks.errors import ConfigError, DataError
from vaeworks.metrics.frechet import frechet_distance, moments, moments_distance
from vaeworks.models import Autoencoder
from vaeworks.models.dit import DiT, positions
from vaeworks.models.flow_matching import euler, flow_loss, shift_of, shifted
from vaeworks.models.init import linear_init_
from vaeworks.recipes.studies import StudyScale, base

SMALL = ArenaConfig(
    probes=("xs",), shifts=("none",), images=256, batch=32, samples=32, sampler_steps=2, looks=(0.25, 0.5, 1.0)
)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> tuple[Autoencoder, str]:
    """An untrained f4c4 that reconstructs, because it starts as a linear transform; and its file."""
    model = Autoencoder(base(StudyScale(channels=8)).model).eval()
    linear_init_(model, torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("models") / "a.safetensors"
    vw.save(model, path, layout="native")
    return model, str(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> SquareImages:
    """512 procedural images of 32 px in 8 classes."""
    images = scan("procedural:512:32")
    return prepare(images, tmp_path_factory.mktemp("pictures"), 32, 3, find_labels(images.files))


@pytest.fixture(scope="module")
def judge(pictures: SquareImages, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """Of these pictures, without a network."""
    return open_scorer(pictures, "statistics", None, tmp_path_factory.mktemp("features"), torch.device("cpu"))


@pytest.fixture(scope="module")
def encoded(vae: tuple[Autoencoder, str], pictures: SquareImages, tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """The pictures in the VAE's latents."""
    return encode(Latents(vae[0]), pictures, tmp_path_factory.mktemp("spaces"), 16, "a")


class TestSpaces:
    """What generators see instead of pixels."""

    def test_scrambling_is_orthogonal_and_undone(self, vae: tuple[Autoencoder, str]) -> None:
        """Lengths and angles stay, the inverse is exact, and every number depends on every other."""
        space = Scrambled(Latents(vae[0]), 3)
        z = torch.randn(6, 4, 8, 8, dtype=torch.float64)
        seen = space.seen(z)
        assert torch.allclose(space.unseen(seen), z, atol=1e-12)
        assert torch.allclose(seen.flatten(1) @ seen.flatten(1).T, z.flatten(1) @ z.flatten(1).T, atol=1e-9)
        one = torch.zeros(1, 4, 8, 8, dtype=torch.float64)
        one[0, 1, 3, 5] = 1.0
        spread = space.seen(one).abs().flatten()
        assert (spread > 1e-9).double().mean() > 0.95
        assert spread.max() < 0.5

    @pytest.mark.parametrize("patch", [1, 4])
    def test_patches_lose_nothing(self, patch: int) -> None:
        """Squares of pixels, turned and turned back, are the image."""
        space = Patches(patch, 3, None if patch == 1 else 0)
        images = torch.rand(2, 3, 32, 32) * 2 - 1
        latents = space.encode(images).mode()
        assert latents.shape[1:] == space.shape(32)
        assert torch.allclose(space.decode(latents), images, atol=1e-5)
        assert torch.allclose(latents.square().sum(), images.square().sum(), rtol=1e-5)

    def test_specs_open_what_they_say(self, vae: tuple[Autoencoder, str]) -> None:
        """Another process gets the same space from plain values."""
        for spec in (
            SpaceSpec("vae", vae[1]),
            SpaceSpec("scrambled", vae[1], seed=1),
            SpaceSpec("pixels"),
            SpaceSpec("patches", seed=2),
        ):
            assert open_space(spec).digest == open_space(spec).digest
        assert (
            open_space(SpaceSpec("scrambled", vae[1], seed=1)).digest
            != open_space(SpaceSpec("scrambled", vae[1], seed=2)).digest
        )

    def test_tokens_are_standardized_samples(self, encoded: Encoded, pictures: SquareImages) -> None:
        """By channel, mean 0 and deviation 1 over samples of the posteriors; and cutting into tokens is undone."""
        noise = torch.randn(pictures.count, *encoded.shape, generator=torch.Generator().manual_seed(5))
        tokens = encoded.sample(np.arange(pictures.count), noise)
        assert tokens.shape == (512, 16, 16)
        z = encoded.untokens(tokens)
        assert torch.equal(encoded.tokens(z), tokens)
        assert z.mean((0, 2, 3)).abs().max() < 0.02
        assert (z.std((0, 2, 3)) - 1).abs().max() < 0.02

    def test_images_of_tokens_are_reconstructions(
        self, encoded: Encoded, vae: tuple[Autoencoder, str], pictures: SquareImages
    ) -> None:
        """What a perfect generator would make is what the VAE makes of its own latents, through standardizing and
        scrambling alike."""
        mean = torch.from_numpy(encoded.mean[:4].copy())
        expected = encoded.decode(mean)
        for space in (encoded.space, Scrambled(Latents(vae[0]), 0)):
            other = dataclasses.replace(encoded, space=space)
            tokens = other.tokens((space.seen(mean) - encoded.centre) / encoded.spread)
            assert (other.images(tokens).int() - expected.int()).abs().max() <= 1

    def test_latents_that_do_not_give_the_tokens(self) -> None:
        """One line with what is possible."""
        assert patch_for((16, 8, 8), 16, "m") == 2
        with pytest.raises(ConfigError, match=r"4x4.*8x8 tokens.*1, 4, 16 are possible"):
            patch_for((16, 4, 4), 64, "m")

    def test_other_channels_are_refused(self, pictures: SquareImages, tmp_path: Path) -> None:
        """A gray model has no place among colour images."""
        with pytest.raises(ConfigError, match="1 channels"):
            encode(Patches(1, 1, None), pictures, tmp_path, 16, "gray")

    def test_constant_latents_are_refused(self, pictures: SquareImages, tmp_path: Path) -> None:
        """A collapsed VAE would be the easiest of all to learn."""

        class Collapsed(Patches):
            def encode(self, images: Tensor) -> vw.Posterior:
                return super().encode(torch.zeros_like(images))

        with pytest.raises(DataError, match="constant"):
            encode(Collapsed(1, 3, None), pictures, tmp_path, 16, "m")


class TestGenerator:
    """Network and flow."""

    def test_it_begins_as_nothing(self) -> None:
        """adaLN-Zero: velocity 0 before the first step, and all gradients that can be are there after it."""
        model = DiT(PROBES["xs"], 4, 12, 8)
        x, t, y = torch.randn(3, 16, 12), torch.rand(3), torch.tensor([0, 3, 7])
        assert model(x, t, y).abs().max() == 0
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
        model(x, t, y).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert all(p.grad.abs().max() > 0 for n, p in model.named_parameters() if not n.endswith("qkv.bias"))

    def test_place_time_and_class_count(self) -> None:
        """Another place, time or class gives another velocity; other images of the batch do not."""
        torch.manual_seed(0)
        model = DiT(PROBES["xs"], 4, 12, 8).double()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
        x, t, y = torch.randn(3, 16, 12).double(), torch.rand(3).double(), torch.tensor([0, 3, 7])
        out = model(x, t, y)
        assert not torch.allclose(model(x.flip(1), t, y).flip(1), out, atol=1e-4)
        assert not torch.allclose(model(x, t + 0.3, y), out, atol=1e-4)
        assert not torch.allclose(model(x, t, y.flip(0))[0], out[0], atol=1e-4)
        assert torch.allclose(model(x[:1], t[:1], y[:1]), out[:1], atol=1e-6)

    def test_positions_differ(self) -> None:
        """Every place has its own."""
        found = positions(8, 64)
        distances = torch.cdist(found, found) + torch.eye(64) * 9
        assert distances.min() > 0.1

    def test_euler_finds_a_single_image(self) -> None:
        """Where all data are one point, the true velocity is (x - z) / t, and Euler's method ends there, whatever the
        shift."""
        z = torch.randn(1, 16, 4)
        for alpha in (1.0, 0.25, 3.0):
            made = euler(
                lambda x, t, y: (x - z) / t[:, None, None], torch.randn(5, 16, 4), torch.zeros(5).long(), 7, alpha
            )
            assert torch.allclose(made, z.expand(5, -1, -1), atol=1e-4)

    def test_euler_follows_a_gaussian(self) -> None:
        """Of data N(m, s²) the velocity is known, and samples have that mean and deviation."""
        mean, std = 0.7, 0.5

        def velocity(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
            t = t[:, None, None]
            variance = (1 - t) ** 2 * std**2 + t**2
            residual = x - (1 - t) * mean
            return -mean + (t - (1 - t) * std**2) / variance * residual

        noise = torch.randn(4000, 1, 1, generator=torch.Generator().manual_seed(0))
        made = euler(velocity, noise, torch.zeros(4000).long(), 200, 1.0)
        assert abs(made.mean() - mean) < 0.03
        assert abs(made.std() - std) < 0.02

    def test_loss_is_least_at_the_true_velocity(self) -> None:
        """Of a single image it is 0 there."""
        z = torch.randn(1, 16, 4).expand(64, -1, -1)
        noise, normal = torch.randn(64, 16, 4), torch.randn(64)
        labels = torch.zeros(64).long()
        assert flow_loss(lambda x, t, y: (x - z) / t[:, None, None], z, labels, noise, normal, 1.0) < 1e-8
        assert flow_loss(lambda x, t, y: torch.zeros_like(x), z, labels, noise, normal, 1.0) > 0.5

    def test_shift(self) -> None:
        """It divides the signal-to-noise ratio by alpha² and leaves the ends; by dimension it is √(n / 4096)."""
        t = torch.linspace(0.1, 0.9, 9)
        s = shifted(t, 2.0)
        assert torch.allclose(((1 - s) / s) * 2.0, (1 - t) / t, rtol=1e-5)
        assert shifted(torch.tensor([0.0, 1.0]), 0.3).tolist() == pytest.approx([0, 1])
        assert (shift_of("none", 9), shift_of("dimension", 4096), shift_of("dimension", 1024)) == (1.0, 1.0, 0.5)


class TestTrial:
    """A generator, trained and judged."""

    def run(
        self,
        folder: Path,
        encoded: Encoded,
        judge: Scorer,
        stop: Callable[[int], bool] = lambda n: False,
        seed: int = 0,
    ) -> Result | None:
        """One trial, which is asked to stop after steps that `stop` names."""
        trial = Trial(encoded.space.digest, "xs", "none", seed)
        count = [0]

        def wanted() -> bool:
            count[0] += 1
            return stop(count[0])

        recon = moments(judge.real[::2])
        folder.mkdir(exist_ok=True)
        return run_trial(folder, trial, encoded, recon, judge, SMALL, torch.device("cpu"), wanted)

    def test_interrupted_at_any_step_it_is_the_same(self, encoded: Encoded, judge: Scorer, tmp_path: Path) -> None:
        """Stopped after every step and begun again, a trial ends with the same figures and features, to the last
        bit."""
        whole = self.run(tmp_path / "whole", encoded, judge)
        assert whole is not None
        parts = None
        for _ in range(20):
            parts = self.run(tmp_path / "parts", encoded, judge, lambda n: True)
            if parts is not None:
                break
        assert parts is not None
        assert [look.score for look in parts.looks] == [look.score for look in whole.looks]
        assert parts.loss == whole.loss
        assert (tmp_path / "parts" / FEATURES).read_bytes() == (tmp_path / "whole" / FEATURES).read_bytes()
        assert not (tmp_path / "parts" / CHECKPOINT).exists()
        assert read_result(tmp_path / "parts").looks == whole.looks

    def test_seeds_differ_and_results_are_taken(self, encoded: Encoded, judge: Scorer, tmp_path: Path) -> None:
        """Another seed is another generator; a folder with a result is not computed again."""
        first, second = (self.run(tmp_path / str(s), encoded, judge, seed=s) for s in (0, 1))
        assert first is not None
        assert second is not None
        assert first.last.fd_real != second.last.fd_real
        values = json.loads((tmp_path / "0" / RESULT).read_text())
        values["loss"] = 42.0
        (tmp_path / "0" / RESULT).write_text(json.dumps(values))
        again = self.run(tmp_path / "0", encoded, judge)
        assert again is not None
        assert again.loss == 42.0

    def test_classes_of_samples_have_a_stream_of_their_own(self, encoded: Encoded, pictures: SquareImages) -> None:
        """They are the same for every seed, as often as in the data, and not in the order of any seed's training."""
        config = dataclasses.replace(SMALL, samples=pictures.count, sampler_steps=1)
        asked = []
        for seed in (0, 1):
            trial = Trial(encoded.space.digest, "xs", "none", seed)
            work = _Training(trial, encoded, pictures.labels, len(pictures.classes), config, torch.device("cpu"))
            asked.append(torch.cat([labels for _, labels in work.samples()]))
            order = [work.order[i] for i in range(pictures.count)]
            assert not torch.equal(asked[-1], pictures.labels[order])
        assert torch.equal(*asked)
        assert torch.equal(asked[0].sort().values, pictures.labels.sort().values)

    def test_training_brings_samples_nearer(self, encoded: Encoded, judge: Scorer, tmp_path: Path) -> None:
        """A training is better than one step, by the distance to reconstructions."""
        config = dataclasses.replace(
            SMALL, images=9_600, batch=32, warmup_images=320, looks=(1 / 300, 1.0), samples=128, sampler_steps=8
        )
        trial = Trial(encoded.space.digest, "xs", "none", 0)
        (tmp_path / "t").mkdir()
        recon = moments(judge.features([encoded.decode(torch.from_numpy(encoded.mean.copy()))]))
        result = run_trial(tmp_path / "t", trial, encoded, recon, judge, config, torch.device("cpu"))
        assert result is not None
        assert result.looks[-1].score.fd_recon < 0.9 * result.looks[0].score.fd_recon


class TestJudge:
    """Distances of sets of pictures."""

    def test_moments_are_the_distance(self) -> None:
        """Kept moments give what features give."""
        random = np.random.default_rng(0)
        a, b = random.normal(size=(50, 7)), random.normal(1, 2, size=(40, 7))
        assert moments_distance(moments(a), moments(b)) == pytest.approx(frechet_distance(a, b))

    def test_real_pictures_are_near_and_gray_ones_far(self, judge: Scorer, pictures: SquareImages) -> None:
        """Half of the real images is nearer to all of them than noise is."""
        recon = moments(judge.real)
        near = judge.score(judge.real[::2], recon, None)
        far = judge.score(judge.features([torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)]), recon, None)
        assert near.fd_real < 0.05 * far.fd_real
        assert near.fd_real == pytest.approx(near.fd_recon)

    def test_too_few_images(self, tmp_path: Path) -> None:
        """It says how many are needed."""
        few = prepare(scan("procedural:64:32"), tmp_path, 32, 3, None)
        with pytest.raises(DataError, match=f"64 images.*at least {LEAST}"):
            open_scorer(few, "statistics", None, tmp_path, torch.device("cpu"))

    def test_a_classifier_needs_classes(self, tmp_path: Path) -> None:
        """Images without labels have none to learn."""
        plain = prepare(scan("procedural:256:32"), tmp_path, 32, 3, None)
        with pytest.raises(DataError, match="no classes"):
            open_scorer(plain, "classifier", None, tmp_path, torch.device("cpu"))

    def test_the_classifier_learns_and_is_kept(
        self, pictures: SquareImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On held-out images it tells red ones from others; a second call reads the file."""
        from vaeworks.features import classifier

        monkeypatch.setattr(classifier, "IMAGES", 1_536)
        monkeypatch.setattr(classifier, "BATCH", 32)
        red = torch.from_numpy(pictures.pixels.mean((2, 3)))[:, 0]
        reddish = dataclasses.replace(pictures, labels=(red > red.median()).long(), classes=("less red", "more red"))
        network, accuracy = classifier.trained(reddish, tmp_path / "a", torch.device("cpu"))
        assert accuracy > 0.8
        assert classifier.trained(reddish, tmp_path / "a", torch.device("cpu"))[1] == accuracy
        monkeypatch.setattr(classifier, "_train", lambda *a: pytest.fail("it was trained again"))
        again, _ = classifier.trained(reddish, tmp_path / "a", torch.device("cpu"))
        assert all(
            torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
        )


def figures(**rows: tuple[list[float], list[float]]) -> dict[str, dict[str, list[float]]]:
    """Distances by row, of generators xs and s."""
    return {name: {"xs": xs, "s": s} for name, (xs, s) in rows.items()}


class TestVerdict:
    """Ranks only where they hold."""

    def test_clear_differences_and_ties(self) -> None:
        """What differs by far more than seeds do is ranked; what does not is a tie."""
        found = figures(
            base=([10, 10.4], [5, 5.2]),
            half=([5, 5.2], [2.5, 2.6]),
            double=([20, 21], [10, 10.3]),
            same=([10.2, 10.1], [5.1, 5.0]),
        )
        verdicts = {name: compare(found, name, "base", ("xs", "s")).verdict for name in ("half", "double", "same")}
        assert verdicts == {"half": "better", "double": "worse", "same": "tie"}

    def test_generators_must_agree(self) -> None:
        """Better with one and worse with the other decides nothing, nor does a difference that only one shows."""
        found = figures(base=([10, 10.4], [5, 5.2]), split=([5, 5.2], [10, 10.3]), half=([5, 5.2], [5.05, 5.15]))
        assert compare(found, "split", "base", ("xs", "s")).why == "the generators contradict each other"
        assert compare(found, "half", "base", ("xs", "s")).verdict == "undecided"

    def test_noise_hides_differences(self) -> None:
        """The same ratio of means is ranked with little noise and undecided with much."""
        quiet = figures(base=([10, 10.2], [5, 5.1]), row=([14, 14.2], [7, 7.1]))
        loud = figures(base=([6, 16], [3, 8]), row=([8, 24], [4, 12]))
        assert compare(quiet, "row", "base", ("xs", "s")).verdict == "worse"
        assert compare(loud, "row", "base", ("xs", "s")).verdict == "undecided"

    def test_one_seed_or_one_generator_is_not_enough(self) -> None:
        """However large the difference."""
        found = figures(base=([10], [5]), row=([100], [50]), other=([10, 10.1], [5, 5.1]))
        assert compare(found, "row", "base", ("xs", "s")).verdict == "undecided"
        found = figures(base=([10, 10.1], [5, 5.1]), row=([100, 101], [50, 51]))
        assert compare(found, "row", "base", ("xs",)).verdict == "undecided"

    def test_what_is_no_number_is_undecided(self) -> None:
        """A generator that has diverged gets no rank."""
        found = figures(base=([10, 10.1], [5, 5.1]), row=([math.nan, math.nan], [5, 5.1]))
        assert compare(found, "row", "base", ("xs", "s")).verdict == "undecided"

    def test_intervals_hold_the_truth(self) -> None:
        """Of simulated arenas of six equal rows with two seeds each, a row is called better or worse in at most one of
        twenty."""
        random = np.random.default_rng(1)
        wrong = held = 0
        for _ in range(400):
            drawn = {f"r{i}": {p: list(np.exp(random.normal(2, 0.2, 2))) for p in ("xs", "s")} for i in range(6)}
            found = compare(drawn, "r1", "r0", ("xs", "s"))
            wrong += found.verdict in ("better", "worse")
            held += 1.0 in found.ratios["xs"]
        assert wrong <= 20
        assert 0.91 <= held / 400 <= 0.985

    def test_pooled_noise(self) -> None:
        """Two rows of two seeds have two degrees of freedom, and the deviation is that of logarithms."""
        noise = seed_noise({"a": {"xs": [1.0, math.e]}, "b": {"xs": [2.0, 2.0 * math.e]}}, "xs")
        assert noise is not None
        assert (noise.freedom, noise.std) == (2, pytest.approx(math.sqrt(0.5)))
        assert interval_of([3.0, 3.0], noise).value == pytest.approx(3.0)

    def test_images_to_reach(self) -> None:
        """By interpolation of logarithms; below the first look it is the first look's."""
        curve = [(100.0, 8.0), (400.0, 2.0)]
        assert images_to_reach(curve, 4.0) == pytest.approx(200.0)
        assert images_to_reach(curve, 9.0) == 100.0
        assert images_to_reach(curve, 1.0) == math.inf

    def test_speedup(self) -> None:
        """Twice as fast is 2, twice as slow 1/2, and itself 1."""
        base = [(100.0, 8.0), (200.0, 4.0), (400.0, 2.0)]
        fast = [(100.0, 4.0), (200.0, 2.0), (400.0, 1.0)]
        assert speedup(base, base) == pytest.approx(1.0)
        assert speedup(fast, base) == pytest.approx(2.0)
        assert speedup(base, fast) == pytest.approx(0.5)


def test_steady_rows_leave_the_pool_by_their_check() -> None:
    """A model that is called as a check is stays in the pool, and the check gets another name."""
    mine = entrants_of(["base", "pixels"], ["m", "n"])
    everyone = [*mine, *checks(mine[0], 3, [e.name for e in mine])]
    names = [e.name for e in everyone]
    assert names == ["base", "pixels", "again", "scrambled", "patches", "pixels (check)"]
    assert steady(everyone) == {"scrambled", "patches", "pixels (check)"}
    rows = {name: {"xs": [1.0, math.e if name == "pixels" else 1.0]} for name in names}
    noise = seed_noise(rows, "xs", steady(everyone))
    assert noise is not None
    assert (noise.freedom, noise.std) == (3, pytest.approx(math.sqrt(0.5 / 3)))


def test_entrants_take_their_spaces_in_turn() -> None:
    """Seed k of the generator is on the VAE of seed k, around; checks are made of the baseline."""
    entrant = Entrant("a", (SpaceSpec("vae", "one"), SpaceSpec("vae", "two")))
    assert [entrant.space(k).model for k in range(3)] == ["one", "two", "one"]
    found = {e.check: e for e in checks(entrant, 3)}
    assert {e: len(v.spaces) for e, v in found.items()} == {"again": 2, "scrambled": 2, "patches": 1, "pixels": 1}
    assert found["again"].seed_offset > 0
    assert [e.name for e in entrants_of(["x", "y"], ["p", "q"])] == ["x", "y"]
