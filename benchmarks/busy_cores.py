"""How OpenMP's threads wait: decoding and training where nothing else runs, and beside a busy process, with and without
GOMP_SPINCOUNT.

    python benchmarks/busy_cores.py [--threads 2] [--rounds 3] [--model sd1] [--side 256] [--spins 1000] [--out
    results/busy_cores.json]

Every figure is of a process of its own, because OpenMP reads its environment once: the median of some calls after one
that does not count. Rounds are interleaved, so that a change of the machine's speed meets all alike; medians over
rounds are printed. "unset": neither GOMP_SPINCOUNT nor OMP_WAIT_POLICY. decode: `Codec`, random weights. train: a step
of small-f8c16, 8 squares of 64 pixels: L1 and KL, backward pass, Adam. busy: one process that counts, on whatever core
it gets. The load average is that of the machine, from its start on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

WORKS = ("decode", "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=5, help="per process")
    parser.add_argument("--model", default="sd1", help="of decode")
    parser.add_argument("--side", type=int, default=256, help="of decode, in pixels")
    parser.add_argument("--spins", default="1000")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=WORKS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", choices=WORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(
            json.dumps(
                timed(decoding(options) if options.work == "decode" else training(), options.calls, options.threads)
            )
        )
        return
    facts = {
        "threads": options.threads,
        "cpus": os.cpu_count(),
        "model": options.model,
        "side": options.side,
        "rounds": options.rounds,
    }
    facts |= {
        "python": platform.python_version(),
        "torch": version("torch"),
        "vaeworks": version("vaeworks"),
        "load": os.getloadavg(),
    }
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    found: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(options.rounds):
        for work in options.works:
            for beside in ("idle", "busy"):
                for spins in ("unset", options.spins):
                    with busy(beside == "busy"):
                        found.setdefault((work, beside, spins), []).append(in_process(work, spins, options))
                    print(
                        f"{work}, {beside}, {spins}: {found[work, beside, spins][-1]:.3f} s, load "
                        f"{os.getloadavg()[0]:.1f}",
                        flush=True,
                    )
    print(
        f"load average at the end {os.getloadavg()}\n\n| work | beside | GOMP_SPINCOUNT | seconds | all "
        "|\n|---|---|---|---|---|"
    )
    for key, seconds in found.items():
        print(f"| {' | '.join(key)} | {statistics.median(seconds):.3f} | {' '.join(f'{s:.3f}' for s in seconds)} |")
    if options.out:
        rows = [
            {"work": w, "beside": b, "spins": s, "seconds": statistics.median(t), "all": t}
            for (w, b, s), t in found.items()
        ]
        options.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """A process that counts, if it is wanted."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def in_process(work: str, spins: str, options: argparse.Namespace) -> float:
    """Median seconds of a call, in a process with its own environment."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    environment |= {"OMP_NUM_THREADS": str(options.threads)} | ({} if spins == "unset" else {"GOMP_SPINCOUNT": spins})
    words = [
        "--work",
        work,
        "--threads",
        options.threads,
        "--calls",
        options.calls,
        "--model",
        options.model,
        "--side",
        options.side,
    ]
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words)], env=environment, check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout))


def decoding(options: argparse.Namespace) -> Callable[[], object]:
    import torch

    import vaeworks as vw

    torch.manual_seed(0)
    vae = vw.build(options.model).eval().requires_grad_(False)
    side = options.side // vae.downsample_factor
    codec, latents = vw.Codec(vae), torch.randn(1, vae.latent_channels, side, side)
    return lambda: codec.decode(latents)


def training() -> Callable[[], object]:
    import torch

    import vaeworks as vw

    torch.manual_seed(0)
    vae = vw.build("small-f8c16").train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), 1e-4, fused=True)
    images = (torch.rand(8, 3, 64, 64) * 2 - 1).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        posterior = vae.encode(images)
        loss = (vae.decode(posterior.sample()) - images).abs().mean() + 1e-6 * posterior.kl().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(call: Callable[[], object], calls: int, threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    call()
    seconds = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
