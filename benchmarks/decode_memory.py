"""Peak memory, time and error of decoding large pictures: diffusers whole and tiled, ours in strips within budgets.

Every variant runs in a process of its own, one after the other, round by round; peak memory is that of the process
above what it held before the decode (Linux: VmHWM). The error is against ours in float32 without a budget, on outputs
scaled to a range of 2. Weights are
random: SD 1's network.

    python benchmarks/decode_memory.py --sides 512 1024 --rounds 3
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

VARIANTS = {
    "diffusers, whole": {"peer": True},
    "diffusers, enable_tiling()": {"peer": True, "tiling": True},
    "diffusers, whole, channels-last": {"peer": True, "last": True},
    "ours": {},
    "ours, 1/4 of diffusers' memory": {"share": 0.25},
    "diffusers, whole, channels-last, bf16": {"peer": True, "last": True, "bf16": True},
    "diffusers, enable_tiling(), channels-last, bf16": {"peer": True, "tiling": True, "last": True, "bf16": True},
    "ours, bf16": {"bf16": True},
    "ours, bf16, 5 GiB": {"bf16": True, "memory": "5GiB"},
}


def run(options: argparse.Namespace) -> None:
    """One decode in this process."""
    import torch

    import vaeworks as vw

    torch.set_num_threads(options.threads)
    how = json.loads(options.one)
    torch.manual_seed(0)
    vae = vw.build(options.model).eval().requires_grad_(False)
    dtype = torch.bfloat16 if how.get("bf16") else torch.float32
    latents = torch.randn(
        1, vae.latent_channels, options.side // vae.downsample_factor, options.side // vae.downsample_factor
    )
    if how.get("peer"):
        peer = vw.to_diffusers(vae).to(dtype)
        peer = peer.to(memory_format=torch.channels_last) if how.get("last") else peer
        if how.get("tiling"):
            peer.enable_tiling()

        def decode() -> torch.Tensor:
            return peer.decode(latents.to(dtype)).sample
    else:
        codec = vw.Codec(vae.to(memory_format=torch.channels_last), dtype=dtype, memory=how.get("memory"))

        def decode() -> torch.Tensor:
            return codec.decode(latents)

    with torch.inference_mode():
        before = reset_peak()
        started = time.perf_counter()
        image = decode()
        seconds = time.perf_counter() - started
    result = {"seconds": seconds, "bytes": peak() - before, "of process": peak()}
    if options.reference.exists():
        reference = torch.load(options.reference)
        scale = 2 / (reference.max() - reference.min()).item()
        error = (image.float() - reference).abs() * scale
        result |= {"max_error": error.max().item(), "mean_error": error.mean().item()}
    elif not how and not options.no_reference:
        torch.save(image.float(), options.reference)
        result |= {"max_error": 0.0, "mean_error": 0.0}
    print(json.dumps(result))


def reset_peak() -> int:
    """Start the peak anew; bytes held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak()


def peak() -> int:
    """Largest number of bytes that this process has held in memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd1")
    parser.add_argument("--sides", type=int, nargs="+", default=[512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-reference", action="store_true", help="measure no errors: where float32 takes too long")
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run(options)
        return
    facts = {"model": options.model, "threads": options.threads, "cpus": os.cpu_count(), "rounds": options.rounds}
    facts |= {name: version(name) for name in ("torch", "diffusers", "vaeworks")}
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    rows = [row for side in options.sides for row in measured(side, options)]
    if options.out:
        options.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def measured(side: int, options: argparse.Namespace) -> list[dict]:
    """A row per variant, medians over rounds."""
    variants = {name: dict(how) for name, how in VARIANTS.items() if not options.only or name in options.only}
    results: dict[str, list[dict]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder, "reference.pt")
        if not options.no_reference:
            call(side, {}, reference, options)
        for _ in range(options.rounds):
            for name, how in variants.items():
                if "share" in how:
                    whole = results["diffusers, whole"][0]["bytes"]
                    how = {"memory": int(whole * how["share"])}
                if (found := call(side, how, reference, options)) is not None:
                    results[name].append(found)
    rows = []
    print(
        f"\n{side} px\n| variant | seconds | peak GiB | of the process | max error | mean error "
        "|\n|---|---|---|---|---|---|"
    )
    for name, found in ((name, found) for name, found in results.items() if found):
        row = {key: statistics.median(r[key] for r in found) for key in found[0]}
        rows.append({"side": side, "variant": name, **row, "all": found})
        errors = f"{row['max_error']:.1e} | {row['mean_error']:.1e}" if "max_error" in row else "|"
        print(
            f"| {name} | {row['seconds']:.2f} | {row['bytes'] / 2**30:.2f} | {row['of process'] / 2**30:.2f} | "
            f"{errors} |",
            flush=True,
        )
    return rows


def call(side: int, how: dict, reference: Path, options: argparse.Namespace) -> dict | None:
    """One variant in a process of its own; None where its budget is below the least that works."""
    words = ["--no-reference"] * options.no_reference + [
        "--one",
        json.dumps(how),
        "--side",
        str(side),
        "--reference",
        str(reference),
    ]
    words += ["--model", options.model, "--threads", str(options.threads)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if "takes at least" in done.stderr:
        print(done.stderr.splitlines()[-1])
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
