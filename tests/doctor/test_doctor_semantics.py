"""Semantics and structure: fields with a known velocity ambiguity, planted classes, objects and neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from patients import linear, patient, photos_patient
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from vaeworks.doctor.finding import NotExamined
from vaeworks.doctor.measures.neighbours import chance_same, majority, nearest, object_mean, pooled, probe, same_label
from vaeworks.doctor.measures.tokens import (
    decay,
    directions,
    local_distant,
    object_contrast,
    similarity_by_distance,
    spread,
)
from vaeworks.doctor.measures.velocity import ENOUGH, ambiguity, viv_dct, viv_flip_flop
from vaeworks.doctor.panels import semantics
from vaeworks.doctor.panels.semantics import examine
from vaeworks.doctor.subject import Subject

WHITE = math.pi / 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def autoregressive(n: int, c: int, side: int, rho: float, seed: int = 0) -> tuple[Tensor, float]:
    """Fields with correlation rho^(|dy| + |dx|), and their true VIV."""
    place = torch.arange(side, dtype=torch.float64)
    covariance = rho ** (place[:, None] - place).abs() if rho else torch.eye(side, dtype=torch.float64)
    root, values = torch.linalg.cholesky(covariance), torch.linalg.eigvalsh(covariance)
    return root @ normal(n, c, side, side, seed=seed).double() @ root.T, WHITE * float(
        torch.outer(values, values).sqrt().mean()
    )


# --- velocity ambiguity


def test_the_integral_behind_it() -> None:
    """Over t, l / ((1-t)^2 + t^2 l) comes to pi/2 sqrt(l)."""
    t = (np.arange(200000) + 0.5) / 200000
    for value in (0.01, 0.5, 1.0, 4.0):
        assert (value / ((1 - t) ** 2 + t**2 * value)).mean() == pytest.approx(WHITE * math.sqrt(value), rel=1e-5)


@pytest.mark.parametrize("n", [16, 50, 300])
@pytest.mark.parametrize(("c", "side", "rho"), [(4, 8, 0.0), (4, 8, 0.8), (16, 8, 0.5), (4, 16, 0.8), (4, 16, 0.95)])
def test_viv_of_known_fields_is_right_within_5_percent(n: int, c: int, side: int, rho: float) -> None:
    """The table of known truths. White noise has pi/2 whatever its shape."""
    z, truth = autoregressive(n, c, side, rho)
    assert rho or truth == pytest.approx(WHITE)
    found = viv_dct(z)[0]
    assert found == pytest.approx(truth, rel=0.05)


def test_mixed_channels_have_the_viv_of_their_principal_components() -> None:
    """Channels of variance 4 and 0.25, turned into each other."""
    z, truth = autoregressive(100, 2, 8, 0.8)
    turned = torch.einsum(
        "cd,ndhw->nchw",
        torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64),
        z * torch.tensor([2.0, 0.5])[:, None, None],
    )
    assert viv_dct(turned)[0] == pytest.approx(truth * (2 + 0.5) / 2, rel=0.04)


def test_flip_flop_agrees_where_it_may_be_asked_and_only_there() -> None:
    """With ten times as many images and channels as positions; with a quarter of the positions it is wrong by a
    third."""
    z, truth = autoregressive(ENOUGH * 64 // 4, 4, 8, 0.8)
    assert viv_flip_flop(z) == pytest.approx(truth, rel=0.05)
    assert ambiguity([z, z + 1]).flip_flop is not None and ambiguity([z[:100], z]).flip_flop is None
    few, truth = autoregressive(16, 4, 16, 0.8)
    assert abs(viv_flip_flop(few) / truth - 1) > 0.2 > 0.05 > abs(viv_dct(few)[0] / truth - 1)


def test_rho_is_the_share_of_variance_within_classes_and_phi_the_evenness() -> None:
    """Classes at -1 and +1 in white noise of variance 1: half is within, and it is white."""
    found = ambiguity([normal(200, 3, 8, 8) - 1, normal(200, 3, 8, 8, seed=1) + 1])
    assert found.rho == pytest.approx(0.5, abs=0.01) and found.phi == pytest.approx(1, abs=0.01)
    assert found.viv.value == pytest.approx(WHITE * math.sqrt(0.5), rel=0.02)
    smooth = ambiguity([autoregressive(200, 3, 8, 0.9, seed)[0] for seed in (0, 1)])
    assert smooth.rho == pytest.approx(1, abs=0.03) and smooth.phi < 0.75
    scaled = ambiguity([50 * normal(200, 3, 8, 8) - 50 + 7, 50 * normal(200, 3, 8, 8, seed=1) + 50 + 7])
    assert scaled.viv.value == pytest.approx(found.viv.value, rel=1e-4)


def test_leaving_an_image_out_is_as_if_it_had_never_been_there() -> None:
    """In closed form, against doing it: one channel, whose principal component is itself."""
    z = normal(7, 1, 4, 4).double()
    without = viv_dct(z)[1]
    direct = [viv_dct(torch.cat([z[:i], z[i + 1 :]]))[0] for i in range(7)]
    np.testing.assert_allclose(without, direct, rtol=1e-9)


def test_intervals_of_viv_cover_the_truth() -> None:
    """At least 15 of 20 samples of smooth fields, whose truth is known."""
    covered = 0
    for seed in range(20):
        z, truth = autoregressive(40, 2, 8, 0.9, seed)
        values, without, _ = viv_dct(z)
        half = 1.96 * math.sqrt(39 / 40 * float(((without - without.mean()) ** 2).sum()))
        covered += abs(values - truth) < half
    assert covered >= 15


# --- tokens


def test_similarity_by_distance_is_that_of_all_pairs() -> None:
    u = directions(normal(2, 3, 4, 5))
    found, counts = similarity_by_distance(u)
    places = [(y, x) for y in range(4) for x in range(5)]
    for d in range(8):
        pairs = [(a, b) for a in places for b in places if abs(a[0] - b[0]) + abs(a[1] - b[1]) == d]
        assert counts[d] == len(pairs)
        direct = torch.stack([(u[:, :, a[0], a[1]] * u[:, :, b[0], b[1]]).sum(1) for a, b in pairs]).mean(0)
        torch.testing.assert_close(found[:, d], direct.double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[:, 0], torch.ones(2, dtype=torch.float64))


def test_structure_of_white_noise_and_of_two_halves() -> None:
    """White noise has none; in two halves near tokens are alike and far ones opposite."""
    white = normal(50, 8, 16, 16)
    for measure in (local_distant, decay):
        assert float(measure(directions(white), 8).mean()) == pytest.approx(0, abs=0.01)
    halves = torch.ones(1, 2, 16, 16)
    halves[..., :8] = -1
    assert float(local_distant(directions(halves), 8)) > 0.8 and float(decay(directions(halves), 8)) > 0.1
    assert float(spread(white).mean()) == pytest.approx(1, abs=0.02)
    assert float(spread(torch.ones(1, 3, 8, 8))) == pytest.approx(0, abs=1e-3)
    assert float(spread(halves)) == pytest.approx(1, abs=1e-5)


def test_distances_are_in_pixels() -> None:
    """The same picture at f8 and, every token fourfold, at f4."""
    z = torch.nn.functional.interpolate(normal(20, 4, 4, 4), scale_factor=4, mode="bilinear")
    coarse, fine = directions(z), directions(z.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert float(local_distant(fine, 4).mean()) == pytest.approx(float(local_distant(coarse, 8).mean()), rel=0.15)
    assert float(decay(fine, 4).mean()) == pytest.approx(float(decay(coarse, 8).mean()), rel=0.15)


def test_the_contrast_of_an_object() -> None:
    """Opposite to its background 2, like it 0, white noise about 0; without one nan."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[4:8, 4:8] = True
    z = torch.where(mask, 1.0, -1.0).expand(3, 16, 16)
    assert object_contrast(z / math.sqrt(3), mask, 16) == pytest.approx(2, abs=1e-5)
    assert object_contrast(torch.ones(3, 16, 16) / math.sqrt(3), mask, 16) == pytest.approx(0, abs=1e-5)
    assert object_contrast(directions(normal(1, 64, 16, 16))[0], mask, 16) == pytest.approx(0, abs=0.1)
    assert math.isnan(object_contrast(z, torch.zeros(16, 16, dtype=torch.bool), 16))
    assert math.isnan(object_contrast(z, torch.ones(16, 16, dtype=torch.bool), 16))


# --- neighbours


def test_nearest_is_sklearns() -> None:
    x = normal(30, 5).double().numpy()
    direct = NearestNeighbors(n_neighbors=4, metric="cosine").fit(x).kneighbors(return_distance=False)
    np.testing.assert_array_equal(nearest(x, 4), direct)


def test_neighbours_and_probe_of_planted_classes() -> None:
    """Separated classes are found, permuted labels are chance, with unequal classes, too."""
    labels = ["a"] * 60 + ["b"] * 30
    x = normal(90, 6).double().numpy()
    x[:60, 0] += 12
    assert same_label(x, labels, 5).mean() == 1 and probe(x, labels).mean() == 1
    assert chance_same(labels) == pytest.approx((60 * 59 + 30 * 29) / (90 * 89)) and majority(labels) == pytest.approx(
        2 / 3
    )
    mixed = [str(name) for name in np.random.default_rng(0).permutation(labels)]
    assert same_label(x, mixed, 5).mean() == pytest.approx(chance_same(labels), abs=0.1)
    assert probe(normal(90, 6, seed=3).numpy(), mixed).mean() <= majority(labels) + 0.05


def test_the_mean_of_an_object_is_that_of_its_places() -> None:
    z = torch.zeros(2, 1, 2, 2)
    z[:, 0, 0, 0], z[:, 0, 1, 1] = 5.0, 9.0
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[0, :8, :8], mask[0, 8:, 8:12] = True, True
    assert object_mean(z, mask)[:, 0].tolist() == pytest.approx([(5 + 9 / 2) / 1.5, 14 / 4])
    assert pooled(z, 2).shape == (2, 6)


# --- the panel


def planted(labels: list[str] | None, strength: float, **more: object) -> Subject:
    """Smooth latents, of which a class pattern, drawn at random, is a share."""
    z = autoregressive(40, 4, 16, 0.9)[0].float()
    pattern = autoregressive(2, 4, 16, 0.9, seed=5)[0].float()
    z[:20] += strength * pattern[0]
    z[20:] += strength * pattern[1]
    return patient(z, labels=labels, **more)  # type: ignore[arg-type]


def test_labels_and_the_structure_that_is_planted_decide() -> None:
    """The same latents: right labels healthy, permuted ones not, and none not examined."""
    right = ["cat"] * 20 + ["dog"] * 20
    found = examine(planted(right, 1.5))
    assert found.verdict == "healthy", found.sentence
    assert found.figures["lnc_5"].low > 0.6 and found.figures["probe"].value == 1 and found.figures["rho"].value < 0.6
    permuted = examine(planted(["cat", "dog"] * 20, 1.5))
    assert (
        permuted.verdict == "watch"
        and permuted.remedy
        and permuted.figures["rho"].value > found.figures["rho"].value + 0.2
    )
    assert permuted.figures["viv"].value > 1.3 * found.figures["viv"].value
    unlabelled = examine(planted(None, 1.5))
    assert unlabelled.verdict == "not examined" and "at least 16 images in each of 2 classes" in unlabelled.sentence
    assert set(unlabelled.figures) == {"rmsc", "lds", "cds"} and "images without labels" in unlabelled.sentence
    few = examine(planted(["cat"] * 30 + ["dog"] * 10, 1.5))
    assert few.verdict == "not examined" and "2 classes, the largest two of 30 and 10" in few.sentence


def test_white_latents_are_watched_and_never_ill() -> None:
    for labels in (None, ["cat"] * 20 + ["dog"] * 20):
        found = examine(patient(normal(40, 4, 16, 16), labels=labels))
        assert found.verdict == "watch" and found.figures["lds"].value == pytest.approx(0, abs=0.02)
    assert found.figures["viv"].value == pytest.approx(WHITE, rel=0.04) and found.figures["phi"].value > 0.95
    assert not found.figures["lnc_5"].low > 0.5


def test_masks_give_the_contrast_of_objects_and_frames_show_labels() -> None:
    masks = torch.zeros(40, 128, 128, dtype=torch.bool)
    masks[:, 32:64, 32:64] = True
    seen = planted(["cat"] * 20 + ["dog"] * 20, 0.0, masks=masks)
    plain = examine(seen)
    seen.mean[:, :, 4:8, 4:8] += 6.0
    marked = examine(seen)
    assert marked.figures["srss"].low > plain.figures["srss"].high and len(marked.pictures) == 2
    assert max(picture.image.width for picture in marked.pictures) <= 1000


def test_classes_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many classes: fewer images of each, and of so many classes only, in bounded memory."""
    monkeypatch.setattr(semantics, "ALL", 100)
    monkeypatch.setattr(semantics, "MOST_CLASSES", 3)
    names = [f"class {i % 5}" for i in range(200)]
    seen = patient(normal(200, 1, 8, 8), labels=names)
    classes = semantics._classes(seen, sorted(set(names)), 128)
    assert [len(some) for some in classes] == [33, 33, 33]
    assert all(len({names[i] for i in some}) == 1 and len(set(some)) == 33 for some in classes)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images(count: int) -> None:
    found = examine(patient(autoregressive(count, 1, 8, 0.9)[0].float()))
    assert found.verdict == "not examined" and math.isnan(found.figures["lds"].low) == (count == 1)


def test_one_class_is_no_classes() -> None:
    found = examine(patient(normal(6, 4, 8, 8), labels=["dog"] * 6))
    assert "not one class of 6" in found.sentence


def test_what_cannot_be_measured() -> None:
    with pytest.raises(NotExamined, match="4 x 4"):
        examine(patient(normal(4, 4, 2, 2)))
    broken = normal(4, 4, 8, 8)
    broken[0] = math.nan
    assert examine(patient(broken)).verdict == "ill"


def test_photographs_through_a_vae() -> None:
    seen = photos_patient(linear(), size=128)
    found = examine(seen)
    assert (
        found == examine(seen)
        and found.verdict == "not examined"
        and found.figures["lds"].value > 0.05
        and found.curves
    )
