"""The tiling panel: applications' tiles as they are, and what they do to decoders of known kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from patients import linear, photos_patient
from torch import Tensor

import vaeworks as vw
from vaeworks.doctor.panels import tiling
from vaeworks.doctor.panels.tiling import averaged_tiles, blended_tiles, examine, tone_shift


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "TILE_QUICK", 64)
    monkeypatch.setattr(tiling, "WHOLE_QUICK", 128)


def local(z: Tensor) -> Tensor:
    """A decoder that sees one latent at a time."""
    return F.interpolate(z[:, :3], scale_factor=8, mode="nearest")


@pytest.mark.parametrize("size", [(40, 28), (16, 33), (17, 50), (9, 12)])
def test_blended_tiles_are_diffusers_own(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    vae = vw.build("small-f8c4", channels=32, norm_groups=8).eval().requires_grad_(False)
    theirs = vw.to_diffusers(vae)
    theirs.enable_tiling()
    theirs.tile_sample_min_size, theirs.tile_latent_min_size = 128, 16
    z = torch.randn(1, 4, *size)
    with torch.no_grad():
        ours = blended_tiles(vae.decode, z, 16, 4, 8)
        assert ours.shape == (1, 3, size[0] * 8, size[1] * 8)
        torch.testing.assert_close(ours, theirs.decode(z).sample, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (23, 40), (5, 9)])
def test_a_local_decoder_does_not_care_for_tiles(size: tuple[int, int]) -> None:
    """What sees one latent at a time is equal in tiles and whole: weights sum to 1 everywhere, and nothing is left
    out."""
    z = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(blended_tiles(local, z, 8, 2, 8), local(z))
    torch.testing.assert_close(averaged_tiles(local, z, 8, 2, 8), local(z))


def test_three_tilings_are_averaged() -> None:
    """A decoder that tells the size of what it is given: the mean over square, tall and wide tiles."""
    areas = []

    def tells(z: Tensor) -> Tensor:
        areas.append(tuple(z.shape[-2:]))
        return torch.full((1, 3, z.shape[-2], z.shape[-1]), float(len({"a": 0})) * z.shape[-2])

    averaged_tiles(tells, torch.zeros(1, 4, 32, 32), 8, 2, 1)
    assert {(8, 8), (16, 4), (4, 16)} <= set(areas)


def test_the_shift_of_a_tone_is_measured_in_its_block() -> None:
    whole = torch.full((3, 32, 32), 100, dtype=torch.uint8)
    tiled = whole.clone()
    tiled[:, :16, 16:] += 10  # gray stays gray: 10 levels are about 4 in lightness
    shift = tone_shift(whole, tiled, 16)
    assert shift.shape == (2, 2) and shift[0, 1] == pytest.approx(4.0, abs=0.4)
    assert np.count_nonzero(shift > 1e-6) == 1


def test_a_decoder_without_normalization_is_cleared_and_one_with_it_is_not() -> None:
    """TAESD sees no statistics of the picture; a random KL decoder normalizes everything by them."""
    torch.manual_seed(0)
    taesd = examine(photos_patient(vw.build("taesd").eval(), count=2))
    torch.manual_seed(0)
    kl = examine(photos_patient(vw.build("small-f8c4", channels=32, norm_groups=8).eval(), count=2))
    assert kl.figures["diffusers_tone"].value > 4 * taesd.figures["diffusers_tone"].value
    assert kl.verdict == "ill" and "tiles show" in kl.sentence
    assert taesd.verdict == "healthy", taesd.sentence


def test_the_patients_own_pictures_are_taken_as_large_as_they_are() -> None:
    patient = photos_patient(linear(), count=4)
    pictures, enlarged = tiling.large_pictures(patient, 128, 2)
    assert [p.shape for p in pictures] == [(3, 128, 128)] * 2 and not enlarged
    assert tiling.large_pictures(patient, 4096, 1)[1]
