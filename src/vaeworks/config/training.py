"""A training run: data, losses, optimizers, and the run itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ..errors import ConfigError
from .balance import BalanceConfig
from .model import AutoencoderConfig
from .named import MODELS

MOST_SIDE, MOST_WORKERS, MOST_BATCH, MOST_HALVINGS, MOST_WIDTH = 2**16, 1024, 2**20, 30, 2**16
"""Limits that no machine reaches. Numbers from files are checked against them before memory is allocated."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images are used, and which crops are cut out of them."""

    size: int = 64
    """side of the square training crops, in pixels"""
    min_scale: float = 0.5
    """smallest share of the shorter image side that a random crop covers, before it is resized to `size`"""
    flip: bool = True
    """mirror half of the crops"""
    val_fraction: float = 0.1
    """share of files held out, chosen by content hash"""
    val: str | None = None
    """another source for validation; no image of the training source is held out then"""
    val_images: int = 16
    """held-out images in each validation during training"""
    workers: int = 2
    """processes that prepare crops; 0: none"""
    cache_mib: int = 512
    """decoded images kept in memory by each process, in MiB"""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MOST_SIDE:
            raise ConfigError(f"size (={self.size}) must be at least 1 and at most {MOST_SIDE}")
        if not 0 < self.min_scale <= 1:
            raise ConfigError(f"min_scale (={self.min_scale}) must be in (0, 1]")
        if self.val_images < 1 or self.workers < 0 or self.cache_mib < 0:
            raise ConfigError(f"val_images (={self.val_images}) must be at least 1, workers and cache_mib not negative")
        if self.workers > MOST_WORKERS:
            raise ConfigError(f"workers (={self.workers}) must be at most {MOST_WORKERS}: each is a process")
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction (={self.val_fraction}) must be in [0, 1)")


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
    """weight of the KL term in mean/mean units; LDM's kl_weight w (sum/sum) is w * latents / pixels: 1e-6 is 2.08e-8 at
    f8c4"""

    def __post_init__(self) -> None:
        _not_negative(self, "beta", "perceptual_weight")


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
    """weight of the divergence of the latents' spectrum from the images' (encoding spectrum matching: 0.01, without a
    KL term)"""
    variance_expansion: float = 0.0
    """weight of 1 / variance of the posterior, which widens it (0.1, without a KL term, with `envelope`)"""
    envelope: float = 0.0
    """weight of e^(|latent| - 1), which holds latents together (1e-6)"""
    variance_floor: float = 0.0
    """weight of max(0, 1 - std)^2 of every channel, which keeps a plain autoencoder's channels alive"""
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
    """scale the weight by the strength of the reconstruction's gradient (VA-VAE); needs a second backward pass of the
    decoder"""

    def __post_init__(self) -> None:
        _not_negative(
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
class OptimizerConfig:
    """Adam or AdamW with warm-up and cosine decay, all counted in images."""

    kind: Literal["adam", "adamw"] = "adamw"
    """optimizer; adamw applies weight decay to weights of two and more dimensions only"""
    lr: float = 1e-4
    """peak learning rate"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decay of the two moments"""
    weight_decay: float = 0.0
    """decoupled weight decay, adamw only"""
    warmup_images: int = 1000
    """images over which the learning rate rises from 0"""
    final_lr: float = 0.1
    """learning rate at the end, as a share of `lr`; 1 with no warm-up: constant"""
    clip_norm: float = 1.0
    """largest gradient norm; 0: no clipping"""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"lr (={self.lr}) must be positive")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas (={self.betas}) must be two numbers in [0, 1)")
        for name in ("weight_decay", "warmup_images", "final_lr", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} (={getattr(self, name)}) must not be negative")


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
        _not_negative(self, "weight", "r1", "r2", "penalty_final", "lecam", "earliest", "latest", "warmup", "ramp")
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


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """The VAE that a run starts from, and which half of it is trained."""

    path: str | None = None
    """VAE to start from, anything that `load` takes; None: random weights"""
    part: Literal["all", "decoder", "encoder"] = "all"
    """half to train. decoder: the latents stay the same to the last bit; encoder: a new one for the same decoder"""
    expects: str | None = None
    """published VAE (config/named.py) whose architecture `path` must have; its scale is used where the file has none"""
    required: bool = False
    """refuse to start without `path`"""
    teacher: str | None = None
    """VAE whose latents the encoder learns to predict, anything that `load` takes"""
    teacher_weight: float = 1.0
    """weight of the squared distance from the teacher's latents, in units of their standard deviation"""

    def __post_init__(self) -> None:
        _not_negative(self, "teacher_weight")
        if self.expects is not None and self.expects not in MODELS:
            raise ConfigError(f"expects (={self.expects!r}) must be one of {', '.join(MODELS)}")
        if self.teacher is not None and self.part == "decoder":
            raise ConfigError("a teacher is for an encoder that is trained; with part 'decoder' it is frozen")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. Progress is counted in images seen, never in steps.

    >>> config = dataclasses.replace(vw.recipe("small-f8c16"), images=50_000, batch=8)
    >>> config.model.name
    'f8c16'
    """

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    regularizers: RegularizerConfig = field(default_factory=RegularizerConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    images: int = 100_000
    """length of the run"""
    batch: int = 16
    """images per optimizer step"""
    micro_batch: int | None = None
    """images per forward and backward pass; the step's gradient is their sum. None: the whole batch"""
    max_minutes: float | None = None
    """minutes of training after which the run ends, with the learning-rate schedule completed"""
    init: Literal["default", "linear"] = "default"
    """initial weights. default: PyTorch's, as in LDM; linear: a linear multi-scale transform (models/init.py), which
    converges faster"""
    ema_halflife: int = 1000
    """half-life of the weight average that is saved as the model, in images; 0: none"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """precision of the networks. auto: bf16 autocast on GPUs and CPUs that compute with it, else fp32; weights and
    optimizer are always fp32"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, about a third more time"""
    channels_last: bool = True
    """NHWC memory layout"""
    compile: bool = False
    """use torch.compile for the autoencoder's forward and backward pass; takes some minutes before the first step"""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """how several processes (torchrun) share the model. ddp: each has all of it; fsdp: each has a shard of weights,
    averages and moments"""
    val_every: int = 5_000
    """images between validations, each with a reconstruction grid"""
    save_every: int = 10_000
    """images between checkpoints"""
    log_every: int = 200
    """images between lines of the log"""
    keep_checkpoints: int = 2
    """newest checkpoints kept, besides the best"""
    stats_images: int = 1_000
    """training crops over which the latents' mean, std, scaling_factor and shift_factor are measured at the end"""
    trackers: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ("tensorboard",)
    """services that show the figures besides the run's own page; log.jsonl has them all"""
    license: str | None = None
    """licence of the trained weights for the model card, in Hugging Face's abbreviation"""
    seed: int = 0
    """seed of order, augmentation, noise and weights"""
    device: str = "auto"
    """device to train on. auto: cuda if there is a GPU, else cpu"""

    def __post_init__(self) -> None:
        for name in ("images", "batch", "val_every", "save_every", "log_every", "keep_checkpoints", "stats_images"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} (={getattr(self, name)}) must be at least 1")
        if self.batch > MOST_BATCH:
            raise ConfigError(f"batch (={self.batch}) must be at most {MOST_BATCH}")
        for name in ("seed", "ema_halflife"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} (={getattr(self, name)}) must not be negative")
        if self.model.in_channels != self.model.out_channels or self.model.in_channels not in (1, 2, 3):
            raise ConfigError(
                f"in_channels (={self.model.in_channels}) and out_channels (={self.model.out_channels}) must be equal, "
                "1, 3 or (on stereo:SRC) 2, to train on images"
            )
        if self.micro_batch is not None and (self.micro_batch < 1 or self.batch % self.micro_batch):
            raise ConfigError(f"batch (={self.batch}) must be a multiple of micro_batch (={self.micro_batch})")
        if self.data.size % self.model.downsample_factor:
            raise ConfigError(
                f"data.size (={self.data.size}) must be divisible by the model's downsample_factor "
                f"(={self.model.downsample_factor})"
            )
        if self.seed >= 2**64:
            raise ConfigError(f"seed (={self.seed}) must be less than 2**64")
        if self.images < self.batch:
            raise ConfigError(f"images (={self.images}) must be at least one batch (={self.batch})")
        if self.max_minutes is not None and not (math.isfinite(self.max_minutes) and self.max_minutes > 0):
            raise ConfigError(f"max_minutes (={self.max_minutes}) must be positive")
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Errors: ConfigError for settings that are valid alone and contradict each other."""
        regularizers, point = self.regularizers, self.model.bottleneck.kind == "point"
        if regularizers.variance_expansion > 0 and point:
            raise ConfigError(
                "regularizers.variance-expansion widens a posterior's variance; a bottleneck of kind 'point' has none"
            )
        parts = self.micro_batch is not None and self.micro_batch < self.batch
        if parts and regularizers.variance_floor > 0:
            raise ConfigError("regularizers.variance-floor looks at the whole batch at once; leave micro-batch away")
        if parts and regularizers.alignment > 0 and regularizers.alignment_adaptive:
            raise ConfigError(
                "the adaptive weight of alignment needs the whole batch at once; remove micro-batch, or set "
                "regularizers.alignment-adaptive to False"
            )
        if self.compile and regularizers.equivariance > 0:
            raise ConfigError(
                "equivariance changes sizes from step to step, and compile would start again for each; switch one of "
                "them off"
            )
        start = self.adversarial.start_images
        if self.adversarial.on and start is not None and start >= self.images:
            raise ConfigError(
                f"adversarial.start-images (={start}) must come before the end of the run (images {self.images})"
            )
        if self.compile and regularizers.alignment > 0 and regularizers.alignment_adaptive:
            raise ConfigError(
                "torch.compile allows only one backward pass; set regularizers.alignment-adaptive to False"
            )
        if self.finetune.part == "decoder":
            for name in ("spectrum", "variance_expansion", "envelope", "variance_floor", "alignment"):
                if getattr(regularizers, name) > 0:
                    raise ConfigError(
                        f"regularizers.{name} shapes latents, which finetune.part 'decoder' leaves as they are; set it "
                        "to 0"
                    )
        patch = self.model.downsample_factor * self.model.latents_patch
        if self.data.size % patch:
            raise ConfigError(
                f"data.size (={self.data.size}) must be divisible by {patch}: downsample_factor times latents_patch"
            )
        if self.finetune.part == "encoder" and self.adversarial.on:
            raise ConfigError("an adversarial term trains the decoder, which is frozen with finetune.part 'encoder'")
        if self.parallel == "fsdp" and self.compile:
            raise ConfigError("compile with fsdp is not supported; choose one")


def _not_negative(config: object, *names: str) -> None:
    """Errors: ConfigError for a field that is negative or no number."""
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} (={value}) must be finite and not negative")
