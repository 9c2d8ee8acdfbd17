"""The command that lets sound be heard through a VAE of spectrograms."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from ..errors import ConfigError, DataError, NotFiniteError
from ..files.outputs import check_apart, check_free, make_folder
from .console import bar, console
from .options import Memory, Model, Out, Overwrite, Precision, Told
from .paths import codec

if TYPE_CHECKING:
    from ..apps.audio import Heard
    from ..data.sources.sound import Sound

RECORD = "listen.json"
COLUMNS = {
    "log_mel": "log-mel dB: VAE",
    "log_mel_down_up": "down-up",
    "log_mel_ceiling": "Griffin-Lim",
    "log_mel_heard": "VAE + Griffin-Lim",
    "convergence_ceiling": "convergence: Griffin-Lim",
    "convergence_heard": "VAE + Griffin-Lim",
}
"""Figures as the table calls them."""


def listen(
    model: Model,
    inputs: Annotated[
        Positional[tuple[str, ...]], arg(metavar="IN", help="sounds: files, folders, or made[:COUNT[:SEED]]")
    ],
    out: Out,
    iterations: Annotated[int, arg(metavar="N", help="of Griffin-Lim")] = 64,
    seed: Annotated[int, arg(help="of the phase that it starts from")] = 0,
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Sound through a VAE of spectrograms: as WAV files beside the best that the way back can do, as pictures, and in
    figures."""
    from ..apps.audio import listen as through
    from ..config import dumps
    from ..data.spectrogram import MEL
    from ..files.atomic import write_text

    if not inputs:
        raise ConfigError("no IN is given: vaeworks listen MODEL IN... --out DIR")
    if iterations < 1 or seed < 0:
        raise ConfigError(f"iterations (={iterations}) must be at least 1, and seed (={seed}) not negative")
    found = [pair for source in inputs for pair in _sounds(source)]
    _check_places(found)
    check_apart([place for _, place in found], [place for _, place in found])
    check_free(out, [RECORD, *(str(place) for _, place in found)], overwrite)
    network = codec(model, memory, precision, told)
    if network.autoencoder.config.in_channels == 2:
        found = [(dataclasses.replace(sound, channels=2), place) for sound, place in found]
    make_folder(out)
    rows: dict[str, dict[str, Any]] = {}
    errors = []
    for sound, place in bar("listening")(found):
        try:
            heard = through(network, sound.samples(), iterations=iterations, seed=seed)
        except NotFiniteError:  # the network's fault, and every sound's
            raise
        except DataError as error:
            errors.append(f"{sound}: {error}")
            console().print(f"skipped {errors[-1]}", style="yellow")
            continue
        _write(out / place, heard, overwrite)
        rows[str(out / place)] = {
            "source": str(sound),
            "seconds": heard.original.shape[-1] / MEL.rate,
            **dataclasses.asdict(heard.figures),
        }
    if not rows:
        raise DataError(errors[0])
    result: dict[str, Any] = {
        "model": model,
        "iterations": iterations,
        "seed": seed,
        "transform": dataclasses.asdict(MEL),
        "classes": _means(rows),
        "skipped": errors,
        "sounds": rows,
    }
    write_text(out / RECORD, dumps(result) + "\n", overwrite)
    _print(result["classes"])
    console().print(
        f"{out} has every sound's files: original, original-griffin-lim (the ceiling), reconstruction, spectrograms"
    )
    return result


def _sounds(source: str) -> list[tuple[Sound, Path]]:
    """Sounds of a source, and below --out the folders for them."""
    from ..data.sources.sound import MADE, SOUND, STEREO, sounds

    source = source.removeprefix(SOUND).removeprefix(STEREO)
    root = Path(MADE) if source.partition(":")[0] == MADE else Path(source).expanduser()
    root = root.parent if root.is_file() else root
    return [(sound, Path(str(sound)).relative_to(root).with_suffix("")) for sound in sounds(source)]


def _check_places(found: Sequence[tuple[Sound, Path]]) -> None:
    seen: dict[Path, Sound] = {}
    for sound, place in found:
        if place in seen:
            raise ConfigError(
                f"{seen[place]} and {sound} would both become {place}; give them in two calls with two --out"
            )
        seen[place] = sound


def _write(folder: Path, heard: Heard, overwrite: bool) -> None:
    """All of a sound, or nothing."""
    from scipy.io import wavfile

    from ..apps.audio import sheet
    from ..data.spectrogram import MEL
    from ..files.atomic import atomic

    sounds = {"original": heard.original, "original-griffin-lim": heard.ceiling, "reconstruction": heard.recon}
    with atomic(folder, overwrite) as temporary:
        temporary.mkdir()
        for name, samples in sounds.items():
            wavfile.write(temporary / f"{name}.wav", MEL.rate, (samples.T.clip(-1, 1) * 32767).round().astype("int16"))
        sheet(heard.image, heard.recon_image).save(temporary / "spectrograms.png")


def _means(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean figures of every class (the folder that a sound is in), where there are several, and of all with their
    intervals."""
    import numpy as np

    from ..intervals import bootstrap

    labels = [Path(row["source"]).parent.name for row in rows.values()]
    values = {name: np.array([row[name] for row in rows.values()]) for name in COLUMNS}
    found: dict[str, dict[str, Any]] = {}
    for label in sorted(set(labels)) if len(set(labels)) > 1 else ():
        mine = np.array(labels) == label
        found[label] = {
            "sounds": int(mine.sum()),
            **{name: float(value[mine].mean()) for name, value in values.items()},
        }
    every = {
        name: bootstrap(value[np.isfinite(value)]) if np.isfinite(value).any() else None
        for name, value in values.items()
    }
    intervals = {name: None if value is None else dataclasses.asdict(value) for name, value in every.items()}
    means = {name: None if value is None else value.value for name, value in every.items()}
    return found | {"all": {"sounds": len(labels), **means, "intervals": intervals}}


def _print(classes: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("", "sounds", *COLUMNS.values(), box=None, header_style="dim", pad_edge=False)
    for name, facts in classes.items():
        values = [facts[key] for key in COLUMNS]
        table.add_row(name, str(facts["sounds"]), *("" if v is None or v != v else f"{v:.2f}" for v in values))
    console().print(table)
