"""Images per second of a denoiser's training step: ours against the loop body of diffusers' training examples.

    python benchmarks/paint_step.py [--rounds 5] [--steps 4] [--threads 2] [--networks sd3 unet] [--beside idle busy]
    [--out results/paint_step.json]

sd3: the networks of `paint-tiny`, transformer and text encoders trained, flow loss. The peer's step is that of
`train_dreambooth_sd3.py --train_text_encoder`, with embeddings from the pipeline's own `encode_prompt`. unet: a U-Net
of SD 1's kind with 64 and 128 channels and a frozen text encoder, squared error of the noise at DDPM's steps; for us,
it is a pipeline that `--from` names, with `--move.train all`. The peer's step is that of `train_text_to_image.py`. Both
are written down here without accelerate. Pictures have paint-tiny's size, a batch has 32 of them, and all sides train
the same networks from the same weights.

The peer encodes pixels at each step, as the examples do ("diffusers"). Its best settings are shown as well: posteriors
encoded before the clock starts, fused AdamW, and bf16 autocast ("cached", "cached, bf16"). An SD3 without T5 has 256
text tokens of zeros in T5's place; those of new pipelines have a T5 of a few hundred weights that gives zeros, and the
peer is spared it. The peer computes all 256 tokens, as its pipeline does by default. "cached, 1 zero token" passes
max_sequence_length=1 instead: this is another function, which has to be painted with the same option.

vaeworks: the step of `train-pipeline` (painting/loop.py). It reads latents from a file, draws noise by image number,
and averages the weights; the peer does none of these. The matrices of "vaeworks", sd3, have Muon, as in the recipe;
"vaeworks, AdamW" has the peer's optimizer. Before the clock starts, the denoiser's gradient is compared between all
sides, at the same weights, latents, noise, times and captions.

A figure is the mean time of --steps steps; rounds are interleaved, so that a change of the machine's speed meets all
alike; medians over rounds are printed, and ratios are medians of pairs. busy: one process that counts, on whatever core
it gets. The load average is the machine's at the start; on a machine where others work, "idle" is not idle.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
import transformers
from busy_cores import busy
from torch import Tensor, nn
from train_throughput import processor

import vaeworks as vw
from vaeworks.config import DenoiserConfig, MoveConfig, PaintConfig
from vaeworks.data import captioned_shapes
from vaeworks.formats.diffusers import vae_for_pipeline
from vaeworks.images import to_model_range
from vaeworks.painting.conditions import denoiser_of
from vaeworks.painting.loop import PaintRequest, PaintRun
from vaeworks.pipelines.blank import trained_tokenizer
from vaeworks.pipelines.stable_diffusion import open_pipeline, save_pipeline
from vaeworks.pipelines.tiny import SD_NOISE

COUNT, SIDE = 256, vw.paint_recipe("paint-tiny").size
CLIP = 1.0


def configured(network: str) -> PaintConfig:
    """How it is trained. There are no min-SNR weights, which the examples leave out by default."""
    config = dataclasses.replace(vw.paint_recipe("paint-tiny"), trackers=(), caption_dropout=0.0, max_minutes=None)
    if network == "sd3":
        return config
    return dataclasses.replace(
        config,
        denoiser=DenoiserConfig(kind="sd1"),
        move=MoveConfig(train="all", images=COUNT),
        matrices="adamw",
        objective="epsilon",
        min_snr=0.0,
    )


def small_sd1(vae: vw.Autoencoder, folder: Path) -> str:
    """A pipeline of SD 1's kind with random weights, saved."""
    captions = [place.caption for place in captioned_shapes(count=COUNT, size=SIDE)]
    tokenizer = trained_tokenizer(captions, DenoiserConfig())
    text = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE // vae.downsample_factor,
        in_channels=vae.latent_channels,
        out_channels=vae.latent_channels,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=64,
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae_for_pipeline("StableDiffusionPipeline", vae),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(**SD_NOISE, clip_sample=False, set_alpha_to_one=False),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    save_pipeline(pipe, folder)
    return str(folder)


class Ours:
    """A run of `train-pipeline`."""

    def __init__(self, config: PaintConfig, vae: vw.Autoencoder, folder: Path, start: str | None):
        request = PaintRequest(
            config=config,
            vae=vae,
            data=f"shapes:{COUNT}:{SIDE}",
            out=folder,
            device=torch.device("cpu"),
            start=start,
            wording=(None, None),
            recipe="custom",
            resume=False,
            show=False,
        )
        self.run = PaintRun(request)

    def step(self) -> None:
        """One step, with that of the average."""
        self.run.step()

    def gradient(self, given: Given) -> Tensor:
        """The denoiser's."""
        module = self.run.state.module
        with autocast(self.run.config.precision):
            loss = module(given.latents, given.noise, given.times, given.captions).mean()
        return gradient_of(loss, module.denoiser)


@dataclasses.dataclass
class Given:
    """What a step computes its loss from. latents, noise: n c h w, as the denoiser sees them."""

    latents: Tensor
    noise: Tensor
    times: Tensor
    """n: in (0,1) for the flow, else DDPM's steps"""
    captions: list[str]


@dataclasses.dataclass
class Peer:
    """The loop body of diffusers' examples for one pipeline. tokens: max_sequence_length, None: its default."""

    pipe: Any
    cached: bool = False
    fused: bool = False
    precision: str = "fp32"
    tokens: int | None = None

    def __post_init__(self) -> None:
        if getattr(self.pipe, "text_encoder_3", None) is not None:
            self.pipe.text_encoder_3 = None  # the pipeline then makes zeros
        drawn = captioned_shapes(count=COUNT, size=SIDE)
        self.captions = [place.caption for place in drawn]
        self.pixels = torch.stack([to_model_range(place.image()) for place in drawn])
        self.denoiser = denoiser_of(self.pipe).train().requires_grad_(True)
        self.flow = hasattr(self.pipe, "transformer")
        texts = [self.pipe.text_encoder, self.pipe.text_encoder_2] if self.flow else [self.pipe.text_encoder]
        for part in texts:
            part.train(self.flow).requires_grad_(self.flow)
        self.pipe.vae.requires_grad_(False).eval()
        trained = [p for part in (self.denoiser, *texts) for p in part.parameters() if p.requires_grad]
        self.trained, self.taken = trained, 0
        self.optimizer = torch.optim.AdamW(
            trained, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=self.fused or None
        )
        config = self.pipe.vae.config
        self.shift, self.scale = getattr(config, "shift_factor", None) or 0.0, config.scaling_factor
        if self.cached:
            with torch.no_grad():
                posteriors = [self.pipe.vae.encode(part).latent_dist for part in self.pixels.split(64)]
            self.mean = torch.cat([posterior.mean for posterior in posteriors])
            self.std = torch.cat([posterior.std for posterior in posteriors])

    def step(self) -> None:
        """One step."""
        rows = [(self.taken + i) % COUNT for i in range(32)]
        self.taken += len(rows)
        if self.cached:
            latents = self.mean[rows] + self.std[rows] * torch.randn_like(self.mean[rows])
        else:
            with torch.no_grad(), autocast(self.precision):
                latents = self.pipe.vae.encode(self.pixels[rows]).latent_dist.sample().float()
        latents = (latents - self.shift) * self.scale
        noise = torch.randn_like(latents)
        times = torch.randn(len(rows)).sigmoid() if self.flow else torch.randint(0, 1000, (len(rows),))
        with autocast(self.precision):
            loss = self.loss(Given(latents, noise, times, [self.captions[row] for row in rows]))
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss.detach().item()  # for the progress bar

    def loss(self, given: Given) -> Tensor:
        """Of a batch."""
        n = len(given.captions)
        if self.flow:
            options = {} if self.tokens is None else {"max_sequence_length": self.tokens}
            words, _, pooled, _ = self.pipe.encode_prompt(
                given.captions, None, None, device="cpu", do_classifier_free_guidance=False, **options
            )
            sigmas = given.times.view(n, 1, 1, 1)
            noisy = (1.0 - sigmas) * given.latents + sigmas * given.noise
            predicted = self.denoiser(
                hidden_states=noisy,
                timestep=1000 * given.times,
                encoder_hidden_states=words,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
            return (predicted.float() - (given.noise - given.latents)).square().reshape(n, -1).mean(1).mean()
        tokenizer = self.pipe.tokenizer
        ids = tokenizer(
            given.captions,
            max_length=tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids
        words = self.pipe.text_encoder(ids, return_dict=False)[0]
        steps = given.times.long()
        noisy = self.pipe.scheduler.add_noise(given.latents, given.noise, steps)
        predicted = self.denoiser(noisy, steps, words, return_dict=False)[0]
        return F.mse_loss(predicted.float(), given.noise.float(), reduction="mean")

    def gradient(self, given: Given) -> Tensor:
        """The denoiser's."""
        with autocast(self.precision):
            loss = self.loss(given)
        return gradient_of(loss, self.denoiser)


def autocast(precision: str) -> AbstractContextManager[Any]:
    """bf16 where it is wanted."""
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()


def gradient_of(loss: Tensor, denoiser: nn.Module) -> Tensor:
    """As one vector, in the order of names; parameters without effect count as 0."""
    named = {name: p for name, p in denoiser.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    parts = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}
    return torch.cat([parts[name].flatten() for name in sorted(parts)])


def sides(network: str, vae: vw.Autoencoder, folder: Path) -> dict[str, Ours | Peer]:
    """All sides by name. They have the same weights at the start."""
    config = configured(network)
    start = None if network == "sd3" else small_sd1(vae, folder / "sd1")
    first = Ours(config, vae, folder / "vaeworks", start)
    built: dict[str, Ours | Peer] = {"vaeworks": first}
    if network == "sd3":
        built["vaeworks, AdamW"] = Ours(dataclasses.replace(config, matrices="adamw"), vae, folder / "adamw", start)
    built["vaeworks, bf16"] = Ours(dataclasses.replace(config, precision="bf16"), vae, folder / "bf16", start)
    unused = {name for name, p in first.run.state.module.denoiser.named_parameters() if not p.requires_grad}
    best: dict[str, Any] = {"cached": True, "fused": True}
    variants: dict[str, dict[str, Any]] = {
        "diffusers": {},
        "diffusers, cached": best,
        "diffusers, cached, bf16": {**best, "precision": "bf16"},
    }
    if network == "sd3":
        variants["diffusers, cached, 1 zero token"] = {**best, "tokens": 1}
    for name, how in variants.items():
        peer = built[name] = Peer(open_pipeline(str(first.run.request.run / "start")), **how)
        for key, p in peer.denoiser.named_parameters():
            p.requires_grad_(key not in unused)
    return built


def differences(built: dict[str, Ours | Peer]) -> dict[str, float]:
    """Of each side's gradient from that of "diffusers, cached", relative to its norm. Weights are moved away from the
    zeros of the start, and back."""
    generator = torch.Generator().manual_seed(0)
    first = built["vaeworks"]
    assert isinstance(first, Ours)
    reference = first.run.state.module
    moved = [torch.randn(p.shape, generator=generator) * 0.02 for p in reference.denoiser.parameters()]
    latents = torch.randn(32, *first.run.latents.shape, generator=generator)
    times = torch.rand(32, generator=generator)
    captions = [place.caption for place in captioned_shapes(count=32, size=SIDE)]
    given = Given(latents, torch.randn(latents.shape, generator=generator), times, captions)
    if not hasattr(first.run.state.pipe, "transformer"):
        given.times = (1000 * times).floor()
    found = {}
    for name, side in built.items():
        denoiser = side.run.state.module.denoiser if isinstance(side, Ours) else side.denoiser
        with torch.no_grad():
            for p, change in zip(denoiser.parameters(), moved, strict=True):
                p.add_(change)
        found[name] = side.gradient(given)
        with torch.no_grad():
            for p, change in zip(denoiser.parameters(), moved, strict=True):
                p.sub_(change)
    known = found["diffusers, cached"]
    return {name: float((gradient - known).norm() / known.norm()) for name, gradient in found.items()}


def measured(built: dict[str, Ours | Peer], beside: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a step for each side and round."""
    seconds: dict[str, list[float]] = {name: [] for name in built}
    with busy(beside == "busy"):
        for _ in range(options.rounds):
            for name, side in built.items():
                seconds[name].append(timed(side.step, options.steps))
    return seconds


def timed(call: Callable[[], object], times: int) -> float:
    """Mean seconds of a call."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def table(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Prints a row for each side; the same as numbers."""
    print(f"{'':32}{'img/s':>8}{'min':>8}{'max':>8}  vaeworks' speed over it, pair by pair")
    rows = []
    for name, times in seconds.items():
        rates = sorted(32 / t for t in times)
        ratio = statistics.median(t / ours for t, ours in zip(times, seconds["vaeworks"], strict=True))
        rows.append({"side": name, "images_per_second": statistics.median(rates), "ratio": ratio, "seconds": times})
        print(f"{name:32}{rows[-1]['images_per_second']:8.3g}{rates[0]:8.3g}{rates[-1]:8.3g}  {ratio:.2f}x", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps of a side in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--networks", nargs="+", choices=("sd3", "unet"), default=["sd3", "unet"])
    parser.add_argument("--beside", nargs="+", choices=("idle", "busy"), default=["idle", "busy"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts: dict[str, Any] = {"threads": options.threads, "cpus": os.cpu_count(), "rounds": options.rounds}
    facts |= {"steps": options.steps, "batch": 32, "pixels": SIDE, "processor": processor()}
    facts |= {"python": platform.python_version(), **{p: version(p) for p in ("torch", "diffusers", "vaeworks")}}
    facts["load"] = os.getloadavg()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    arms = []
    torch.manual_seed(0)
    vae = vw.build("small-f8c16")
    for network in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            built = sides(network, vae, Path(folder))
            apart = differences(built)
            print(f"\n{network}, gradient's difference from that of diffusers, cached:")
            print(", ".join(f"{name} {value:.0e}" for name, value in apart.items()))
            for side in built.values():
                side.step()  # warm-up
            for beside in options.beside:
                print(f"\n{network}, {beside}")
                seconds = measured(built, beside, options)
                arms.append({"network": network, "beside": beside, "differences": apart, "rows": table(seconds)})
    if options.out:
        options.out.write_text(json.dumps({**facts, "arms": arms}, indent=1) + "\n")
    print(json.dumps({**facts, "arms": arms}))


if __name__ == "__main__":
    main()
