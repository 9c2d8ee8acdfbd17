"""Time and memory of loading an SD-sized VAE: `vaeworks.load` against diffusers' `from_pretrained` and
`from_single_file`.

    python benchmarks/load_time.py [--rounds 7] [--threads 2]

One VAE with SD's shapes and random weights (335 MB in fp32) is written in every layout. Each measurement is a process
of its
own: imports first, then load, then one pass over every weight (its sum), so that reading that a mapped file defers is
counted. Rounds are interleaved; medians are printed, and the last line of stdout is one JSON document. "peak" is how
far the process's largest resident set rises above what it was before loading; "private" is the part of it that no file
backs and that other processes cannot share. Files are in the page cache, as after a first use. diffusers runs with its
defaults (low_cpu_mem_usage) and with dtype given, which is what its documentation recommends; from_single_file gets the
config folder, without which it asks the network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path


def status(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def measure(case: str, files: Path, threads: int) -> dict[str, float]:
    """Load once, in this process."""
    import torch

    torch.set_num_threads(threads)
    path, side = files / case.split()[-1], case.split()[0]
    warnings.simplefilter("ignore")
    if side == "vaeworks":
        from vaeworks.formats import io as layouts

        def run() -> torch.nn.Module:
            return layouts.load(path)
    else:
        from diffusers import AutoencoderKL

        def run() -> torch.nn.Module:
            if path.is_dir():
                return AutoencoderKL.from_pretrained(path, local_files_only=True, torch_dtype=torch.float32)
            return AutoencoderKL.from_single_file(str(path), config=str(files / "diffusers"), torch_dtype=torch.float32)

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, private = status("VmRSS"), status("RssAnon")
    started = time.perf_counter()
    model = run()
    total = sum(float(p.detach().sum()) for p in model.parameters())
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak": status("VmHWM") - before, "private": status("RssAnon") - private, "sum": total}


def write_files(folder: Path) -> None:
    """The same weights in every layout, and as a Lightning-style pickle."""
    import torch

    import vaeworks as vw

    torch.manual_seed(0)
    vae = vw.build("sd1")
    vw.save(vae, folder / "diffusers", "diffusers")
    vw.save(vae, folder / "ldm.safetensors", "ldm")
    vw.save(vae, folder / "native.safetensors", "native")
    state = vw.formats.io.stored_tensors(vae, "ldm")
    torch.save({"state_dict": {k: t.detach().contiguous() for k, t in state.items()}, "epoch": 1}, folder / "ldm.ckpt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "FILES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1]), arguments.threads)))
        return
    cases = [
        "vaeworks diffusers",
        "diffusers diffusers",
        "vaeworks ldm.safetensors",
        "diffusers ldm.safetensors",
        "vaeworks native.safetensors",
        "vaeworks ldm.ckpt",
        "diffusers ldm.ckpt",
    ]
    found: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        for _ in range(arguments.rounds):
            for case in cases:
                words = [sys.executable, __file__, "--threads", str(arguments.threads), "--measure", case, folder]
                environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(arguments.threads)}
                done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
                if done.returncode:
                    sys.exit(f"{case}: {done.stderr[-2000:]}")
                found[case].append(json.loads(done.stdout.splitlines()[-1]))
    sums = {round(row["sum"], 3) for rows in found.values() for row in rows}
    if len(sums) != 1:
        sys.exit(f"the sides did not load the same weights: {sums}")
    rows = {
        case: {key: statistics.median(row[key] for row in rows) for key in ("seconds", "peak", "private")}
        for case, rows in found.items()
    }
    print(f"{'':28}{'seconds':>9}{'peak MB':>10}{'private MB':>12}")
    for case, row in rows.items():
        print(f"{case:28}{row['seconds']:9.3f}{row['peak'] / 1e6:10.0f}{row['private'] / 1e6:12.0f}")
    packages = {name: version(name) for name in ("torch", "diffusers", "safetensors")}
    print(
        json.dumps(
            {
                "rounds": arguments.rounds,
                "threads": arguments.threads,
                "machine": platform.platform(),
                "versions": packages,
                "medians": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
