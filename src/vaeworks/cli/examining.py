"""The doctor's command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from ..data.inputs import data_source
from ..errors import ConfigError
from ..files.outputs import make_folder, short_names
from .console import TERMINAL, bar, console
from .exit_status import FailOnTriggered
from .options import Data, Models, Out, Overwrite, Told, settings_of

if TYPE_CHECKING:
    from ..doctor.examination import Examination
    from ..doctor.image_sample import ImageSample
    from ..models import Autoencoder


def doctor(
    model: Models,
    data: Data,
    out: Out,
    panels: Annotated[
        tuple[str, ...] | None, arg(metavar="PANEL", help="only these; by default all (docs/doctor.md)")
    ] = None,
    quick: Annotated[
        bool, arg(help="fewer images and probes: an SD-sized VAE within five minutes on two cores")
    ] = False,
    images: Annotated[int | None, arg(metavar="N", help="examine so many images at most, evenly spaced")] = None,
    size: Annotated[
        int | None, arg(metavar="PX", help="side of the squares that images become; by default about 256")
    ] = None,
    labels: Annotated[
        str | None,
        arg(metavar="HOW", help="folders, names, none, or a CSV file; by default folders where there are any"),
    ] = None,
    masks: Annotated[Path | None, arg(metavar="DIR", help="a mask of the object for every image, by name")] = None,
    reference: Annotated[
        str | None, arg(metavar="VAE", help="the VAE that the diffusion model was made for, if MODEL is to replace it")
    ] = None,
    fail_on: Annotated[
        tuple[str, ...], arg(metavar="RULE", help="exit with 1 if a panel is bad: ill, watch, PANEL or PANEL:watch")
    ] = (),
    seed: Annotated[int, arg(help="of probes and noise")] = 0,
    cache: Annotated[
        bool, arg(help="keep findings, and take those that are kept for the same model, images and options")
    ] = True,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """The diseases of a VAE, worst first, with figures, pictures and remedies. Several models: each, and a
    comparison."""
    from ..data import scan
    from ..data.labels import find_labels, find_masks
    from ..doctor.examination import check_panels, check_rules, failing
    from ..doctor.image_sample import ImageSample
    from ..doctor.page import COMPARE, COMPARE_RECORD, RECORD, REPORT, check_alike, write_comparison, write_report
    from ..doctor.serialization import SCHEMA
    from ..formats.locate import locate
    from ..images import default_size

    if not model:
        raise ConfigError("no MODEL is given: vaeworks doctor MODEL --data SRC --out DIR")
    wanted = (
        None
        if panels is None
        else check_panels(name.strip() for word in panels for name in word.split(",") if name.strip())
    )
    rules = [rule.strip() for word in fail_on for rule in word.split(",") if rule.strip()]
    check_rules(rules, wanted)
    said = settings_of(told)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out is a folder")
    places = [out] if len(model) == 1 else [out / name for name in short_names(model)]
    existing = next(
        (p / name for p in (out, *places) for name in (REPORT, RECORD, COMPARE, COMPARE_RECORD) if (p / name).exists()),
        None,
    )
    if existing and not overwrite:
        raise ConfigError(f"{existing} exists; choose another --out, or pass --overwrite")
    if images is not None and images < 1:
        raise ConfigError(f"--images {images} leaves nothing to examine; give at least 1")
    source = scan(data_source(data, reporter=TERMINAL))
    classes, shapes = find_labels(source.files, labels), find_masks(source.files, masks)
    if size is None:  # one for all of them, so that they compare
        size = default_size(*(locate(name, **said).config for name in model))
    sample = ImageSample(source.files, size=size, limit=images, quick=quick, labels=classes, masks=shapes)
    options: dict[str, Any] = {
        "panels": wanted,
        "seed": seed,
        "reference": None if reference is None else _loaded(reference, {})[0],
        "keep": cache,
    }
    found = []
    for name, place in zip(model, places, strict=True):
        found.append(_examined(name, said, sample, options))
        make_folder(place)
        write_report(place, found[-1], overwrite)
        _print(found[-1])
        console().print(f"{place / REPORT} shows it; {place / RECORD} has every figure")
        console().print()
    if len(found) > 1:
        check_alike(found)
        write_comparison(out, found, [place.name for place in places], overwrite)
        console().print(f"{out / COMPARE} has all of them side by side")
    for path, reason in source.skipped:
        console().print(f"skipped {path}: {reason}", style="yellow")
    result = found[0].to_dict() if len(found) == 1 else {"schema": SCHEMA, "models": [e.to_dict() for e in found]}
    if bad := [f"{e.model}: {sentence}" for e in found for sentence in failing(e, rules)]:
        raise FailOnTriggered(result, bad)
    return result


def _examined(name: str, said: dict[str, Any], sample: ImageSample, options: dict[str, Any]) -> Examination:
    from ..doctor.examination import examine_files
    from ..doctor.panels import TITLES

    autoencoder, known = _loaded(name, said)

    def begin(what: str) -> Any:
        return bar(f"{what}: {TITLES[what].partition(': ')[2] or TITLES[what]}" if what in TITLES else what)

    console().print(f"{name}: {autoencoder.config.name}")
    return examine_files(autoencoder, sample, model=name, known=known, begin=begin, **options)


def _loaded(name: str, said: dict[str, Any]) -> tuple[Autoencoder, bool]:
    """The model, on a GPU where there is one, and whether its file is sure of its scaling factor."""
    import torch

    from ..formats.io import read
    from ..formats.locate import locate
    from ..formats.vae_slot import is_certain

    located = locate(name, **said)
    autoencoder = read(located)
    for doubt in located.doubts:
        console().print(f"{name}: {doubt}", style="yellow")
    return autoencoder.to("cuda") if torch.cuda.is_available() else autoencoder, is_certain(located)


STYLES = {"ill": "red", "watch": "yellow", "healthy": "green", "not examined": "dim"}


def _print(examination: Examination) -> None:
    """A line per panel, worst first."""
    from rich.table import Table
    from rich.text import Text

    from ..doctor.panels import TITLES

    table = Table("panel", "verdict", "what was seen", box=None, header_style="dim", pad_edge=False)
    for name, finding in examination.findings.items():
        seen = Text(finding.sentence)
        if finding.remedy and finding.verdict in ("ill", "watch"):
            seen.append(f"\n{finding.remedy}", style="dim")
        table.add_row(TITLES[name].partition(":")[0], Text(finding.verdict, style=STYLES[finding.verdict]), seen)
    out = console()
    protocol = examination.protocol
    flattened = f"; {protocol.flattened} with transparency were flattened onto white" if protocol.flattened else ""
    out.print(f"{protocol.count} images of {protocol.size} px{', quick' if protocol.quick else ''}{flattened}")
    out.print(table)
