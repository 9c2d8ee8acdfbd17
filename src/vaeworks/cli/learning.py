"""Commands that train: demo, recipes, train."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ..config import TrainConfig
from ..data.inputs import data_source
from ..recipes import GROUPS, claim, purpose
from .console import TERMINAL, console
from .options import Data, Out


def demo(
    out: Out = Path("out/demo"),
    minutes: Annotated[float, arg(help="longest training time")] = 4.0,
    overwrite: Annotated[bool, arg(help="repeat an earlier demo in the same folder")] = False,
) -> dict[str, Any]:
    """Everything once, small and offline: train, evaluate, export, paint, and one page that shows it."""
    from ..demo import run_demo

    report = run_demo(out, minutes, overwrite, console().print)
    console().print()
    console().print(f"{out / 'report.html'} shows it all; {out / 'report.json'} has every figure")
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
        table = Table(
            "recipe",
            "model",
            "purpose and claim",
            box=None,
            header_style="dim",
            title_style="bold",
            title_justify="left",
        )
        table.title = group
        for row in rows:
            if row["recipe"] in members:
                what = Text(row["purpose"])
                if row["claim"]:
                    what.append("\n" + row["claim"], style="dim")
                table.add_row(row["recipe"], "as the VAE" if group == "fine-tuning" else row["model"], what)
        out.print(table, "")
    out.print(
        "NAME-tiny: the same on a network that trains in seconds. Every number is an option: vaeworks train NAME --help"
    )
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
    from ..training import train as run

    if start is not None:
        config = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, path=start))
    result = run(config, data_source(data, reporter=TERMINAL), out, recipe=recipe, resume=resume)
    val = "" if result.val_psnr is None else f", {result.val_psnr:.2f} dB on held-out images"
    stats = result.latents
    console().print(f"{out / 'model.safetensors'}: {result.images_seen:,} images in {result.seconds:.0f} s{val}")
    console().print(
        f"latents measured on {stats.num_images:,} crops: scaling_factor {stats.scaling_factor:.5f}, shift_factor "
        f"{stats.shift_factor:.5f}"
    )
    return dataclasses.asdict(result)
