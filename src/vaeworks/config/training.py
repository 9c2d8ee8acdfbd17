"""A training run: its data, what it starts from, and the run itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ..errors import ConfigError
from .losses import AdversarialConfig, LossConfig, RegularizerConfig
from .model import AutoencoderConfig
from .named import MODELS
from .optimizer import OptimizerConfig
from .plain import MOST_BATCH, MOST_SIDE, MOST_WORKERS, check_not_negative


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
        check_not_negative(self, "teacher_weight")
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
