"""What a training step minimizes: distances, regularizers, and the discriminator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import ConfigError
from .balance import BalanceConfig
from .optimizer import OptimizerConfig
from .plain import MOST_HALVINGS, MOST_WIDTH, check_not_negative


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The objective: reconstruction + perceptual_weight * perceptual + beta * KL, each a mean (over pixels, images,
    latents)."""

    reconstruction: Literal[
        "l1",
        "mse",
        "huber",
        "charbonnier",
        "ms_ssim",
        "haar",
        "laplacian",
        "focal_frequency",
        "gaussian",
        "optimal-gaussian",
    ] = "l1"
    """distance of pixels in [-1,1] (losses/reconstruction.py). gaussian: negative log-likelihood with one learned
    variance; optimal-gaussian: with the variance that suits each image best (sigma-VAE); with both, beta = latents /
    pixels is the true ELBO"""
    perceptual: Literal[
        "none", "lpips-vgg16", "lpips-alexnet", "lpips-squeezenet", "vgg16-conv1to3", "without-weights"
    ] = "none"
    """distance of a frozen network's features. lpips-*: LPIPS, whose weights are downloaded once; vgg16-conv1to3: an
    uncalibrated distance on weights of your own; without-weights: 1/2 (1 - MS-SSIM) + L1 of Haar wavelets, for machines
    without a network"""
    perceptual_weight: float = 1.0
    """weight of the perceptual distance (LDM: 1)"""
    perceptual_path: str | None = None
    """file or folder with the network's weights; None: cache, or download"""
    beta: float = 1e-6
    """weight of the KL term in mean/mean units; LDM's kl_weight w (sum/sum) is w * latents / pixels: 1e-6 is 8.3e-8 at
    f4c4 and 2.08e-8 at f8c4"""

    def __post_init__(self) -> None:
        check_not_negative(self, "beta", "perceptual_weight")


@dataclass(frozen=True, kw_only=True)
class RegularizerConfig:
    """Regularizers that make latents easier for a diffusion model. Weights and probabilities; 0 switches one off."""

    equivariance: float = 0.0
    """share of steps in which latents and images are resized and turned alike, and only these are reconstructed
    (EQ-VAE: 0.5)"""
    equivariance_prior: float = 0.25
    """share of the other steps in which images are shrunk before encoding, so that the model still knows small
    pictures"""
    lowpass: float = 0.0
    """share of steps in which latents and images alike lose their high frequencies (decoding spectrum matching:
    0.75)"""
    scale_equivariance: float = 0.0
    """weight of the distance of decoded small latents and small images, 1/2 or 1/4 (0.25)"""
    spectrum: float = 0.0
    """weight of the divergence of the latents' spectrum from the images' (0.01, without a KL term); after encoding
    spectrum matching, and another loss than its authors' code"""
    variance_expansion: float = 0.0
    """weight of 1 / variance of the posterior, which widens it (0.1, without a KL term, with `envelope`)"""
    envelope: float = 0.0
    """weight of e^(|latent| - 1), which holds latents together (1e-6)"""
    variance_floor: float = 0.0
    """weight of max(0, 1 - std) of every channel (VICReg), which keeps a plain autoencoder's channels alive"""
    alignment: float = 0.0
    """weight of the agreement with a frozen network's features (VA-VAE: 0.5, then 0.1 with margins)"""
    alignment_network: str | None = None
    """the frozen network: a name of features/nets.py, a folder or hub id of a transformers model (hf:OWNER/NAME), or
    MODULE:FUNCTION, which is called without arguments and returns it; in Python `train` takes one as well"""
    alignment_path: str | None = None
    """file or folder with the weights of a named network; None: cache, or download"""
    alignment_margins: tuple[float, float] = (0.0, 0.0)
    """margins within which disagreement costs nothing: of cosines with the features, and of cosines between places
    (VA-VAE's last stage: 0.5 0.25)"""
    alignment_adaptive: bool = True
    """scale the weight by the strength of the reconstruction's gradient, at the latents; VA-VAE measures it at the
    encoder's last layer, which gives 1.7 to 2.4 times as much or as little. Needs a second backward pass of the
    decoder"""

    def __post_init__(self) -> None:
        check_not_negative(
            self,
            "scale_equivariance",
            "spectrum",
            "variance_expansion",
            "envelope",
            "variance_floor",
            "alignment",
            "equivariance",
            "equivariance_prior",
            "lowpass",
        )
        for name in ("equivariance", "equivariance_prior", "lowpass"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} (={getattr(self, name)}) is a share of steps and must be at most 1")
        if self.equivariance + self.lowpass > 1:
            raise ConfigError(
                f"equivariance (={self.equivariance}) and lowpass (={self.lowpass}) are shares of steps, at most 1 "
                "together"
            )
        if len(self.alignment_margins) != 2 or not all(margin >= 0 for margin in self.alignment_margins):
            raise ConfigError(f"alignment_margins (={self.alignment_margins}) must be two numbers of at least 0")


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """The discriminator: its kind, its weight, and its start. The supervisor's thresholds are in config/balance.py."""

    discriminator: Literal["none", "patch", "modern", "residual", "unet", "projected"] = "none"
    """kind of discriminator. patch: latent diffusion's PatchGAN with BatchNorm; modern: anti-aliased, GroupNorm;
    residual: R3GAN's, unnormalized; unet: judges every pixel; projected: heads on a frozen network's features"""
    loss: Literal["hinge", "vanilla", "least-squares", "relativistic"] = "hinge"
    """adversarial loss; relativistic pairs an image with its own reconstruction (R3GAN)"""
    weight: float = 0.5
    """weight of the adversarial term; the adaptive weight and the supervisor's are multiplied with it"""
    adaptive: bool = True
    """adaptive weight: make the adversarial gradient as strong as the reconstruction's at the decoder's last layer
    (VQGAN)"""
    stage: Literal["both", "decoder"] = "both"
    """halves that the adversarial term trains. decoder: freeze the encoder as soon as the term counts, so that it
    cannot spoil the latents"""
    channels: int = 64
    """width of the discriminator's first level (projected: of its heads)"""
    num_layers: int = 3
    """halvings of the resolution"""
    network: str | None = None
    """frozen network of discriminator projected, named as in regularizers.alignment-network"""
    network_path: str | None = None
    """file or folder with that network's weights, if it is one of features/nets.py; None: cache, or download"""
    r1: float = 0.0
    """gamma of the gradient penalty at images (R3GAN at 64 px: 1)"""
    r2: float = 0.0
    """gamma of the gradient penalty at reconstructions"""
    penalty_final: float = 1.0
    """r1 and r2 at the end of the run, as a share of those at its beginning (R3GAN: 0.1)"""
    lecam: float = 0.0
    """weight of LeCam's regularization (1e-3); not with the relativistic loss"""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            kind="adam", lr=1e-4, betas=(0.5, 0.9), warmup_images=0, final_lr=1.0, clip_norm=0.0
        )
    )
    """optimizer of the discriminator"""
    start_images: int | None = None
    """images seen when the discriminator starts; None: when the reconstruction loss has stopped falling, between
    `earliest` and `latest`"""
    earliest: float = 0.2
    """share of the run before which the discriminator does not start"""
    latest: float = 0.6
    """share of the run at which the discriminator starts even if the reconstruction loss still falls"""
    warmup: float = 0.025
    """share of the run in which the discriminator learns and the autoencoder gets no adversarial gradient yet"""
    ramp: float = 0.05
    """share of the run, after the warm-up, over which the adversarial term rises to its full weight"""

    @property
    def on(self) -> bool:
        """Whether there is a discriminator."""
        return self.discriminator != "none"

    def balance(self, images: int) -> BalanceConfig:
        """The supervisor's settings for a run of so many images."""
        return BalanceConfig.for_run(
            images,
            start_images=self.start_images,
            earliest=self.earliest,
            latest=self.latest,
            warmup=self.warmup,
            ramp=self.ramp,
        )

    def __post_init__(self) -> None:
        check_not_negative(self, "weight", "r1", "r2", "penalty_final", "lecam", "earliest", "latest", "warmup", "ramp")
        for name in ("earliest", "latest", "warmup", "ramp"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} (={getattr(self, name)}) is a share of the run and must be at most 1")
        if self.earliest > self.latest:
            raise ConfigError(
                f"adversarial.earliest (={self.earliest}) must not be after adversarial.latest (={self.latest})"
            )
        if self.start_images is not None and self.start_images < 0:
            raise ConfigError(f"start_images (={self.start_images}) must not be negative")
        for name, most in (("channels", MOST_WIDTH), ("num_layers", MOST_HALVINGS)):
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} (={getattr(self, name)}) must be at least 1 and at most {most}")
        if self.lecam > 0 and self.loss == "relativistic":
            raise ConfigError(
                "lecam has no meaning with the relativistic loss, which sees differences of logits only; set it to 0"
            )
        if self.discriminator == "projected" and self.network is None:
            raise ConfigError(
                "discriminator 'projected' needs adversarial.network: the frozen network whose features it judges"
            )
