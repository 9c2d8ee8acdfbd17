"""The command line. A skin: it parses, calls, and prints; it computes nothing.

Commands are plain functions in a plain dict, and their signatures are their options. What they return is printed as
JSON with --json; people read tables and bars on stderr. torch is imported only once a command runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from . import __version__
from .config import TrainConfig, dumps
from .errors import ConfigError, DataError, VaeworksError
from .recipes import RECIPES, recipe

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

    from .metrics import Evaluation

Model = Annotated[Positional[str], arg(metavar="MODEL", help="run folder, native or LDM file, diffusers folder")]
Inputs = Annotated[Positional[tuple[str, ...]], arg(metavar="IN", help="files or folders")]
Data = Annotated[str, arg(metavar="SRC", help="folder of images, or `photos` for the bundled ones")]
Out = Annotated[Path, arg(metavar="DIR", help="output folder")]
Overwrite = Annotated[bool, arg(help="replace files that exist")]


def console() -> Console:
    """Where people read."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def demo(
    out: Out = Path("out/demo"),
    minutes: Annotated[float, arg(help="longest training time")] = 4.0,
    overwrite: Annotated[bool, arg(help="repeat an earlier demo in the same folder")] = False,
) -> dict[str, Any]:
    """Everything once, small and offline: train, evaluate, export, paint, and one page that shows it."""
    from .demo import run_demo

    report = run_demo(out, minutes, overwrite, console().print)
    console().print(f"\n{out / 'report.html'} shows it all; {out / 'report.json'} has every figure")
    return report


def recipes() -> list[dict[str, str]]:
    """What can be trained, and what each is for."""
    from rich.table import Table

    rows = [{"recipe": name, "model": make().model.name, "purpose": _summary(make)} for name, make in RECIPES.items()]
    table = Table("recipe", "model", "purpose", box=None, header_style="bold")
    for row in rows:
        table.add_row(*row.values())
    console().print(table)
    return rows


def train(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="see `vaeworks recipes`")],
    data: Data,
    out: Annotated[Path, arg(metavar="RUN", help="run folder; new or empty, unless --resume")],
    resume: Annotated[bool, arg(help="continue the run in --out; its settings are the defaults then")] = False,
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),  # noqa: B008
) -> dict[str, Any]:
    """Train a VAE by a recipe. Every number of the recipe is an option below."""
    from .train import train as run

    result = run(config, _source(data), out, recipe=recipe, resume=resume)
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
    from .data import scan
    from .formats import load
    from .formats.files import write_picture, write_text
    from .metrics import evaluate as judge
    from .metrics.evaluate import worst_cases
    from .train.run import trained_on

    if out is not None and (out / "eval.json").exists() and not overwrite:
        raise ConfigError(f"{out / 'eval.json'} exists; choose another --out, or pass --overwrite")
    autoencoder = load(model)
    images = scan(_source(data))
    if val_fraction is not None:
        _, images = images.split(val_fraction)
    seen = set() if include_training else trained_on(Path(model))
    files = tuple(file for file in images.files if file.digest not in seen)
    if not files:
        why = f"held out at val-fraction {val_fraction}" if val_fraction is not None else "unseen by this run; --include-training judges it"
        raise DataError(f"no file of {data!r} is {why}")
    if left_out := len(images.files) - len(files):
        console().print(f"{left_out:,} images left out, because this run was trained on them; --include-training judges them too")
    result = judge(autoencoder, files, limit=limit, progress=_bar("evaluating"))
    result = dataclasses.replace(result, skipped=(*images.skipped, *result.skipped))
    _print_evaluation(result)
    values = result.to_dict()
    if out is not None:
        _make_folder(out)
        write_picture(out / "worst.png", worst_cases(autoencoder, result, limit))
        write_text(out / "eval.json", dumps(values) + "\n")
        console().print(f"{out / 'eval.json'}, {out / 'worst.png'} (original, reconstruction, difference x 4)")
    return values


def reconstruct(model: Model, inputs: Inputs, out: Out, overwrite: Overwrite = False) -> dict[str, Any]:
    """Images through the VAE and back, as PNG files of the same size."""
    from .formats import load
    from .formats.files import write_picture
    from .images import to_pillow, to_uint8
    from .metrics import psnr
    from .metrics.evaluate import reconstruct_uint8

    autoencoder = load(model)
    rows: dict[str, Any] = {}
    for path, target, picture in _readable(_targets(_images(inputs), out, ".png", overwrite), autoencoder.config.in_channels):
        image = to_uint8(picture)
        recon = reconstruct_uint8(autoencoder, image)
        write_picture(target, to_pillow(recon))
        rows[str(target)] = {"source": str(path), "psnr": psnr(image, recon)}
        console().print(f"{target}  {rows[str(target)]['psnr']:.2f} dB")
    return rows


def encode(
    model: Model,
    inputs: Inputs,
    out: Out,
    posterior: Annotated[Literal["mode", "sample"], arg(help="which latents of the posterior")] = "mode",
    seed: Annotated[int, arg(help="of --posterior sample")] = 0,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Images to latents: one safetensors file each, `latents` c h/f w/f, unnormalized."""
    import torch

    from .formats import load
    from .formats.latents import write_latents
    from .images import to_model_range, to_uint8

    autoencoder = load(model)
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, Any] = {}
    for path, target, picture in _readable(_targets(_images(inputs), out, ".safetensors", overwrite), autoencoder.config.in_channels):
        image = to_uint8(picture)
        with torch.inference_mode():
            found = autoencoder.encode(to_model_range(image[None]).to(autoencoder.dtype), pad=True)
            latents = (found.mode() if posterior == "mode" else found.sample(generator))[0]
        write_latents(target, latents, autoencoder.config, (image.shape[-2], image.shape[-1]), posterior)
        rows[str(target)] = {"source": str(path), "shape": list(latents.shape)}
        console().print(f"{target}  {' x '.join(map(str, latents.shape))}")
    return rows


def decode(model: Model, inputs: Inputs, out: Out, overwrite: Overwrite = False) -> dict[str, Any]:
    """Latents from `encode` to PNG files."""
    import torch

    from .formats import load
    from .formats.files import write_picture
    from .formats.latents import read_latents
    from .images import crop_to, from_model_range, to_pillow

    autoencoder = load(model)
    rows = {}
    for path, target in _targets(_files(inputs, ".safetensors"), out, ".png", overwrite):
        latents, (height, width) = read_latents(path, autoencoder.config)
        with torch.inference_mode():
            image = crop_to(from_model_range(autoencoder.decode(latents[None].to(autoencoder.dtype)))[0], height, width)
        write_picture(target, to_pillow(image))
        rows[str(target)] = {"source": str(path), "shape": list(image.shape)}
        console().print(f"{target}  {width} x {height}")
    return rows


def generate(
    pipeline: Annotated[Positional[str], arg(metavar="PIPELINE", help="diffusers folder, hub id, or tiny, tiny-sdxl, tiny-sd3, tiny-flux")],
    prompt: Annotated[Positional[str], arg(metavar="PROMPT")],
    vae: Annotated[str, arg(metavar="VAE", help="as MODEL elsewhere")],
    out: Annotated[Path, arg(metavar="PNG")],
    image: Annotated[Path | None, arg(help="start from this image instead of noise")] = None,
    strength: Annotated[float, arg(help="how much of --image is painted over, in (0, 1]")] = 0.6,
    size: Annotated[int | None, arg(help="side of the picture in pixels; default: the pipeline's")] = None,
    steps: Annotated[int, arg(help="denoising steps")] = 20,
    guidance: Annotated[float, arg(help="guidance scale")] = 7.5,
    seed: Annotated[int, arg(help="of the noise")] = 0,
    device: Annotated[str, arg(help="auto: cuda where there is one, else cpu")] = "auto",
    dtype: Annotated[Literal["auto", "fp32", "bf16", "fp16"], arg(help="auto: bf16 on cuda, else fp32")] = "auto",
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Paint from a prompt with this VAE inside a Stable Diffusion pipeline. `tiny` is built offline with random weights."""
    import torch

    from .formats import load
    from .formats.files import picture_kind, write_picture
    from .formats.pipelines import load_pipeline, paint
    from .train.step import resolve_device

    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError(f"{out} exists; choose another --out" + ("" if out.is_dir() else ", or pass --overwrite"))
    picture_kind(out)  # before the work, not after it
    start = None if image is None else _open(image, 3)
    on = resolve_device(device)
    kind = {"auto": "bf16" if on.type == "cuda" else "fp32"}.get(dtype, dtype)
    weights = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[kind]
    pipe = load_pipeline(pipeline, load(vae), on, weights)
    picture = paint(pipe, prompt, image=start, strength=strength, size=size, steps=steps, guidance=guidance, seed=seed)
    write_picture(out, picture)
    console().print(f"{out}  {picture.width} x {picture.height}, {type(pipe).__name__}")
    return {"out": str(out), "pipeline": type(pipe).__name__, "width": picture.width, "height": picture.height, "seed": seed}


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "recipes": recipes,
    "train": train,
    "eval": evaluate,
    "reconstruct": reconstruct,
    "encode": encode,
    "decode": decode,
    "generate": generate,
}
"""Commands by name."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 2 a user's error, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json, debug = (_take(words, flag) for flag in ("--json", "--debug"))
    try:
        if not words or words[0] in ("-h", "--help"):
            _print_help()
            return 0 if words else 2
        if words[0] == "--version":
            print(f"vaeworks {__version__}")
            return 0
        result = _bound(words)()
        if as_json:
            print(dumps(result))
        return 0
    except VaeworksError as error:
        if debug:
            raise
        print(f"vaeworks: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        if debug:
            raise
        print(f"vaeworks: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"vaeworks: {stop}" if str(stop) else "vaeworks: interrupted", file=sys.stderr)
        return 130


def _bound(words: list[str]) -> Callable[[], Any]:
    """The command that these words name, with the arguments that they give.

    Errors: ConfigError for words that are no command or do not fit it.
    """
    name, *rest = words
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise ConfigError(f"unknown command {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COMMANDS)}"))

    @functools.wraps(COMMANDS[name])
    def bind(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(COMMANDS[name], *args, **kwargs)

    parser = functools.partial(bind, config=_default_config(rest)) if name == "train" else bind
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(parser, prog=f"vaeworks {name}", args=rest, description=_summary(COMMANDS[name]))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(" ".join(said.getvalue().translate(_FRAMES).split())) from None


_FRAMES = dict.fromkeys(map(ord, "╭╮╰╯│─"), " ")
"""What the parser draws around its messages."""


def _default_config(words: list[str]) -> TrainConfig:
    """What `train`'s options default to: the recipe's numbers, or those of the run that --resume continues."""
    if not words or words[0] in ("-h", "--help"):
        return TrainConfig()
    if words[0].startswith("-"):
        raise ConfigError(f"the recipe comes first: vaeworks train RECIPE --data SRC --out RUN; known: {', '.join(RECIPES)}")
    default = recipe(words[0])
    folder = next((w.partition("=")[2] or n for w, n in itertools.zip_longest(words, words[1:]) if w.partition("=")[0] == "--out"), None)
    if "--resume" in words and folder is not None:
        from .train.run import read_run

        return read_run(Path(folder)).config
    return default


def _take(words: list[str], flag: str) -> bool:
    """Remove a flag that every command knows; whether it was there."""
    present = flag in words
    while flag in words:
        words.remove(flag)
    return present


def _summary(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False, markup=False)
    out.print("vaeworks COMMAND ...  build, train, prove, swap and run the VAE of Stable Diffusion and its successors\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, command in COMMANDS.items():
        table.add_row(name, _summary(command))
    out.print(table)
    out.print("\nvaeworks COMMAND --help tells a command's options. Everywhere: --json (one JSON document on stdout), --debug (tracebacks)")


def _print_evaluation(result: Evaluation) -> None:
    from rich.table import Table

    from .metrics.evaluate import DOWN_UP, JPEG

    table = Table("", "PSNR dB", "SSIM", box=None, header_style="bold")
    for name, (psnr, ssim) in ((result.model, (result.psnr, result.ssim)), *((n, result.baseline(n)) for n in (DOWN_UP, JPEG))):
        table.add_row(name, f"{psnr:.2f}", f"{ssim:.4f}")
    out = console()
    out.print(f"{len(result.scores)} images; {result.protocol.crop}; posterior {result.protocol.posterior}; 8-bit")
    out.print(table)
    worst = Table("worst", "PSNR dB", "SSIM", "size", box=None, header_style="bold")
    for score in result.worst(5):
        worst.add_row(Path(score.path).name, f"{score.psnr:.2f}", f"{score.ssim:.4f}", f"{score.width}x{score.height}")
    out.print(worst)
    for path, reason in result.skipped:
        out.print(f"skipped {path}: {reason}", style="yellow")


def _bar(what: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    from rich.progress import track

    return lambda items: track(list(items), what, console=console(), transient=True)


def _source(data: str) -> str:
    if data == "photos" and Path(data).is_dir():
        console().print("taking the bundled photographs; for the folder of that name write ./photos", style="yellow")
    return data


def _images(inputs: tuple[str, ...]) -> list[tuple[Path, Path]]:
    """(image file, its place below the folder that was named)."""
    from .data.folder import find_images

    found = [(path, source) for source in inputs for path in find_images(_source(source))]
    return [(path, path.relative_to(source) if Path(source).is_dir() and source != "photos" else Path(path.name)) for path, source in found]


def _files(inputs: tuple[str, ...], suffix: str) -> list[tuple[Path, Path]]:
    """(file, its place below the folder that was named)."""
    found: list[tuple[Path, Path]] = []
    for source in map(Path, inputs):
        if not source.exists():
            raise DataError(f"{str(source)!r} does not exist")
        found += (
            [(p, p.relative_to(source)) for p in sorted(source.rglob(f"*{suffix}"))] if source.is_dir() else [(source, Path(source.name))]
        )
    if not found:
        raise DataError(f"no {suffix} file in {', '.join(inputs)}")
    return found


def _targets(sources: list[tuple[Path, Path]], out: Path, suffix: str, overwrite: bool) -> list[tuple[Path, Path]]:
    """(source, target) pairs; all targets are checked before the first is written."""
    pairs = [(source, out / place.with_suffix(suffix)) for source, place in sources]
    seen: dict[Path, Path] = {}
    for source, target in pairs:
        if target in seen:
            raise ConfigError(f"{seen[target]} and {source} would both become {target}; give them in two calls with two --out")
        seen[target] = source
        if target.exists() and not overwrite:
            raise ConfigError(f"{target} exists; choose another --out, or pass --overwrite")
    _make_folder(out)
    return pairs


def _make_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; choose a folder for --out")
    out.mkdir(parents=True, exist_ok=True)


def _readable(pairs: list[tuple[Path, Path]], channels: int) -> Iterator[tuple[Path, Path, Image.Image]]:
    """(source, target, image) of every file that can be read; the others are named, and are an error if there is no image at all."""
    errors = []
    for source, target in pairs:
        try:
            image = _open(source, channels)
        except DataError as error:
            errors.append(error)
            console().print(f"skipped {error}", style="yellow")
            continue
        yield source, target, image
    if len(errors) == len(pairs):
        raise errors[0]


def _open(path: Path, channels: int) -> Image.Image:
    from .images import open_image

    try:
        return open_image(path, channels)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
