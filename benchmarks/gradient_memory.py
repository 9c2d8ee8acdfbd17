"""Peak memory and time of the decoder's forward and backward pass: autograd, checkpointing by block, and strips.

Every variant runs in a process of its own, one after the other, round by round; peak memory is that of the process
above what it held before (Linux: VmHWM), gradients of parameters included. The loss is the mean squared error against
noise, the gradient that of latents and, unless `--frozen` is given, of all the decoder's parameters; the error is that
of the latents' gradient against autograd's, relative to its norm. Weights are random.

    python benchmarks/gradient_memory.py --model sd1 --side 512 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from decode_memory import peak, reset_peak

VARIANTS = {
    "autograd": {},
    "checkpointing by block": {"checkpointing": True},
    "strips of 64 rows": {"rows": 64},
    "strips of 16 rows": {"rows": 16},
}


def run(options: argparse.Namespace) -> None:
    """One forward and backward pass in this process."""
    import torch

    import vaeworks as vw
    from vaeworks.runtime.gradients import decode_with_gradient

    torch.set_num_threads(options.threads)
    how = json.loads(options.one)
    torch.manual_seed(0)
    vae = vw.build(options.model).to(memory_format=torch.channels_last).train().requires_grad_(not options.frozen)
    vae.set_gradient_checkpointing("checkpointing" in how)
    f = vae.downsample_factor
    latents = torch.randn(1, vae.latent_channels, options.side // f, options.side // f).to(
        memory_format=torch.channels_last
    )
    target = torch.randn(1, 3, options.side, options.side)
    latents.requires_grad_()

    before = reset_peak()
    started = time.perf_counter()
    image = decode_with_gradient(vae, latents, how["rows"]) if "rows" in how else vae.decode(latents)
    forward, middle = time.perf_counter() - started, peak() - before
    (image - target).square().mean().backward()
    result = {
        "seconds": time.perf_counter() - started,
        "forward_seconds": forward,
        "bytes": peak() - before,
        "forward_bytes": middle,
    }
    assert latents.grad is not None
    if options.reference.exists():
        reference = torch.load(options.reference)
        result["error"] = ((latents.grad - reference).norm() / reference.norm()).item()
    else:
        torch.save(latents.grad, options.reference)
        result["error"] = 0.0
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd1")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--frozen", action="store_true", help="the gradient of latents alone")
    parser.add_argument("--only", nargs="*", help="names of variants; errors are against the first")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run(options)
        return
    facts = {"model": options.model, "side": options.side, "frozen": options.frozen, "threads": options.threads}
    facts |= {
        "cpus": os.cpu_count(),
        "rounds": options.rounds,
        **{name: version(name) for name in ("torch", "vaeworks")},
    }
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    rows = measured(options)
    if options.out:
        options.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def measured(options: argparse.Namespace) -> list[dict]:
    """A row per variant, medians over rounds."""
    variants = {name: how for name, how in VARIANTS.items() if not options.only or name in options.only}
    results: dict[str, list[dict]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, how in variants.items():
                results[name].append(call(how, Path(folder, "reference.pt"), options))
    rows = []
    print("| variant | seconds | forward alone | peak GiB | forward alone | error |\n|---|---|---|---|---|---|")
    for name, found in results.items():
        row = {key: statistics.median(r[key] for r in found) for key in found[0]}
        rows.append({"variant": name, **row, "all": found})
        print(
            f"| {name} | {row['seconds']:.2f} | {row['forward_seconds']:.2f} | {row['bytes'] / 2**30:.2f} | "
            f"{row['forward_bytes'] / 2**30:.2f} | {row['error']:.1e} |",
            flush=True,
        )
    return rows


def call(how: dict, reference: Path, options: argparse.Namespace) -> dict:
    """One variant in a process of its own."""
    words = [
        "--one",
        json.dumps(how),
        "--side",
        str(options.side),
        "--reference",
        str(reference),
        "--model",
        options.model,
    ]
    words += ["--threads", str(options.threads), *(["--frozen"] if options.frozen else [])]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
