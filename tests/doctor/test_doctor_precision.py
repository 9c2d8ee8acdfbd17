"""The precision panel: planted overflows are found where they are, sound VAEs are cleared."""

from __future__ import annotations

import math

import pytest
import torch
from patients import linear, photos_patient

from vaeworks.doctor.panels.precision import POOR, examine
from vaeworks.runtime import scale_activations
from vaeworks.runtime.fp16.ranges import FLOAT16_MAX


def test_a_sound_vae_is_cleared() -> None:
    found = examine(photos_patient(linear(), count=3))
    assert found.verdict == "healthy"
    assert found.figures["float16_psnr"].value > found.figures["bfloat16_psnr"].value > POOR
    assert found.figures["headroom"].value == pytest.approx(FLOAT16_MAX / found.figures["max_abs"].value)


def test_a_planted_overflow_is_found_in_its_half() -> None:
    """The same function with the decoder's activations at 2^18 times their size: float32 does not notice, float16
    breaks."""
    found = examine(photos_patient(scale_activations(linear(), decoder=2.0**18), count=2))
    assert found.verdict == "ill"
    assert "decoder.conv_in" in found.sentence and "bfloat16" in found.remedy
    assert found.figures["max_abs"].value > FLOAT16_MAX > 0 and found.figures["float16_broken"].value > 0
    assert found.figures["bfloat16_psnr"].value > POOR  # which has the range


@pytest.mark.parametrize(("factor", "verdict"), [(1, "healthy"), (2.0**10, "watch")])
def test_little_room_is_watched(factor: float, verdict: str) -> None:
    """Nothing overflows yet; another image might."""
    plain = examine(photos_patient(linear(), count=2)).figures["max_abs"].value
    grown = 2.0 ** math.floor(math.log2(FLOAT16_MAX / plain)) if factor > 1 else 1.0  # the last power of two that fits
    found = examine(photos_patient(scale_activations(linear(), decoder=grown), count=2))
    assert found.verdict == verdict
    assert found.figures["headroom"].value >= 1


def test_values_that_are_no_numbers_in_float32_are_ill() -> None:
    vae = linear()
    with torch.no_grad():
        vae.decoder.conv_out.bias.fill_(math.inf)
    found = examine(photos_patient(vae, count=2))
    assert found.verdict == "ill" and "float32" in found.sentence and "conv_out" in found.sentence
