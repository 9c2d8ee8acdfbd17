"""Send sounds through an autoencoder of spectrograms: the function behind `vaeworks listen`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from scipy.io import wavfile
from torch import Tensor

from ...config import dumps
from ...data.inputs import Inputs, listed
from ...data.sources.sound import MADE, SOUND, STEREO, Sound, sounds
from ...data.spectrogram import MEL, Mel
from ...errors import ConfigError, DataError, NotFiniteError
from ...files.atomic import atomic, write_text
from ...files.outputs import check_apart, check_free, make_folder
from ...images.channels import check_pictures
from ...intervals import Interval, bootstrap
from ...pages.call import Call
from ...pages.gallery import REPORT, Exhibit, Gallery, GallerySection, PageTable, page_place, write_gallery
from ...reporting import SILENT, Reporter
from ...runtime import Codec
from ...runtime.opening import Model, Precision, name_of, open_codec
from ...words import many
from .griffin_lim import ITERATIONS
from .hear import Heard, Samples, SoundDistances, hear
from .sheet import sheet

RECORD, PICTURE = "listen.json", "spectrograms.png"

WAVES = {
    "original": "original",
    "original-griffin-lim": "original through Griffin-Lim: the ceiling",
    "reconstruction": "reconstruction",
}
"""Sounds that are written, by the names of their files."""

FIGURES = tuple(field.name for field in dataclasses.fields(SoundDistances))


@dataclass(frozen=True)
class HeardFile:
    """One sound, and how far from it the reconstruction is."""

    source: str
    seconds: float
    figures: SoundDistances

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"source": self.source, "seconds": self.seconds, **dataclasses.asdict(self.figures)}


@dataclass(frozen=True)
class SoundMeans:
    """Mean figures of several sounds."""

    sounds: int
    means: Mapping[str, float | None]
    """by the names of `SoundDistances`; None where no sound has that figure"""
    intervals: Mapping[str, Interval | None] | None = None
    """95 % bootstrap intervals; None for single classes"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values: dict[str, Any] = {"sounds": self.sounds, **self.means}
        if self.intervals is not None:
            values["intervals"] = {n: None if i is None else dataclasses.asdict(i) for n, i in self.intervals.items()}
        return values


@dataclass(frozen=True)
class ListenResult:
    """The figures of all sounds."""

    model: str
    iterations: int
    seed: int
    transform: Mel
    """how sounds become spectrograms"""
    classes: Mapping[str, SoundMeans]
    """by the folder that sounds are in, where there are several; "all" are all of them"""
    skipped: Sequence[str]
    """sounds that cannot be read, with the reason"""
    sounds: Mapping[str, HeardFile]
    """by the folder with the results, or the sound's name where nothing is written"""
    page: Path | None = None
    """the page with the pictures and sounds; None where it was not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as in listen.json."""
        return {
            "model": self.model,
            "iterations": self.iterations,
            "seed": self.seed,
            "transform": dataclasses.asdict(self.transform),
            "classes": {name: means.to_dict() for name, means in self.classes.items()},
            "skipped": list(self.skipped),
            "sounds": {place: sound.to_dict() for place, sound in self.sounds.items()},
            **({} if self.page is None else {"page": str(self.page)}),
        }


@overload
def listen(
    model: Model | Codec,
    inputs: Samples,
    *,
    iterations: int = ITERATIONS,
    seed: int = 0,
    memory: str | int | None = None,
    precision: Precision | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Heard: ...


@overload
def listen(
    model: Model | Codec,
    inputs: Inputs,
    out: str | Path | None = None,
    *,
    iterations: int = ITERATIONS,
    seed: int = 0,
    memory: str | int | None = None,
    precision: Precision | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> ListenResult: ...


def listen(
    model: Model | Codec,
    inputs: Samples | Inputs,
    out: str | Path | None = None,
    *,
    iterations: int = ITERATIONS,
    seed: int = 0,
    memory: str | int | None = None,
    precision: Precision | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Heard | ListenResult:
    """Send sounds through an autoencoder of spectrograms and back to sound by Griffin-Lim.

    >>> heard = vw.listen("runs/audio", samples)             # samples n in [-1,1], 16,000 a second; 2 n for stereo
    >>> result = vw.listen("runs/audio", "sounds", "out")    # files; result.classes["all"].means["log_mel"]

    model: a run folder, a VAE file or folder, hf:OWNER/NAME, an autoencoder or a codec.
    inputs: samples; or sound files, folders, and made[:COUNT[:SEED]]. out: the folder for WAV files, pictures of the
    spectrograms, listen.json and report.html; None: write nothing.
    iterations: of Griffin-Lim. seed: of the phase that it starts from. memory: most memory beside the weights, in bytes
    or as "4GiB". precision: of the computation; None: the weights' own, but fp32 for fp16 weights on a CPU.
    settings: facts about the model that its file lacks, as keywords of `vw.load`. overwrite: replace existing results.

    Returns the sound as it comes back and its distances (`Heard`) for samples, else the figures of all sounds. Sounds
    that cannot be read are skipped.
    Errors: ConfigError for settings that cannot be, or existing results; DataError where no sound can be read; those of
    `vw.load`.
    """
    call = Call("listen", listen, dict(locals()))
    if iterations < 1 or seed < 0:
        raise ConfigError(f"iterations (={iterations}) must be at least 1, and seed (={seed}) not negative")
    if isinstance(inputs, Tensor):
        inputs = inputs.detach().cpu().numpy()
    if isinstance(inputs, np.ndarray):
        if out is not None:
            raise ConfigError(f"samples are not written, so out (={str(out)!r}) must not be given; give files for it")
        return hear(_codec(model, memory, precision, settings), inputs, iterations=iterations, seed=seed)
    found = [pair for source in listed(inputs) for pair in _places(str(source))]
    folder = None if out is None else Path(out)
    _check_places(found, folder, overwrite)
    codec = _codec(model, memory, precision, settings)
    if codec.autoencoder.config.in_channels == 2:
        found = [(dataclasses.replace(sound, channels=2), place) for sound, place in found]
    if folder is not None:
        make_folder(folder)
    files: dict[str, HeardFile] = {}
    errors = []
    for sound, place in reporter.track(found, "listening"):
        try:
            heard = hear(codec, sound.samples(), iterations=iterations, seed=seed)
        except NotFiniteError:  # an error of the network, so every sound has it
            raise
        except DataError as error:
            errors.append(f"{sound}: {error}")
            reporter.warn(f"skipped {errors[-1]}")
            continue
        if folder is not None:
            _write(folder / place, heard, overwrite)
        key = str(place if folder is None else folder / place)
        files[key] = HeardFile(str(sound), heard.original.shape[-1] / MEL.rate, heard.figures)
    if not files:
        raise DataError(errors[0])
    name = name_of(model.autoencoder if isinstance(model, Codec) else model)
    page = page_place(folder, reporter)
    result = ListenResult(name, iterations, seed, MEL, _means(list(files.values())), errors, files, page)
    if folder is not None:
        write_text(folder / RECORD, dumps(result.to_dict()) + "\n", overwrite)
        write_gallery(page, _gallery(result, call), overwrite, reporter)
    return result


COLUMNS = {
    "log_mel": "log-mel dB: VAE",
    "log_mel_down_up": "down-up",
    "log_mel_ceiling": "Griffin-Lim",
    "log_mel_heard": "VAE + Griffin-Lim",
    "convergence_ceiling": "convergence: Griffin-Lim",
    "convergence_heard": "convergence: VAE + Griffin-Lim",
}
"""Headings of the figures in tables."""


def _gallery(result: ListenResult, call: Call) -> Gallery:
    def cells(figures: Mapping[str, float | None]) -> list[str]:
        return ["" if v is None or v != v else f"{v:.2f}" for v in (figures[key] for key in COLUMNS)]

    means = [[name, str(row.sounds), *cells(row.means)] for name, row in result.classes.items()]
    each = [[s.source, f"{s.seconds:.2f} s", *cells(dataclasses.asdict(s.figures))] for s in result.sounds.values()]
    text = (
        "Griffin-Lim alone, which finds a phase for the original's own spectrogram, is what a perfect VAE would give."
    )
    sections = [
        GallerySection("Means", text, tables=[PageTable(("", "sounds", *COLUMNS.values()), means)]),
        GallerySection("Figures of every sound", "", tables=[PageTable(("sound", "length", *COLUMNS.values()), each)]),
    ]
    for place, sound in result.sounds.items():
        shown = [Exhibit(Path(place) / f"{name}.wav", caption) for name, caption in WAVES.items()]
        shown.append(Exhibit(Path(place) / PICTURE, "spectrograms: original, reconstruction, difference"))
        sections.insert(-1, GallerySection(Path(sound.source).name, "", shown))
    lead = f"{many(len(result.sounds), 'sound')} through {result.model}, and back by Griffin-Lim."
    return Gallery("Sounds through a VAE", lead, call, sections, result.to_dict(), files={RECORD: "all figures"})


def _codec(
    model: Model | Codec,
    memory: str | int | None,
    precision: Precision | None,
    settings: Mapping[str, Any] | None,
) -> Codec:
    codec = model if isinstance(model, Codec) else open_codec(model, memory, precision, settings)
    check_pictures(codec.autoencoder.config)
    return codec


def _places(source: str) -> list[tuple[Sound, Path]]:
    """The sounds of a source, and the folder for each below the output folder."""
    source = source.removeprefix(SOUND).removeprefix(STEREO)
    root = Path(MADE) if source.partition(":")[0] == MADE else Path(source).expanduser()
    root = root.parent if root.is_file() else root
    return [(sound, Path(str(sound)).relative_to(root).with_suffix("")) for sound in sounds(source)]


def _check_places(found: Sequence[tuple[Sound, Path]], out: Path | None, overwrite: bool) -> None:
    """Errors: ConfigError where two sounds have one folder, or results exist."""
    seen: dict[Path, Sound] = {}
    for sound, place in found:
        if place in seen:
            raise ConfigError(
                f"{seen[place]} and {sound} would both become {place}; give them in two calls with two --out"
            )
        seen[place] = sound
    check_apart(list(seen), list(seen))
    if out is not None:
        check_free(out, [RECORD, REPORT, *map(str, seen)], overwrite)


def _write(folder: Path, heard: Heard, overwrite: bool) -> None:
    """Write all files of a sound, or none."""
    waves = dict(zip(WAVES, (heard.original, heard.ceiling, heard.recon), strict=True))
    with atomic(folder, overwrite) as temporary:
        temporary.mkdir()
        for name, samples in waves.items():
            wavfile.write(temporary / f"{name}.wav", MEL.rate, (samples.T.clip(-1, 1) * 32767).round().astype("int16"))
        sheet(heard.image, heard.recon_image).save(temporary / PICTURE)


def _means(files: Sequence[HeardFile]) -> dict[str, SoundMeans]:
    """Means by class, where there are several, and over all sounds."""
    labels = np.array([Path(file.source).parent.name for file in files])
    values = {name: np.array([getattr(file.figures, name) for file in files]) for name in FIGURES}
    found: dict[str, SoundMeans] = {}
    classes = sorted(set(labels.tolist()))
    for label in classes if len(classes) > 1 else ():
        mine = labels == label
        found[label] = SoundMeans(int(mine.sum()), {name: float(each[mine].mean()) for name, each in values.items()})
    finite = {name: each[np.isfinite(each)] for name, each in values.items()}
    intervals = {name: bootstrap(each) if len(each) else None for name, each in finite.items()}
    means = {name: None if each is None else each.value for name, each in intervals.items()}
    return found | {"all": SoundMeans(len(files), means, intervals)}
