"""Images with captions as latents: standardized as numpy says, in folders that are whole, split by content."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import configs
import numpy as np
import pytest
import torch
from torch import Tensor

import vaeworks as vw
from vaeworks.config import DenoiserConfig, PaintConfig
from vaeworks.models import Autoencoder
from vaeworks.painting import captioned_latents
from vaeworks.painting.captioned_latents import (
    FACTS,
    CaptionedLatents,
    prepare_latents,
    read_captioned,
    standardize,
    standardized,
)
from vaeworks.pipelines.blank import blank_pipeline, trained_tokenizer

CONFIG = PaintConfig(size=16, batch=8, val_fraction=0.2, denoiser=DenoiserConfig(patch=4))
SHAPES = "shapes:40:16"


@contextmanager
def silent(what: str) -> Iterator[Any]:
    yield lambda done, total: None


def built(config: Any = configs.TINY, **facts: Any) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = vw.build(config).requires_grad_(False).eval()
    if facts:
        vae.config = vae.config.with_facts(**facts)
    return vae


def latents_of(vae: Autoencoder, folder: Path, **settings: Any) -> tuple[CaptionedLatents, PaintConfig]:
    config = dataclasses.replace(CONFIG, **settings)
    return prepare_latents(read_captioned(SHAPES, config), vae, config, folder, silent), config


def images() -> Tensor:
    """What the source shows, in [-1, 1]."""
    from vaeworks.data.synthetic.captioned_shapes import captioned_shapes

    return torch.stack([shape.image() for shape in captioned_shapes(40, 16)]).float() / 127.5 - 1


def moments_of_samples(vae: Autoencoder, rows: np.ndarray) -> np.ndarray:
    """Many samples of the posteriors of training images, by numpy: samples, n, c, h, w."""
    posterior = vae.encode(images()[rows])
    mean, std = posterior.mean.double().numpy(), posterior.std.double().numpy()
    noise = np.random.default_rng(0).standard_normal((400, *mean.shape))
    return mean + std * noise


@pytest.mark.parametrize("how", ["scalar", "channel"])
def test_measured_statistics_are_those_of_posterior_samples(how: str, tmp_path: Path) -> None:
    """Of training images only: mean and standard deviation of all that the denoiser can be given."""
    vae = built(scaling_factor=0.5, shift_factor=0.25)
    latents, _ = latents_of(vae, tmp_path, standardize=how)
    axes = (0, 1, 3, 4) if how == "channel" else None
    samples = moments_of_samples(vae, latents.trained)
    mean, std = (np.broadcast_to(f(samples, axis=axes), 4) for f in (np.mean, np.std))
    np.testing.assert_allclose(latents.centre.flatten(), mean, atol=2e-3)
    np.testing.assert_allclose(latents.spread.flatten(), std, rtol=5e-3)
    everything = moments_of_samples(vae, np.arange(40)).mean()
    assert how == "channel" or abs(everything - mean[0]) > 1e-4  # held-out images would be seen here

    noise = torch.randn(len(latents.trained), *latents.shape, generator=torch.Generator().manual_seed(0))
    z = latents.sample(latents.trained, noise)
    assert z.mean().abs() < 0.02 and (z.std() - 1).abs() < 0.02
    again = standardized(vae, latents, CONFIG if how == "scalar" else dataclasses.replace(CONFIG, standardize=how))
    raw = torch.from_numpy(np.array(latents.mean[latents.trained]))
    assert latents.std is not None
    raw = raw + torch.from_numpy(np.array(latents.std[latents.trained])) * noise
    torch.testing.assert_close(again.normalize(raw), z, rtol=1e-5, atol=1e-5)
    assert vae.config.scaling_factor == 0.5  # the VAE that was given is as before
    assert again.decoder is vae.decoder


@pytest.mark.parametrize("stated", ["scalar", "channel"])
def test_the_files_own_normalization(stated: str, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"scaling_factor": 0.5, "shift_factor": 0.25}
    if stated == "channel":
        facts = {"normalization": "channel", "latents_mean": (0.1, 0.2, -0.3, 0.4), "latents_std": (1.0, 2.0, 0.5, 3.0)}
    vae = built(**facts)
    latents, config = latents_of(vae, tmp_path, standardize="file")
    assert standardized(vae, latents, config) is vae
    noise = torch.zeros(3, *latents.shape)
    raw = torch.from_numpy(np.array(latents.mean[:3]))
    torch.testing.assert_close(latents.sample([0, 1, 2], noise), vae.normalize(raw), rtol=1e-5, atol=1e-5)


def test_a_taesd_stays_as_it_is(tmp_path: Path) -> None:
    """It has no 1x1 convolutions to fold statistics into, so that its file's scale counts; its latents are points."""
    vae = built(configs.TINY_TAESD)
    assert standardize(CONFIG, vae) == "file"
    latents, config = latents_of(vae, tmp_path, standardize="channel")
    assert latents.std is None
    assert standardized(vae, latents, config) is vae
    raw = vae.encode(images()[:2]).mean
    z = latents.sample([0, 1], torch.ones(2, *latents.shape))
    torch.testing.assert_close(z, vae.normalize(raw), rtol=1e-4, atol=1e-4)


def test_a_dead_channel_stays_zero(tmp_path: Path) -> None:
    vae = built()
    vae.quant_conv.weight[[1, 5]] = 0
    vae.quant_conv.bias[1], vae.quant_conv.bias[5] = 3.0, -30.0
    latents, _ = latents_of(vae, tmp_path, standardize="channel")
    z = latents.sample(latents.trained, torch.randn(len(latents.trained), *latents.shape))
    assert z.isfinite().all()
    assert z[:, 1].abs().max() < 1e-2


# Rows


def test_mirrored_images_have_rows_of_their_own(tmp_path: Path) -> None:
    """Training images only, with the latents of the mirrored picture and the caption of the other."""
    vae = built()
    plain, _ = latents_of(vae, tmp_path / "plain")
    latents, _ = latents_of(vae, tmp_path / "flip", flip=True)
    n, t = len(plain.captions), len(plain.trained)
    assert n == 40 and len(latents.captions) == n + t
    assert latents.trained.tolist() == [*plain.trained.tolist(), *range(n, n + t)]
    assert np.array_equal(latents.held_out, plain.held_out) and len(latents.held_out) == n - t > 0
    assert np.array_equal(latents.mean[:n], plain.mean)
    row = int(plain.trained[2])
    turned = vae.encode(images()[row : row + 1].flip(-1)).mean
    assert latents.captions[n + 2] == latents.captions[row]
    np.testing.assert_allclose(latents.mean[n + 2 : n + 3], turned, rtol=1e-4, atol=1e-4)
    assert np.abs(latents.mean[n + 2] - latents.mean[row]).max() > 1e-2


def test_every_row_has_the_caption_of_its_picture(tmp_path: Path) -> None:
    from vaeworks.data.synthetic.captioned_shapes import captioned_shapes

    vae = built()
    latents, _ = latents_of(vae, tmp_path)
    assert list(latents.captions) == [shape.caption for shape in captioned_shapes(40, 16)]
    assert not set(latents.trained) & set(latents.held_out)
    np.testing.assert_allclose(latents.mean, vae.encode(images()).mean, rtol=1e-4, atol=1e-4)


def test_no_held_out_images(tmp_path: Path) -> None:
    latents, _ = latents_of(built(), tmp_path, val_fraction=0.0)
    assert len(latents.trained) == 40 and len(latents.held_out) == 0


# The folder


def test_nothing_is_encoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened again with the same arguments, encoded again where one of them is another."""
    counts: list[int] = []
    encode = captioned_latents._encode_rows
    monkeypatch.setattr(captioned_latents, "_encode_rows", lambda *args: (counts.append(1), encode(*args))[1])
    vae = built()
    first, _ = latents_of(vae, tmp_path)
    again, _ = latents_of(vae, tmp_path, standardize="channel", batch=4)  # they change no latents
    assert len(counts) == 1 and np.array_equal(first.mean, again.mean)
    latents_of(vae, tmp_path, flip=True)
    other = built()
    other.quant_conv.bias[0] += 1
    changed, _ = latents_of(other, tmp_path)
    assert len(counts) == 3 and not np.array_equal(first.mean, changed.mean)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_an_interruption_leaves_nothing_half_done(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = built()
    encode = vae.encode

    def interrupted(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(captioned_latents, "BATCH", 16)
    vae.encode = interrupted  # type: ignore[method-assign]
    with pytest.raises((type(error), vw.VaeworksError)):
        latents_of(vae, tmp_path / "latents")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    vae.encode = encode  # type: ignore[method-assign]
    assert len(latents_of(vae, tmp_path / "latents")[0].mean) == 40


def refused(kind: type[Exception], words: str, vae: Autoencoder, folder: Path, **settings: Any) -> None:
    with pytest.raises(kind, match=words) as caught:
        latents_of(vae, folder, **settings)
    assert "\n" not in str(caught.value)
    assert not list(folder.rglob("*.npy")) or words == "constant"


def test_refused(tmp_path: Path) -> None:
    refused(vw.ConfigError, r"size \(=15\) must be divisible by the VAE's", built(), tmp_path, size=15)
    broken = built()
    broken.quant_conv.bias[0] = float("nan")
    refused(vw.VaeworksError, "not finite|NaN", broken, tmp_path)
    dead = built()
    dead.quant_conv.weight.zero_()
    dead.quant_conv.bias[:4], dead.quant_conv.bias[4:] = 0.0, -1e4
    refused(vw.DataError, "constant", dead, tmp_path / "dead")
    latents_of(built(), tmp_path / "torn")
    (facts,) = (tmp_path / "torn").rglob(FACTS)
    facts.write_text('{"captions": ["a"], "trained": [0], "held_out": []}')
    refused_text = "does not describe latents .*; delete"
    with pytest.raises(vw.FormatError, match=refused_text):
        latents_of(built(), tmp_path / "torn")


# What a pipeline makes of it


@pytest.mark.parametrize("how", ["scalar", "channel"])
@pytest.mark.parametrize("kind", ["sd3", "sd1"])
def test_the_vae_in_the_folder_decodes_what_the_denoiser_paints(kind: str, how: str, tmp_path: Path) -> None:
    """As the stock pipelines' own code does: SD3 applies one scale and one shift, SD1 a scale; what a pipeline does not
    apply is folded into the weights."""
    vae = built(scaling_factor=2.0, shift_factor=0.25)
    latents, config = latents_of(vae, tmp_path, standardize=how)
    ours = standardized(vae, latents, config)
    sizes = {"width": 32, "depth": 1, "head_dim": 16, "patch": 4, "text_width": 32}
    denoiser = DenoiserConfig(kind=kind, **sizes)  # type: ignore[arg-type]
    objective = "flow" if kind == "sd3" else "epsilon"
    pipe = blank_pipeline(ours, denoiser, trained_tokenizer(latents.captions, denoiser), 16, objective, 0)
    z = latents.sample(latents.trained[:2], torch.zeros(2, *latents.shape))
    raw = z / pipe.vae.config.scaling_factor + (getattr(pipe.vae.config, "shift_factor", None) or 0.0)
    with torch.no_grad():
        theirs = pipe.vae.decode(raw).sample
    expected = vae.decode(torch.from_numpy(np.array(latents.mean[latents.trained[:2]])))
    torch.testing.assert_close(theirs, expected, rtol=1e-3, atol=1e-4)
