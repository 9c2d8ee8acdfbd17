"""Comparison of a fine-tuned VAE with the VAE that it started from."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import FACTS, TrainConfig
from ..errors import VaeworksError
from ..images import from_model_range, to_model_range
from ..metrics import psnr
from ..models import Autoencoder
from .latent_stats import LatentStats
from .run.init import start_autoencoder

DRIFT = 0.1
"""Relative change of the latents' standard deviation from which there is a warning: a diffusion model was trained on
the old latents."""


@dataclass(frozen=True)
class FinetuneComparison:
    """A fine-tuned VAE compared with the one that it started from, on held-out images."""

    start: str
    encoder_unchanged: bool
    """whether every tensor of the encoder is the same, byte for byte"""
    decoder_unchanged: bool
    old_latents_before: float | None
    """mean PSNR in dB of the old latents decoded by the old decoder; None without held-out images"""
    old_latents_after: float | None
    """mean PSNR in dB of the old latents decoded by the new decoder, as for images that were generated before"""
    latents_moved: float | None
    """root mean square difference of new and old latents, in standard deviations of the old ones"""
    std_before: float
    """standard deviation of the old latents, over the same training crops as `std_after`"""
    std_after: float
    warning: str | None
    """a sentence where the latents have drifted from the scale that the file keeps"""


def compare_with_start(
    config: TrainConfig,
    judged: Autoencoder,
    images: Sequence[Tensor],
    stats: LatentStats,
    measured: Callable[[Autoencoder], LatentStats],
) -> FinetuneComparison | None:
    """Compare the result of a run with the VAE that it started from; None for random weights, or where the VAE is gone.

    images: held-out ones, uint8 c h w. stats: of `judged`'s latents; `measured` gives those of the other VAE.
    """
    if config.finetune.path is None:
        return None
    try:
        start = start_autoencoder(config.finetune.path).to(judged.device).eval()
        facts = {name: getattr(judged.config, name) for name in FACTS}  # the same scale for both
        start.config = dataclasses.replace(start.config, **facts)
    except VaeworksError:
        return None
    same_encoder, same_decoder = (
        _same(start, judged, half) for half in (("encoder.", "quant_conv."), ("decoder.", "post_quant_conv."))
    )
    figures = [_on_image(start, judged, image) for image in images]
    quality_before, quality_after, moved = (
        [statistics.fmean(c) for c in zip(*figures, strict=True)] if figures else [None] * 3
    )
    before, after = (1 / s.scaling_factor for s in (stats if same_encoder else measured(start), stats))
    moved = 0.0 if same_encoder and moved is not None else moved  # and not the rounding of another memory layout
    warning = None if config.finetune.teacher is not None else drift_warning(config, before, after)
    return FinetuneComparison(
        config.finetune.path, same_encoder, same_decoder, quality_before, quality_after, moved, before, after, warning
    )


def drift_warning(config: TrainConfig, before: float, after: float) -> str | None:
    """A warning where the latents' standard deviation has changed from `before` to `after`; None within DRIFT."""
    ratio = after / before
    if abs(ratio - 1) <= DRIFT:
        return None
    scale, known = config.model.scaling_factor, config.model.normalization_known
    kept, new = {
        "scalar": (f"its scaling_factor stays {scale:g}", f", with a scaling_factor of {scale / ratio:.5g}")
        if known
        else ("its scale, which its file does not say, stays what it was", ""),
        "channel": ("its latents_mean and latents_std stay what they were", ""),
        "batchnorm": ("its batch normalization's statistics stay what they were", ""),
    }[config.model.normalization]
    return (
        f"the latents' standard deviation has become {ratio:.2f} times what it was ({before:.3g}, now {after:.3g}), "
        f"and {kept}: a diffusion model made for the old VAE sees latents that are too "
        f"{'strong' if ratio > 1 else 'weak'}; train the decoder alone (finetune.part decoder), or train a diffusion "
        f"model for these latents{new}"
    )


def _same(a: Autoencoder, b: Autoencoder, prefixes: tuple[str, ...]) -> bool:
    theirs = b.state_dict()
    mine = {name: t for name, t in a.state_dict().items() if name.startswith(prefixes)}
    return all(
        torch.equal(t.view(torch.int32), theirs[name].view(torch.int32)) for name, t in mine.items()
    )  # bytes: 0 is not -0


@torch.inference_mode()
def _on_image(start: Autoencoder, judged: Autoencoder, image: Tensor) -> tuple[float, float, float]:
    x = to_model_range(image[None]).to(judged.device)
    old, new = start.encode(x).mode(), judged.encode(x).mode()
    before, after = (_quality(image, vae.decode(old)) for vae in (start, judged))
    return before, after, ((new - old).square().mean().sqrt() / old.std()).item()


def _quality(image: Tensor, decoded: Tensor) -> float:
    """PSNR in dB, at most 100; nan where the decoder's output is not finite."""
    return min(100.0, psnr(image, from_model_range(decoded)[0].cpu())) if decoded.isfinite().all() else math.nan
