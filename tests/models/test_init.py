"""The linear start: a plain KL autoencoder that is a transform codec before it has seen an image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import vaeworks as vw
from vaeworks.config import MODELS
from vaeworks.data import photos
from vaeworks.images import center_crop, open_image, to_uint8
from vaeworks.metrics import psnr
from vaeworks.metrics.baselines import down_up
from vaeworks.metrics.roundtrip import reconstruct_uint8
from vaeworks.models.init import linear_init_

SMALL = MODELS["small-f8c16"]

CONFIGS = {
    **{
        name: dataclasses.replace(config, channels=32, norm_groups=8)
        for name, config in MODELS.items()
        if not name.startswith("small")
    },
    **{name: config for name, config in MODELS.items() if name.startswith("small")},
    "gray": dataclasses.replace(SMALL, in_channels=1, out_channels=1),
    "one level": dataclasses.replace(SMALL, channel_mult=(1,)),
    "first level wider": dataclasses.replace(SMALL, channel_mult=(2, 2, 4)),
    "other decoder": dataclasses.replace(SMALL, decoder_channels=24, norm_groups=8),
    "more latents than bands": dataclasses.replace(SMALL, latent_channels=64, channel_mult=(1, 2)),
    "one channel a group": dataclasses.replace(SMALL, channels=8, norm_groups=8),
}


def started(config: vw.AutoencoderConfig, seed: int = 0) -> vw.Autoencoder:
    vae = vw.build(config)
    linear_init_(vae, torch.Generator().manual_seed(seed))
    return vae


def photo() -> torch.Tensor:
    return to_uint8(center_crop(open_image(next(p for p in photos() if p.stem == "chelsea")), 16, 256))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_starts_finite_and_can_learn(name: str) -> None:
    """Outputs are finite, and after two steps of gradient descent every parameter has had a gradient."""
    torch.manual_seed(0)
    config = CONFIGS[name]
    vae = started(config).train()
    images = torch.rand(2, config.in_channels, 64, 64) * 2 - 1
    target = images[:, :1].expand(-1, config.out_channels, -1, -1)
    optimizer = torch.optim.SGD(vae.parameters(), lr=1e-2)
    seen = dict.fromkeys(dict(vae.named_parameters()), 0.0)
    f = config.downsample_factor
    for _ in range(2):
        recon, posterior = vae(images, torch.randn(2, config.latent_channels, 64 // f, 64 // f))
        loss = (recon - target).square().mean() + posterior.kl().mean()
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        for parameter_name, parameter in vae.named_parameters():
            seen[parameter_name] += parameter.grad.abs().max().item()
        optimizer.step()
    # a key's bias moves all scores of a query alike, so that softmax takes it away: it never has a gradient
    dead = [n for n, value in seen.items() if not value > 0 and not n.endswith("key.bias")]
    assert not dead or name == "one channel a group", dead


def test_starts_as_a_codec() -> None:
    """Untrained, f8c16 keeps more of a photograph than bicubic down-up; PyTorch's start keeps nothing."""
    image = photo()
    baseline = psnr(image, to_uint8(down_up(open_image_of(image), 8)))
    assert psnr(image, reconstruct_uint8(started(SMALL).eval(), image)) > baseline
    torch.manual_seed(0)
    assert psnr(image, reconstruct_uint8(vw.build(SMALL).eval(), image)) < baseline - 5


def open_image_of(image: torch.Tensor):
    from vaeworks.images import to_pillow

    return to_pillow(image)


def test_more_latent_channels_keep_more() -> None:
    """The strongest bands come first: PSNR of the start grows with c."""
    image = photo()
    figures = [
        psnr(image, reconstruct_uint8(started(dataclasses.replace(SMALL, latent_channels=c)).eval(), image))
        for c in (1, 4, 16)
    ]
    assert figures == sorted(figures)


def test_start_is_linear_between_images() -> None:
    """The network at its start is nearly affine: the middle of two images goes to the middle of their
    reconstructions."""
    vae = started(SMALL).eval()
    a, b = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).sub(0.5).mul(0.5)
    with torch.no_grad():
        out = [vae.decode(vae.encode(x).mode()) for x in (a, b, (a + b) / 2)]
    middle = (out[0] + out[1]) / 2
    assert (out[2] - middle).abs().max() < 0.05 * middle.abs().max()


def test_start_is_a_function_of_the_seed() -> None:
    """Equal seeds, equal weights; the generator draws what is not part of the transform."""
    one, same, other = (started(SMALL, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)
    before = torch.get_rng_state()
    linear_init_(vw.build(SMALL, channels=8, norm_groups=2), torch.Generator().manual_seed(0))
    assert not torch.equal(before, torch.get_rng_state())  # build draws from the global generator ...
    vae, before = vw.build(SMALL), torch.get_rng_state()
    linear_init_(vae, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())  # ... the start does not


def test_unused_channels_differ() -> None:
    """Channels outside the transform have weights of their own, so that they can specialize."""
    vae = started(SMALL)
    weight = vae.encoder.levels[0].blocks[0].conv1.weight.detach().flatten(1)
    assert (torch.cdist(weight, weight) + torch.eye(len(weight))).min() > 1e-3


def test_start_on_real_photographs(test_data: Path) -> None:
    """Over photographs of dogs, the untrained f8c16 keeps more than bicubic down-up on average."""
    vae = started(SMALL).eval()
    gains = []
    for path in sorted((test_data / "data" / "dogs").glob("*.jpg"))[:20]:
        image = to_uint8(open_image(path))
        gains.append(psnr(image, reconstruct_uint8(vae, image)) - psnr(image, to_uint8(down_up(open_image(path), 8))))
    assert sum(gains) / len(gains) > 0.3
