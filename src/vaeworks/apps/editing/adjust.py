"""Contrast, brightness and saturation: of pixels, and of latents through the linearized decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ...images import from_model_range
from ...runtime import Codec

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray: ITU-R BT.601, as in Pillow."""


PROBE = 32
"""Side, in latents, of the part of an image at which the decoder is linearized."""

ROUNDS, DAMPING = 3, 0.7
"""Rounds and damping of Newton's method. On three photographs more rounds gained below 1 dB, and undamped ones lost
with saturation."""


@dataclass(frozen=True)
class Adjustment:
    """A change of colours that is the same for every pixel: p' = A p + t."""

    contrast: float = 1.0
    """factor of the distance from the image's mean gray"""
    brightness: float = 0.0
    """added gray levels"""
    saturation: float = 1.0
    """factor of the distance from gray"""

    def __post_init__(self) -> None:
        """Errors: ConfigError for infinities and NaN."""
        for name in ("contrast", "brightness", "saturation"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} (={getattr(self, name)}) must be finite")

    def __bool__(self) -> bool:
        return self != Adjustment()

    def affine(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """A, k k, and t, k, in gray levels, for an image with k = 3 or 1 channels of this mean; saturation first, as in
        Pillow's ImageEnhance.

        Errors: ConfigError for saturation of a gray image.
        """
        k = len(mean)
        if k == 1 and self.saturation != 1:
            raise ConfigError("a gray picture has no saturation; leave --saturation away")
        luma = torch.tensor(LUMA if k == 3 else (1.0,), dtype=mean.dtype)
        gray = luma.expand(k, k)
        a = self.contrast * (gray + self.saturation * (torch.eye(k, dtype=mean.dtype) - gray))
        return a, (1 - self.contrast) * (luma @ mean).expand(k) + self.brightness


def adjusted_pixels(image: Tensor, adjustment: Adjustment) -> Tensor:
    """The adjusted image uint8 c h w: the reference of a latent edit."""
    pixels = image.double().flatten(1)
    a, t = adjustment.affine(pixels.mean(1))
    return (a @ pixels + t[:, None]).round().clamp(0, 255).to(torch.uint8).view(image.shape)


@dataclass(frozen=True, eq=False)
class LinearDecoder:
    """The decoder's response to a small change of latents, the same everywhere: dp = J dz."""

    response: Tensor
    """J, k c: gray levels of colour k per unit of channel c, mean over the image"""
    covariance: Tensor
    """c c, covariance of the image's latents"""

    def change(self, colours: Tensor) -> Tensor:
        """The likeliest change of latents, c h w, for a change of colours, k h w: C J^T (J C J^T)^-1, for latents of
        covariance C."""
        across = self.covariance @ self.response.T
        return torch.einsum("ck,khw->chw", (across @ torch.linalg.pinv(self.response @ across)).to(colours), colours)


def linear_decoder(codec: Codec, z: Tensor) -> LinearDecoder:
    """The decoder linearized at the middle of an image's latents c h w.

    A matrix fitted to pairs of latents and colours, as previews of Stable Diffusion use it, says how both vary together
    over images, not how the decoder responds to a change. Edits by such a matrix miss their target by far
    (docs/edit.md).
    """
    h, w = z.shape[-2:]
    top, left = max(0, (h - PROBE) // 2), max(0, (w - PROBE) // 2)
    autoencoder = codec.autoencoder
    part = (
        z[None, :, top : top + PROBE, left : left + PROBE]
        .to(autoencoder.device, autoencoder.dtype)
        .detach()
        .requires_grad_()
    )
    colours = autoencoder.decode(part)[0].float().mean((1, 2)) * 127.5
    rows = [torch.autograd.grad(colour, part, retain_graph=True)[0][0].sum((1, 2)) for colour in colours]
    centred = z.flatten(1).double().cpu()
    centred = centred - centred.mean(1, keepdim=True)
    return LinearDecoder(torch.stack(rows).double().cpu(), centred @ centred.T / centred.shape[1])


def adjusted_latents(codec: Codec, z: Tensor, adjustment: Adjustment) -> Tensor:
    """Unnormalized latents c h w whose decoded image has adjusted colours.

    Newton's method with a fixed matrix matches the mean colours of f x f pixels; the decoder determines finer detail.
    """
    f = codec.autoencoder.downsample_factor
    linear = linear_decoder(codec, z)
    decoded = from_model_range(codec.decode(z[None]))[0].cpu()
    wanted = F.avg_pool2d(adjusted_pixels(decoded, adjustment).float(), f)
    for _ in range(ROUNDS):
        z = z + DAMPING * linear.change(wanted - F.avg_pool2d(decoded.float(), f)).to(z)
        decoded = from_model_range(codec.decode(z[None]))[0].cpu()
    return z


@dataclass(frozen=True)
class ChannelChange:
    """Gain and shift of one latent channel, about its own mean and in its own standard deviations."""

    channel: int
    gain: float
    shift: float

    def applied(self, z: Tensor) -> Tensor:
        """Apply the change to latents c h w."""
        changed = z.clone()
        own = z[self.channel]
        changed[self.channel] = own.mean() + self.gain * (own - own.mean()) + self.shift * own.std(correction=0)
        return changed


def parse_channel(text: str, channels: int) -> ChannelChange:
    """A change from "CHANNEL:GAIN:SHIFT". Errors: ConfigError for another form, or a channel that does not exist."""
    try:
        number, gain, shift = text.split(":")
        change = ChannelChange(int(number), float(gain), float(shift))
    except ValueError:
        raise ConfigError(f"channel {text!r} must be CHANNEL:GAIN:SHIFT, such as 2:1.5:0") from None
    if not 0 <= change.channel < channels:
        raise ConfigError(f"channel {change.channel} does not exist; this model has 0 to {channels - 1}")
    return change
