"""The fog panel: fading, tint and wrong constants are found, sound VAEs are cleared."""

from __future__ import annotations

import copy

import pytest
import torch
from patients import files, linear, photos_patient

import vaeworks as vw
from vaeworks.doctor.panels.fog import APPLICATIONS, examine
from vaeworks.doctor.subject import encode_subject
from vaeworks.formats.fold import fold_to


def coloured() -> list:
    return [file for file in files() if file.path.stem in ("astronaut", "chelsea", "coffee", "china", "rocket")]


def examined(vae: vw.Autoencoder, reference: vw.Autoencoder | None = None, size: int = 128):
    return examine(encode_subject(vae, coloured()[:4], size=size, quick=True, reference=reference))


def tinted(vae: vw.Autoencoder, shift: float) -> vw.Autoencoder:
    """A decoder that adds blue."""
    other = copy.deepcopy(vae)
    with torch.no_grad():
        other.decoder.conv_out.bias[2] += shift
    return other


def test_a_sound_vae_is_cleared_and_a_tinted_one_is_not() -> None:
    vae = linear("small-f8c16")
    sound, blue = examined(vae), examined(tinted(vae, 0.2))
    assert sound.verdict != "ill" and "tinted" not in sound.sentence, sound.sentence  # it is pale: untrained, it blurs
    assert blue.verdict == "ill" and "tinted" in blue.sentence
    assert blue.figures["tint_b"].value < -5 < sound.figures["tint_b"].value  # towards blue


def test_a_fading_decoder_is_found() -> None:
    vae = linear("small-f8c16")
    sound = examined(vae)
    with torch.no_grad():
        vae.decoder.conv_out.weight *= 0.5
        vae.decoder.conv_out.bias *= 0.5
    found = examined(vae)
    assert found.verdict == "ill" and "fades" in found.sentence
    assert found.figures["contrast"].value == pytest.approx(0.5 * sound.figures["contrast"].value, rel=0.1)


def test_constants_of_applications_are_judged() -> None:
    """Folded to an application's scale, pictures are right there and wrong under the other's."""
    (name, constants), (other, _) = APPLICATIONS[4].items()
    found = examined(fold_to(linear(), *constants))
    table = found.tables["used with an application's constants"]
    ratios = dict(zip(table["application"], table["times the right scale"], strict=True))
    assert ratios[name] == pytest.approx(1, rel=1e-3)
    assert ratios[other] == pytest.approx(0.18215 / 0.13025, rel=1e-3)
    assert other in found.sentence and f"right under those of {name}" in found.sentence


def test_a_wrong_vae_beside_its_reference() -> None:
    """Latents of permuted channels are another VAE's; its own are right."""
    vae = linear()
    other = copy.deepcopy(vae)
    with torch.no_grad():
        other.decoder.conv_in.weight.copy_(vae.decoder.conv_in.weight[:, [1, 2, 3, 0]])
        other.encoder.conv_out.weight[:4] = vae.encoder.conv_out.weight[:4][[1, 2, 3, 0]]
        other.encoder.conv_out.bias[:4] = vae.encoder.conv_out.bias[:4][[1, 2, 3, 0]]
    found = examined(other, reference=vae)
    assert found.verdict == "ill" and "mixed channels" in found.sentence
    assert abs(found.figures["correlation"].value) < 0.6
    assert examined(vae, reference=vae).figures["correlation"].value == pytest.approx(1, abs=1e-5)


def test_gray_images_and_gray_models_have_no_colours_to_lose() -> None:
    vae = linear("small-f8c4", in_channels=1, out_channels=1)
    found = examine(photos_patient(vae, size=64, count=4))
    assert found.figures["saturation"].value == pytest.approx(1)
    assert abs(found.figures["tint_a"].value) < 1e-3
