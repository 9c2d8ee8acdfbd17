"""Images per second of one training step: our network against diffusers' AutoencoderKL.

    python benchmarks/train_step.py [--model demo|sd1] [--rounds 9] [--threads 2]

The same step for both: forward through a posterior sample, L1 + beta KL, backward, gradient clipping, AdamW. Same weights at
the start, same images and noise, same threads. diffusers' side runs in both memory layouts, ours in the one that the trainer
uses; each in fp32 and in bf16 autocast. Rounds are interleaved, so that a change of the machine's speed meets all alike;
medians are printed, and the last line of stdout is one JSON document. "kept" is what the forward pass keeps for the backward
pass: bytes of distinct storages saved by autograd, without the weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.data import latent_noise
from vaeworks.images import to_model_range
from vaeworks.train.loop import initial_model
from vaeworks.train.step import autocast, build_optimizer, generator_step

SIZES = {"demo": (8, 64), "sd1": (1, 256)}
"""(batch, pixels)"""


def their_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor, config: vw.TrainConfig, precision: str) -> None:
    """The step of `vaeworks.train.step`, written for diffusers' class."""
    optimizer.zero_grad(set_to_none=True)
    images = to_model_range(batch)
    if config.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    factor = 2 ** (len(model.config.block_out_channels) - 1)
    shape = (model.config.latent_channels, images.shape[2] // factor, images.shape[3] // factor)
    noise = latent_noise(config.seed, list(range(len(batch))), shape)
    with autocast(images.device, precision):
        posterior = model.encode(images).latent_dist
        recon = model.decode(posterior.mean + posterior.std * noise).sample
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
    loss = (recon.float() - images).abs().mean() + config.loss.beta * kl
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
    loss.item()
    optimizer.step()


def kept_bytes(step: Callable[[], object], weights: set[int]) -> int:
    """Bytes that autograd keeps for the backward pass of one step, without the weights themselves."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        step()
    return sum(kept.values())


def arms(config: vw.TrainConfig, batch: Tensor) -> dict[str, tuple[Callable[[], object], nn.Module]]:
    """Every side, ready to take a step, from the same weights."""
    start = initial_model(config)
    sides: dict[str, tuple[Callable[[], object], nn.Module]] = {}
    for precision in ("fp32", "bf16"):
        ours = initial_model(config).to(memory_format=torch.channels_last if config.channels_last else torch.contiguous_format)
        optimizer = build_optimizer(ours, config.optimizer)
        counters = list(range(len(batch)))
        mine = dataclasses.replace(config, precision=precision)
        sides[f"vaeworks {precision}"] = (
            lambda m=ours, o=optimizer, n=counters, c=mine: generator_step(m, m, o, batch, n, c),
            ours,
        )
        for last in (False, True):
            theirs = vw.to_diffusers(start).requires_grad_(True).train()
            if last:
                theirs = theirs.to(memory_format=torch.channels_last)
            optimizer = build_optimizer(theirs, config.optimizer)
            layout = dataclasses.replace(config, channels_last=last)
            name = f"diffusers {precision} {'NHWC' if last else 'NCHW'}"
            sides[name] = (lambda m=theirs, o=optimizer, c=layout, p=precision: their_step(m, o, batch, c, p), theirs)
    return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="demo")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    count, size = SIZES[options.model]
    config = dataclasses.replace(vw.recipe(options.model), batch=count, loss=vw.LossConfig(reconstruction="l1", beta=1e-6))
    batch = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    sides = arms(config, batch)
    kept, seconds = {}, {name: [] for name in sides}
    for name, (step, model) in sides.items():  # also the warm-up
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept[name] = kept_bytes(step, weights)
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        for name, (step, _) in sides.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)

    facts = {"model": options.model, "batch": count, "pixels": size, "rounds": options.rounds, "threads": options.threads}
    facts |= {p: version(p) for p in ("torch", "diffusers")} | {"vaeworks": vw.__version__, "processor": processor()}
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    print(f"{'':24}{'img/s':>8}{'min':>8}{'max':>8}{'kept MiB':>11}{'  vs best diffusers of this precision, pair by pair':<20}")
    rows = []
    for name, times in seconds.items():
        rates = sorted(count / t for t in times)
        row = {"side": name, "images_per_second": statistics.median(rates), "kept_mib": kept[name] / 2**20}
        ratio = ""
        if name.startswith("vaeworks"):
            peers = [n for n in seconds if n.startswith(f"diffusers {name.split()[1]}")]
            best = min(peers, key=lambda n: statistics.median(seconds[n]))
            row["ratio_to_best_diffusers"] = statistics.median(b / a for a, b in zip(times, seconds[best], strict=True))
            ratio = f"  {row['ratio_to_best_diffusers']:.2f}x"
        print(f"{name:24}{row['images_per_second']:8.3g}{rates[0]:8.3g}{rates[-1]:8.3g}{row['kept_mib']:11.1f}{ratio}")
        rows.append(row)
    print(json.dumps({**facts, "rows": rows}))


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
