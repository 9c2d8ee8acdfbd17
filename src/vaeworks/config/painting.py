"""The training of a denoiser for the latents of a VAE: its networks, its objective, and the run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ..errors import ConfigError
from .optimizer import OptimizerConfig
from .plain import MOST_BATCH, MOST_SIDE, MOST_WIDTH, check_not_negative

TOKEN = 8
"""Pixels along a side of a token, if nothing else is chosen."""


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """A denoiser and its text encoders, made anew. A run that moves a pipeline takes the pipeline's instead."""

    kind: Literal["sd3", "sd1"] = "sd3"
    """sd3: transformer with joint attention over latents and words (SD3); sd1: U-Net with cross-attention (SD 1)"""
    width: int = 128
    """width of the transformer; of the U-Net's first level, whose others are 2, 4 and 4 times as wide from 320 on; a
    smaller U-Net has two levels, the second twice as wide"""
    depth: int = 5
    """blocks of the transformer; residual blocks in each level of the U-Net"""
    head_dim: int = 32
    """width of an attention head; of the U-Net: number of heads"""
    patch: int | None = None
    """side of the squares of latents that the transformer takes as one token; None: those that cover 8 pixels, or one
    latent of a larger factor"""
    text_width: int = 64
    """width of each text encoder"""
    text_layers: int = 2
    """layers of each text encoder"""
    tokens: int | None = None
    """longest prompt in tokens; None: that of the longest caption, with a little room, at most 77"""
    vocabulary: int = 2048
    """most tokens that the tokenizer learns from the captions, beside its 512 bytes and two marks"""
    text_encoder: str | None = None
    """diffusers pipeline folder or hub id whose tokenizer and text encoder are taken and frozen, sd1 only; None: new
    ones are trained with the denoiser"""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "head_dim", "patch", "text_width", "vocabulary"):
            if (value := getattr(self, name)) is not None and not 1 <= value <= MOST_WIDTH:
                raise ConfigError(f"{name} (={getattr(self, name)}) must be at least 1 and at most {MOST_WIDTH}")
        if self.text_layers < 2:
            raise ConfigError(
                f"text_layers (={self.text_layers}) must be at least 2: SD3 reads the one before the last"
            )
        if self.tokens is not None and not 3 <= self.tokens <= 77:
            raise ConfigError(f"tokens (={self.tokens}) must be 3 to 77")
        if self.kind == "sd3" and self.width % self.head_dim:
            raise ConfigError(f"width (={self.width}) must be a multiple of head_dim (={self.head_dim})")
        if self.kind == "sd1" and self.width % 32:
            raise ConfigError(f"width (={self.width}) must be a multiple of 32, the U-Net's groups of channels")
        if self.text_width % 16:
            raise ConfigError(f"text_width (={self.text_width}) must be a multiple of 16")
        if self.text_encoder is not None and self.kind != "sd1":
            raise ConfigError("text_encoder is for a denoiser of kind 'sd1'")

    def patch_of(self, factor: int) -> int:
        """The side of a token in latents, for a VAE of this downsampling factor."""
        return self.patch or max(1, TOKEN // factor)


@dataclass(frozen=True, kw_only=True)
class MoveConfig:
    """How a pipeline is trained that moves to another latent space (--from)."""

    train: Literal["lora", "all"] = "lora"
    """lora: low-rank changes of the attention and the new layers; all: every weight of the denoiser"""
    rank: int = 16
    """rank of the low-rank changes"""
    images: int = 512
    """images for the least-squares map between the old and the new latents"""

    def __post_init__(self) -> None:
        if not (1 <= self.rank <= 4096 and self.images >= 16):
            raise ConfigError(f"rank (={self.rank}) must be 1 to 4096, images (={self.images}) at least 16")


@dataclass(frozen=True, kw_only=True)
class PaintConfig:
    """One training run of a denoiser. Progress is counted in images seen, never in steps.

    >>> config = dataclasses.replace(vw.paint_recipe("paint-tiny"), images=20_000)
    """

    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    move: MoveConfig = field(default_factory=MoveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    matrices: Literal["muon", "adamw"] = "muon"
    """optimizer of the matrices in the denoiser's blocks; all other weights have `optimizer`. muon: orthogonalized
    steps (Jordan 2024), which learn from about half as many images; new denoisers of kind sd3 only"""
    size: int = 48
    """side of the square pictures, in pixels"""
    flip: bool = False
    """train on mirrored pictures as well; not where captions say left and right"""
    standardize: Literal["scalar", "channel", "file"] = "scalar"
    """latents as the denoiser sees them. scalar: mean 0 and standard deviation 1 over all channels, measured on the
    training images; channel: in each channel; file: as the VAE's file normalizes them"""
    objective: Literal["flow", "v", "epsilon"] = "flow"
    """what the denoiser predicts. flow: noise minus latents on straight lines (SD3, Flux); v, epsilon: on SD 1's noise
    schedule"""
    logit_mean: float = 0.0
    """flow: mean of the logit of the times; more is noisier"""
    logit_std: float = 1.0
    """flow: standard deviation of the logit of the times"""
    min_snr: float = 5.0
    """v, epsilon: largest weight of a time, as a signal-to-noise ratio (min-SNR); 0: none"""
    caption_dropout: float = 0.1
    """share of the images that are trained without their caption, which guidance needs"""
    images: int = 100_000
    """length of the run"""
    batch: int = 64
    """images per optimizer step"""
    micro_batch: int | None = None
    """images per forward and backward pass; the step's gradient is their sum. None: the whole batch"""
    max_minutes: float | None = None
    """minutes of training after which the run ends, with the learning-rate schedule completed"""
    ema_halflife: int = 2000
    """half-life of the weight average that is saved, in images; 0: none"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """precision of the networks. auto: bf16 autocast on GPUs, else fp32; weights and optimizer are always fp32"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, about a third more time"""
    val_fraction: float = 0.05
    """share of images held out, chosen by content hash"""
    val_images: int = 256
    """held-out images whose loss is measured at each look"""
    val_every: int = 20_000
    """images between looks: the loss on held-out images, and a sheet of painted prompts"""
    save_every: int = 20_000
    """images between checkpoints"""
    log_every: int = 640
    """images between lines of the log"""
    keep_checkpoints: int = 2
    """newest checkpoints kept"""
    prompts: tuple[str, ...] = ()
    """prompts of the sheet; without any, captions of held-out images"""
    guidance: float = 3.0
    """guidance scale of the sheet"""
    steps: int = 20
    """denoising steps of the sheet"""
    trackers: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ("tensorboard",)
    """services that show the figures besides the run's own page"""
    seed: int = 0
    """seed of order, noise and weights"""
    device: str = "auto"
    """device to train on. auto: cuda if there is a GPU, else cpu"""

    def __post_init__(self) -> None:
        for name in ("images", "batch", "val_images", "val_every", "save_every", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} (={getattr(self, name)}) must be at least 1")
        if not 1 <= self.size <= MOST_SIDE or self.batch > MOST_BATCH:
            raise ConfigError(f"size (={self.size}) must be 1 to {MOST_SIDE}, batch (={self.batch}) to {MOST_BATCH}")
        check_not_negative(self, "seed", "ema_halflife", "min_snr", "guidance", "logit_std")
        for name in ("caption_dropout", "val_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} (={getattr(self, name)}) must be in [0, 1)")
        if not math.isfinite(self.logit_mean) or self.steps < 1:
            raise ConfigError(f"logit_mean (={self.logit_mean}) must be finite, steps (={self.steps}) at least 1")
        if self.micro_batch is not None and (self.micro_batch < 1 or self.batch % self.micro_batch):
            raise ConfigError(f"batch (={self.batch}) must be a multiple of micro_batch (={self.micro_batch})")
        if self.images < self.batch:
            raise ConfigError(f"images (={self.images}) must be at least one batch (={self.batch})")
        if self.seed >= 2**64:
            raise ConfigError(f"seed (={self.seed}) must be less than 2**64")
        if self.max_minutes is not None and not (math.isfinite(self.max_minutes) and self.max_minutes > 0):
            raise ConfigError(f"max_minutes (={self.max_minutes}) must be positive")
        if self.denoiser.kind == "sd3" and self.objective != "flow":
            raise ConfigError(f"objective {self.objective!r} is for a denoiser of kind 'sd1'; 'sd3' learns a flow")
        if self.denoiser.kind == "sd1" and self.matrices == "muon":
            raise ConfigError("matrices 'muon' is for a denoiser of kind 'sd3'; take 'adamw' for 'sd1'")
        if self.denoiser.kind == "sd1" and self.objective == "flow":
            raise ConfigError("objective 'flow' is for a denoiser of kind 'sd3'; take 'v' or 'epsilon' for 'sd1'")
