"""Images per second and peak memory of one training step: ours against the same step in plain PyTorch with diffusers'
AutoencoderKL.

    python benchmarks/train_throughput.py [--model small|middle|sd1] [--rounds 15] [--threads 2] [--published]
    [--memory]

plain: L1 + KL. lpips: and LPIPS of VGG16 (random weights: the time is the same). gan: and latent diffusion's PatchGAN
(hinge, 64 channels, 3 layers, BatchNorm) with adaptive weight, and the discriminator's own step. All with gradient
clipping and fused Adam; LPIPS's network has bf16 weights where the step is in bf16. Same weights at the start, same
images, same noise, same threads.

The peer, in both memory layouts: as a good engineer writes it, with the reconstruction used again for the
discriminator's step ("diffusers"); and as latent diffusion published it, where the autoencoder runs once for each
optimizer ("published"). Before the clock starts, losses, adaptive weight and gradients of the first step are compared,
with what the peer's two layouts differ by beside it: a maximum or a ReLU that falls on the other side by rounding
changes a gradient by far more than rounding.

Rounds are interleaved, so that a change of the machine's speed meets all alike; medians are printed, ratios are medians
of pairs, and the last line of stdout is one JSON document. "kept": what the autoencoder's forward pass keeps for its
backward pass, without the weights. "peak", with --memory: the most memory of a process that takes two steps, less what
it had before them.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.config import MODELS, AdversarialConfig, AutoencoderConfig, OptimizerConfig
from vaeworks.devices import autocast
from vaeworks.features.nets import vgg16
from vaeworks.images import to_model_range
from vaeworks.losses.perceptual import LPIPS
from vaeworks.models.discriminators import PatchDiscriminator
from vaeworks.random_streams import latent_noise
from vaeworks.training.gan.balance_state import StepPlan
from vaeworks.training.state import TrainState
from vaeworks.training.step import ALONE, training_step

MODEL_SIZES: dict[str, tuple[AutoencoderConfig, int, int]] = {
    "small": (MODELS["small-f8c16"], 8, 64),
    "middle": (AutoencoderConfig(channels=64, channel_mult=(1, 2, 4, 4)), 2, 128),
    "sd1": (MODELS["sd1"], 1, 256),
}
"""(network, batch, pixels)"""
BETA, DISC_WEIGHT, LR, BETAS, CLIP = 1e-6, 0.5, 1e-5, (0.5, 0.9), 1.0
TERMS = ("reconstruction", "perceptual", "kl", "adversarial", "adaptive_weight", "discriminator_loss")
LAST, FIRST = torch.channels_last, torch.contiguous_format


@dataclasses.dataclass
class Figures:
    """What both sides must agree on."""

    terms: dict[str, float]
    gradients: dict[str, Tensor]


@dataclasses.dataclass
class Setting:
    """What is to be computed."""

    model: str
    loss: str
    precision: str

    @property
    def network(self) -> AutoencoderConfig:
        """The architecture."""
        return MODEL_SIZES[self.model][0]

    def train_config(self) -> vw.TrainConfig:
        """Of the trainer."""
        loss = vw.LossConfig(
            reconstruction="l1", beta=BETA, perceptual="none" if self.loss == "plain" else "lpips-vgg16"
        )
        optimizer = OptimizerConfig(kind="adam", lr=LR, betas=BETAS, clip_norm=CLIP)
        theirs = dataclasses.replace(optimizer, clip_norm=0.0)
        kind = "patch" if self.loss == "gan" else "none"
        adversarial = AdversarialConfig(discriminator=kind, weight=DISC_WEIGHT, optimizer=theirs)
        return vw.TrainConfig(
            model=self.network,
            batch=MODEL_SIZES[self.model][1],
            loss=loss,
            optimizer=optimizer,
            adversarial=adversarial,
            ema_halflife=0,
            precision=self.precision,
        )

    def batch(self) -> Tensor:
        """Photographs' format, uint8 n 3 h w."""
        _, count, size = MODEL_SIZES[self.model]
        return torch.randint(
            0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )

    def networks(self) -> tuple[vw.Autoencoder, PatchDiscriminator, LPIPS]:
        """All at their start."""
        torch.manual_seed(0)
        model, disc, vgg = vw.build(self.network).train(), PatchDiscriminator().train(), vgg16()
        for layer in vgg.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(
                    layer.weight, nonlinearity="relu"
                )  # so that what reaches the last tap is no constant
        lpips = LPIPS(vgg, [torch.rand(c) / c for c in (64, 128, 256, 512, 512)])
        if self.precision == "bf16":
            lpips.network.bfloat16()
        return model, disc, lpips


def latent_shape(images: Tensor, network: AutoencoderConfig) -> tuple[int, int, int]:
    """c h/f w/f."""
    return (
        network.latent_channels,
        images.shape[2] // network.downsample_factor,
        images.shape[3] // network.downsample_factor,
    )


def optimizer(module: nn.Module) -> torch.optim.Optimizer:
    """Latent diffusion's, in one pass over memory."""
    return torch.optim.Adam(module.parameters(), lr=LR, betas=BETAS, fused=True)


class Ours:
    """The trainer's own step (vaeworks/training/step.py), with LPIPS and the discriminator in NHWC memory, too."""

    def __init__(self, setting: Setting):
        gan = setting.loss == "gan"
        model, disc, lpips = (n.to(memory_format=LAST) for n in setting.networks())
        self.model = model
        self.trained = TrainState.of(
            model,
            setting.train_config(),
            discriminator=disc if gan else None,
            perceptual=None if setting.loss == "plain" else lpips,
        )
        self.disc, self.batch = disc, setting.batch()
        self.plan = StepPlan("adversarial", train_discriminator=True, weight=1.0) if gan else ALONE

    def forward(self) -> object:
        """The autoencoder's forward pass."""
        images = to_model_range(self.batch).contiguous(memory_format=LAST)
        with autocast(images.device, self.trained.config.precision):
            return self.trained.model(
                images, latent_noise(0, list(range(len(images))), latent_shape(images, self.model.config))
            )

    def step(self, figures: Figures | None = None) -> None:
        """One of the autoencoder, one of the discriminator."""
        result = training_step(self.trained, self.batch, list(range(len(self.batch))), self.plan)
        if figures is not None:
            known = {
                "reconstruction": result.reconstruction,
                "perceptual": result.perceptual,
                "kl": result.kl,
                **result.others,
            }
            figures.terms |= {name: known[name] for name in TERMS if known.get(name)}
            figures.gradients["autoencoder"] = flat(vw.to_diffusers(gradients_of(self.model)).parameters())
            if self.trained.adversary is not None:
                figures.gradients["discriminator"] = flat(p.grad for p in self.disc.parameters())


class Peer:
    """The step of latent diffusion with diffusers' class. published: the autoencoder runs again for the discriminator's
    step."""

    def __init__(self, setting: Setting, layout: torch.memory_format, published: bool = False, compiled: bool = False):
        self.setting, self.layout, self.published = setting, layout, published
        model, disc, lpips = setting.networks()
        self.model = vw.to_diffusers(model).requires_grad_(True).train().to(memory_format=layout)
        self.disc = plain_copy(disc).to(memory_format=layout)
        self.lpips = PlainLPIPS(lpips).to(memory_format=layout)
        self.optimizer, self.disc_optimizer = optimizer(self.model), optimizer(self.disc)
        self.batch = setting.batch()
        if compiled:
            torch._functorch.config.donated_buffer = (
                False  # or its graphs cannot be gone through twice, as the adaptive weight asks for
            )
            for network in (self.model.encoder, self.model.decoder, self.disc, self.lpips):
                network.compile()

    def forward(self) -> tuple[Tensor, Any]:
        """The autoencoder's forward pass."""
        images = self.images()
        noise = latent_noise(0, list(range(len(images))), latent_shape(images, self.setting.network))
        with autocast(images.device, self.setting.precision):
            posterior = self.model.encode(images).latent_dist
            return self.model.decode(posterior.mean + posterior.std * noise).sample, posterior

    def images(self) -> Tensor:
        """In [-1,1] and in the memory layout."""
        return to_model_range(self.batch).contiguous(memory_format=self.layout)

    def step(self, figures: Figures | None = None) -> None:
        """One of the autoencoder, one of the discriminator."""
        gan, images = self.setting.loss == "gan", self.images()
        self.optimizer.zero_grad(set_to_none=True)
        self.disc.requires_grad_(False)
        recon, posterior = self.forward()
        loss = (recon.float() - images).abs().mean()
        terms = {"reconstruction": loss.item()}
        if self.setting.loss != "plain":
            distance = self.lpips(recon.float(), images)
            loss = loss + distance
            terms["perceptual"] = distance.item()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
        total = loss + BETA * kl
        if gan:
            with autocast(images.device, self.setting.precision):
                adversarial = -self.disc(recon).float().mean()
            last = self.model.decoder.conv_out.weight
            norms = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (loss, adversarial)]
            weight = (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()
            total = total + DISC_WEIGHT * weight * adversarial
            terms |= {"adversarial": adversarial.item(), "adaptive_weight": weight.item()}
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        if figures is not None:
            figures.gradients["autoencoder"] = flat(p.grad for p in self.model.parameters())
        self.optimizer.step()
        terms["kl"] = kl.item()
        if gan:
            self.disc.requires_grad_(True)
            self.disc_optimizer.zero_grad(set_to_none=True)
            if self.published:
                self.model.requires_grad_(False)  # as its trainer does
                recon, _ = self.forward()
                self.model.requires_grad_(True)
            with autocast(images.device, self.setting.precision):
                real, fake = self.disc(images).float(), self.disc(recon.detach()).float()
            disc_loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
            disc_loss.backward()
            if figures is not None:
                figures.gradients["discriminator"] = flat(p.grad for p in self.disc.parameters())
            self.disc_optimizer.step()
            terms["discriminator_loss"] = disc_loss.item()
        if figures is not None:
            figures.terms = terms


class PlainLPIPS(nn.Module):
    """LPIPS as published, with the weights of ours."""

    def __init__(self, ours: LPIPS):
        super().__init__()
        self.features = plain_copy(ours.network.features)
        self.taps = ours.network.taps
        self.register_buffer("shift", ours.network.shift)
        self.register_buffer("scale", ours.network.scale)
        self.heads = nn.ParameterList(
            nn.Parameter(ours.get_buffer(f"head{i}").view(1, -1, 1, 1)) for i in range(len(self.taps))
        )
        self.requires_grad_(False).eval()

    def seen(self, images: Tensor) -> list[Tensor]:
        """The taps' features, of unit length."""
        x, found = ((images - self.shift) / self.scale).to(self.features[0].weight.dtype), []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                wide = x.float()
                found.append(wide / torch.sqrt(1e-10 + wide.square().sum(1, keepdim=True)))
        return found

    def forward(self, recon: Tensor, images: Tensor) -> Tensor:
        """A scalar."""
        pairs = zip(self.seen(recon), self.seen(images), self.heads, strict=True)
        return sum(F.conv2d((a - b).square(), head).mean((1, 2, 3)) for a, b, head in pairs).mean()


def plain_copy(module: nn.Module) -> nn.Module:
    """The layers of a sequence as PyTorch's own classes, with the same weights."""
    layers = []
    for layer in getattr(module, "layers", module):
        layer = copy.deepcopy(layer)
        if isinstance(layer, nn.Conv2d):
            layer.__class__ = nn.Conv2d
        layers.append(layer)
    return nn.Sequential(*layers)


def gradients_of(model: nn.Module) -> nn.Module:
    """The network with its gradients in the place of its weights."""
    twin = copy.deepcopy(model)
    for weight, own in zip(twin.parameters(), model.parameters(), strict=True):
        weight.data = own.grad.clone()
    return twin


def flat(tensors: object) -> Tensor:
    """All numbers in a row."""
    return torch.cat([t.detach().float().flatten() for t in tensors])


def sides(setting: Setting, published: bool, compiled: bool) -> dict[str, Callable[[], Ours | Peer]]:
    """By name, how to build each."""
    found: dict[str, Callable[[], Ours | Peer]] = {
        "vaeworks": lambda: Ours(setting),
        "diffusers NCHW": lambda: Peer(setting, FIRST),
        "diffusers NHWC": lambda: Peer(setting, LAST),
    }
    if published and setting.loss == "gan":
        found["published NCHW"] = lambda: Peer(setting, FIRST, published=True)
        found["published NHWC"] = lambda: Peer(setting, LAST, published=True)
    if compiled:
        found["compiled NCHW"] = lambda: Peer(setting, FIRST, compiled=True)
        found["compiled NHWC"] = lambda: Peer(setting, LAST, compiled=True)
    return found


def kept_bytes(side: Ours | Peer) -> int:
    """Bytes of distinct storages that autograd keeps of the autoencoder's forward pass, without the weights
    themselves."""
    weights = {p.untyped_storage().data_ptr() for p in side.model.parameters()}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = side.forward()
    del out
    return sum(kept.values())


def first_step(side: Ours | Peer, name: str) -> Figures:
    """Its figures."""
    figures, started = Figures({}, {}), time.perf_counter()
    side.step(figures)
    print(f"first step of {name}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return figures


def differences(mine: Figures, theirs: Figures) -> dict[str, float]:
    """Relative ones of figures, and of gradients as vectors."""
    found = {name: abs(value - theirs.terms[name]) / abs(theirs.terms[name]) for name, value in mine.terms.items()}
    for name, gradient in mine.gradients.items():
        found[f"{name} gradient"] = float((gradient - theirs.gradients[name]).norm() / theirs.gradients[name].norm())
    return found


def peak_mib(arguments: list[str], name: str) -> float:
    """What `--alone` prints, in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--alone", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def alone(side: Callable[[], Ours | Peer]) -> float:
    """The most memory while two steps are taken, less what there was before them: MiB. Linux alone."""
    built = side()
    before = status("VmRSS")
    built.step()
    built.step()
    return status("VmHWM") - before


def status(name: str) -> float:
    """A figure of this process's memory, in MiB. (getrusage would tell the parent's, where that was larger.)"""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODEL_SIZES, default="small")
    parser.add_argument("--loss", choices=("plain", "lpips", "gan"), nargs="+", default=["plain", "gan"])
    parser.add_argument("--precision", choices=("fp32", "bf16"), nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--published", action="store_true", help="and latent diffusion's own way, with two forward passes"
    )
    parser.add_argument("--compiled", action="store_true", help="and the peer under torch.compile")
    parser.add_argument(
        "--memory", action="store_true", help="and the peak memory of every side, each in a process of its own"
    )
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = [Setting(options.model, loss, precision) for loss in options.loss for precision in options.precision]
    if options.alone:
        print(alone(sides(settings[0], options.published, options.compiled)[options.alone]))
        return
    _, count, size = MODEL_SIZES[options.model]
    facts = {
        "model": options.model,
        "batch": count,
        "pixels": size,
        "rounds": options.rounds,
        "threads": options.threads,
    }
    facts |= {p: version(p) for p in ("torch", "diffusers")} | {"vaeworks": vw.__version__, "processor": processor()}
    print(", ".join(f"{k} {v}" for k, v in facts.items()), flush=True)
    print(json.dumps({**facts, "arms": [arm(setting, options) for setting in settings]}))


def arm(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """One loss in one precision: all sides, in turns. Its table is printed."""
    builders = sides(setting, options.published, options.compiled)
    built = {name: build() for name, build in builders.items()}
    print(f"\n{setting.loss}, {setting.precision}")
    first = {name: first_step(side, name) for name, side in built.items()}  # also the warm-up
    apart = {
        "vaeworks from diffusers": differences(first["vaeworks"], first["diffusers NHWC"]),
        "diffusers' layouts": differences(first["diffusers NCHW"], first["diffusers NHWC"]),
    }
    for pair, values in apart.items():
        print(f"first step, {pair}: " + ", ".join(f"{name} {value:.0e}" for name, value in values.items()))
    kept = {name: kept_bytes(side) for name, side in built.items() if "compiled" not in name}
    seconds: dict[str, list[float]] = {name: [] for name in built}
    for number in range(options.rounds):
        print(f"{setting.loss}, {setting.precision}, round {number + 1} of {options.rounds}", file=sys.stderr)
        for name, side in built.items():
            started = time.perf_counter()
            side.step()
            seconds[name].append(time.perf_counter() - started)
    del built, side
    chosen = {"model": setting.model, "loss": setting.loss, "precision": setting.precision, "threads": options.threads}
    same = [part for option, value in chosen.items() for part in (f"--{option}", str(value))]
    same += ["--published"] * options.published + ["--compiled"] * options.compiled
    peaks = {name: peak_mib(same, name) for name in seconds} if options.memory else {}
    return {
        "loss": setting.loss,
        "precision": setting.precision,
        "differences": apart,
        **table(setting, seconds, kept, peaks),
    }


def table(
    setting: Setting, seconds: dict[str, list[float]], kept: dict[str, int], peaks: dict[str, float]
) -> dict[str, Any]:
    """Prints a row for each side; the same as numbers."""
    count = MODEL_SIZES[setting.model][1]
    print(
        f"{'':18}{'img/s':>8}{'min':>8}{'max':>8}{'kept MiB':>10}{'peak MiB':>10}  vaeworks' speed over it, pair by "
        "pair"
    )
    rows = []
    for name, times in seconds.items():
        rates = sorted(count / t for t in times)
        ratio = statistics.median(t / ours for t, ours in zip(times, seconds["vaeworks"], strict=True))
        row = {"side": name, "images_per_second": statistics.median(rates), "ratio": ratio}
        row |= {"kept_mib": kept[name] / 2**20} if name in kept else {}
        row |= {"peak_mib": peaks[name]} if name in peaks else {}
        sizes = "".join(f"{row[k]:10.0f}" if k in row else f"{'':10}" for k in ("kept_mib", "peak_mib"))
        print(f"{name:18}{row['images_per_second']:8.3g}{rates[0]:8.3g}{rates[-1]:8.3g}{sizes}  {ratio:.2f}x")
        rows.append(row)
    best = {}
    for kind in ("diffusers", "published", "compiled"):
        names = [n for n in seconds if n.startswith(kind)]
        if names:
            fastest = min(names, key=lambda n: statistics.median(seconds[n]))
            best[kind] = next(row["ratio"] for row in rows if row["side"] == fastest)
    print("against the faster layout: " + ", ".join(f"{kind} {ratio:.2f}x" for kind, ratio in best.items()), flush=True)
    return {"ratios": best, "rows": rows}


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
