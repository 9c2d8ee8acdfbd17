"""Commands that train and judge: demo, recipes, train, eval."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ..config import TrainConfig, dumps
from ..errors import ConfigError, DataError
from ..recipes import GROUPS, claim, purpose
from .inputs import data_source, loaded, make_folder
from .options import Data, Model, Out, Overwrite
from .show import bar, console, print_evaluation


def demo(
    out: Out = Path("out/demo"),
    minutes: Annotated[float, arg(help="longest training time")] = 4.0,
    overwrite: Annotated[bool, arg(help="repeat an earlier demo in the same folder")] = False,
) -> dict[str, Any]:
    """Everything once, small and offline: train, evaluate, export, paint, and one page that shows it."""
    from ..demo import run_demo

    report = run_demo(out, minutes, overwrite, console().print)
    console().print(f"\n{out / 'report.html'} shows it all; {out / 'report.json'} has every figure")
    return report


def recipes() -> list[dict[str, str]]:
    """What can be trained, and the claim of the debate that each tests."""
    from rich.table import Table
    from rich.text import Text

    rows = [
        {"recipe": name, "group": group, "model": make().model.name, "purpose": purpose(make), "claim": claim(make)}
        for group, members in GROUPS.items()
        for name, make in members.items()
    ]
    out = console()
    for group, members in GROUPS.items():
        table = Table("recipe", "model", "purpose and claim", box=None, header_style="dim", title_style="bold", title_justify="left")
        table.title = group
        for row in rows:
            if row["recipe"] in members:
                what = Text(row["purpose"])
                if row["claim"]:
                    what.append("\n" + row["claim"], style="dim")
                table.add_row(row["recipe"], "as the VAE" if group == "fine-tuning" else row["model"], what)
        out.print(table, "")
    out.print("NAME-tiny: the same on a network that trains in seconds. Every number is an option: vaeworks train NAME --help")
    return rows


def train(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="see `vaeworks recipes`")],
    data: Data,
    out: Annotated[Path, arg(metavar="RUN", help="run folder; new or empty, unless --resume")],
    resume: Annotated[bool, arg(help="continue the run in --out; its settings are the defaults then")] = False,
    start: Annotated[str | None, arg(name="from", metavar="VAE", help="fine-tune this VAE: as MODEL elsewhere")] = None,
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),  # noqa: B008
) -> dict[str, Any]:
    """Train a VAE by a recipe. Every number of the recipe is an option below."""
    from ..train import train as run

    if start is not None:
        config = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, path=start))
    result = run(config, data_source(data), out, recipe=recipe, resume=resume)
    val = "" if result.val_psnr is None else f", {result.val_psnr:.2f} dB on held-out images"
    stats = result.latents
    console().print(
        f"{out / 'model.safetensors'}: {result.images_seen:,} images in {result.seconds:.0f} s{val}\n"
        f"latents measured on {stats.num_images:,} crops: scaling_factor {stats.scaling_factor:.5f}, shift_factor {stats.shift_factor:.5f}"
    )
    return dataclasses.asdict(result)


def evaluate(
    model: Model,
    data: Data,
    out: Annotated[Path | None, arg(metavar="DIR", help="for eval.json and a picture of the worst cases")] = None,
    limit: Annotated[int, arg(help="longest side of the central crop that is judged, in pixels")] = 512,
    val_fraction: Annotated[float | None, arg(help="judge only the files that a run with this data.val-fraction held out")] = None,
    include_training: Annotated[bool, arg(help="judge also the files that the run in MODEL was trained on")] = False,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """PSNR and SSIM per image, beside two baselines that have learned nothing. A run is judged on what it has not seen."""
    from ..data import scan
    from ..formats.files import write_picture, write_text
    from ..metrics import evaluate as judge
    from ..metrics.evaluate import worst_cases
    from ..train.run import trained_on

    if out is not None and (out / "eval.json").exists() and not overwrite:
        raise ConfigError(f"{out / 'eval.json'} exists; choose another --out, or pass --overwrite")
    autoencoder = loaded(model)
    images = scan(data_source(data))
    if val_fraction is not None:
        _, images = images.split(val_fraction)
    seen = set() if include_training else trained_on(Path(model))
    files = tuple(file for file in images.files if file.digest not in seen)
    if not files:
        why = f"held out at val-fraction {val_fraction}" if val_fraction is not None else "unseen by this run; --include-training judges it"
        raise DataError(f"no file of {data!r} is {why}")
    if left_out := len(images.files) - len(files):
        console().print(
            f"{left_out:,} images left out, because this run was (if streamed: may have been) trained on them; see --include-training"
        )
    result = judge(autoencoder, files, limit=limit, progress=bar("evaluating"))
    result = dataclasses.replace(result, skipped=(*images.skipped, *result.skipped))
    print_evaluation(result)
    values = result.to_dict()
    if out is not None:
        make_folder(out)
        write_picture(out / "worst.png", worst_cases(autoencoder, result, limit, files=files))
        write_text(out / "eval.json", dumps(values) + "\n")
        console().print(f"{out / 'eval.json'}, {out / 'worst.png'} (original, reconstruction, difference x 4)")
    return values
