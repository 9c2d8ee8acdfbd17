"""Collapse: dead channels, collapsed posteriors, decoders that ignore latents, and samples that are all alike."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from patients import linear, patient, photos_patient
from torch import Tensor

from vaeworks.doctor.measures.capacity import measure_channels
from vaeworks.doctor.panels.collapse import ablate, colored, diversity, examine, relative_diversity, sample
from vaeworks.doctor.subject import Subject
from vaeworks.images import from_model_range


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def sound() -> Subject:
    return photos_patient(linear(), count=6)


def changed(seen: Subject, **parts: object) -> Subject:
    """The same patient with other parts, none shared."""
    other = dataclasses.replace(
        seen, autoencoder=copy.deepcopy(seen.autoencoder), mean=seen.mean.clone(), logvar=seen.logvar.clone()
    )  # type: ignore[union-attr]
    return dataclasses.replace(other, **parts)  # type: ignore[arg-type]


def test_colored_noise_has_the_mean_and_covariance_it_is_given() -> None:
    covariance = np.array([[4.0, 1.0], [1.0, 0.5]])
    x = colored(normal(64, 2, 32, 32), np.array([3.0, -1.0]), covariance).movedim(1, 0).flatten(1)
    np.testing.assert_allclose(np.cov(x.numpy()), covariance, atol=0.05)
    np.testing.assert_allclose(x.mean(1).numpy(), [3, -1], atol=0.02)


def test_diversity_of_pictures_that_are_known() -> None:
    """Constants 0, 1 and 3 differ by 1, 2 and 3; the same pictures by nothing; half as far by half."""
    pictures = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    np.testing.assert_allclose(diversity(pictures), [[0, 1, 3], [1, 0, 2], [3, 2, 0]], atol=1e-9)
    assert relative_diversity(pictures / 2 + 5, pictures).value == pytest.approx(0.5)
    assert relative_diversity(torch.ones(3, 3, 4, 4), pictures).value == 0
    assert math.isnan(relative_diversity(pictures, torch.ones(3, 3, 4, 4)).value)
    assert math.isnan(relative_diversity(pictures[:1], pictures[:1]).value)
    many = normal(40, 1, 4, 4)
    assert 1 in relative_diversity(normal(40, 1, 4, 4, seed=1), many)


def test_ablation_is_the_difference_of_psnr(sound: Subject) -> None:
    """Of the channel that is replaced, by hand; of one that is its mean already, nothing."""
    mean = sound.mean.clone()
    mean[:, 2] = 0.7
    seen = changed(sound, mean=mean)
    found = ablate(seen, measure_channels(seen), images=2, most=4)
    losses = dict(zip(found.numbers, found.loss, strict=True))
    assert sorted(losses) == [0, 1, 2, 3] and losses[2] == pytest.approx(0, abs=1e-3) and found.numbers[-1] == 2
    numbers = seen.some(2)
    target, latents = seen.images(numbers), mean[numbers]
    without = latents.clone()
    without[:, 0] = mean[:, 0].mean()

    def psnr(z: Tensor) -> Tensor:
        return -10 * ((seen.decode(z).clamp(-1, 1) - target).square().mean((1, 2, 3)) / 4).log10()

    assert losses[0] == pytest.approx(float((psnr(latents) - psnr(without)).mean()), abs=1e-3)
    assert found.whole > max(found.loss) > 1


def test_of_many_channels_some_are_chosen_by_variance() -> None:
    mean = normal(2, 64, 8, 8) * torch.linspace(1, 2, 64)[:, None, None]
    seen = patient(mean)
    found = ablate(seen, measure_channels(seen), images=1, most=4)
    order = np.argsort(-measure_channels(seen).total.std)
    assert found.numbers == [order[0], order[21], order[42], order[63]]


def test_a_sound_vae_is_healthy(sound: Subject) -> None:
    found = examine(sound)
    assert found == examine(sound) and found.verdict == "healthy", found.sentence
    assert found.figures["dead"].value == 0 and found.figures["active"].value == 4
    assert 0.4 < found.figures["reconstructions"].value < 1.1 and found.figures["worth"].value > 3
    assert found.pictures and set(found.tables["channels"]["state"]) == {"in use"}


def test_a_dead_channel_is_found_by_number(sound: Subject) -> None:
    """In a posterior that is the prior there, and in points that are constant there."""
    mean, logvar = sound.mean.clone(), sound.logvar.clone()  # type: ignore[union-attr]
    mean[:, 2], logvar[:, 2] = 1e-3 * mean[:, 2], 0.0
    for seen in (changed(sound, mean=mean, logvar=logvar), changed(sound, mean=mean, logvar=None)):
        found = examine(seen)
        assert found.verdict == "watch" and "1 of 4 channels carries nothing" in found.sentence
        assert (
            found.tables["channels"]["state"] == ["in use", "in use", "dead", "in use"]
            and "Fewer channels" in found.remedy
        )
    assert "active" not in examine(changed(sound, mean=mean, logvar=None)).figures


def test_a_collapsed_posterior_is_ill(sound: Subject) -> None:
    found = examine(changed(sound, mean=1e-3 * sound.mean, logvar=torch.zeros_like(sound.mean)))
    assert found.verdict == "ill" and "posterior has collapsed" in found.sentence
    assert found.figures["active"].value == 0 and found.figures["bits"].value < 1


def test_a_decoder_that_ignores_its_latents_is_ill(sound: Subject) -> None:
    seen = changed(sound)
    seen.autoencoder.decoder.conv_in.weight.data.zero_()
    found = examine(seen)
    assert (
        found.verdict == "ill"
        and "ignores the latents" in found.sentence
        and found.figures["reconstructions"].value == pytest.approx(0, abs=1e-5)
    )


def test_a_decoder_of_other_latents_is_ill(sound: Subject) -> None:
    """It makes different pictures of different latents, but not those that were meant."""
    seen = changed(sound)
    weight = seen.autoencoder.decoder.conv_in.weight.data
    weight.copy_(-weight)
    found = examine(seen)
    assert found.figures["reconstructions"].value > 0.5
    assert found.verdict == "ill" and "nothing of the latents" in found.sentence


def test_samples_that_are_all_alike_are_watched(sound: Subject) -> None:
    """Normal noise that a wrong scale makes a hundred times too small for the decoder."""
    seen = changed(sound)
    seen.autoencoder.config = dataclasses.replace(seen.autoencoder.config, scaling_factor=85.0)
    found = examine(seen)
    assert found.figures["prior"].value < 0.1 < found.figures["fitted"].value
    assert found.verdict == "watch" and "same picture" in found.sentence


def test_a_decoder_of_no_numbers_is_ill(sound: Subject) -> None:
    seen = changed(sound)
    seen.autoencoder.decoder.conv_in.bias.data[0] = math.nan
    found = examine(seen)
    assert found.verdict == "ill" and "NaN" in found.sentence and math.isnan(found.figures["worth"].value)


def test_samples_are_decoded_from_the_noise_that_is_named(sound: Subject) -> None:
    """Normal noise in the normalized space is what `denormalize` makes of it."""
    seen = changed(sound)
    found = sample(seen, measure_channels(seen), 3)
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.prior, seen.decode(seen.autoencoder.denormalize(noise)).clamp(-1, 1))
    assert torch.equal(from_model_range(found.images), seen.pixels[seen.some(3)])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images(sound: Subject, count: int) -> None:
    found = examine(changed(sound, mean=sound.mean[:count], logvar=sound.logvar[:count], pixels=sound.pixels[:count]))
    assert found.verdict == "healthy" and ("prior" in found.figures) == (count > 1)
    assert "nan" not in found.sentence


def test_one_image_again_and_again(sound: Subject) -> None:
    """Pictures that do not differ cannot be compared in how they differ: that is no illness of the decoder."""
    same = [0, 0, 0, 0]
    found = examine(changed(sound, mean=sound.mean[same], logvar=sound.logvar[same], pixels=sound.pixels[same]))
    assert (
        found.verdict == "healthy"
        and math.isnan(found.figures["reconstructions"].value)
        and "nan" not in found.sentence
    )


def test_latents_in_squares_and_crops_of_quick() -> None:
    """A model whose diffusion model sees 2 x 2 squares; latents large enough for --quick to crop."""
    vae = linear(normalization="batchnorm", latents_patch=2)
    seen = photos_patient(vae, size=128, count=2)
    found = sample(seen, measure_channels(seen), 2)
    assert found.side == 64 and found.prior.shape == found.recon.shape
    torch.testing.assert_close(found.images, seen.images([0, 1])[..., 32:96, 32:96])
