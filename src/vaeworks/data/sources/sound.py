"""Sounds as a source of images: spectrograms of sound files, or of sounds made by formulas.

    sound:SRC                       SRC: a file or folder tree of wav, flac, ogg, mp3; an image for each sound, as long
                                    as the sound
    sound:made[:COUNT[:SEED]]       labelled sounds by formulas, of 2 s; by default 2,000 of seed 0
    segments:SRC                    the same SRC in images of 128 columns (2 s), side by side
    stereo:SRC                      the same SRC in images of two channels, left and right, as long as the sounds

A sound shorter than 128 columns is followed by silence. The mean of several channels is used, except in stereo, where a
mono sound is both channels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError, MissingExtraError
from ...images import PAIR, quiet, regular_file
from ..spectrogram import MEL, NOTE, spectrogram
from ..synthetic.procedural import png
from .folder import files_below

SOUND, SEGMENTS, STEREO, MADE = "sound:", "segments:", "stereo:", "made"
"""Beginnings of sources of sounds, segments of sounds and stereo sounds; the name of made sounds."""

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""File name endings that count as sounds."""

FORM = f"{SOUND}{MADE}[:COUNT[:SEED]], such as {SOUND}{MADE}:2000:0"

MOST = 1_000_000
"""Most made sounds of a source; their names have six digits."""

MOST_SAMPLES = 2**26
"""Most samples of a file, over all channels: 25 minutes of one channel at 44,100 per second."""

RATES = 1_000, 768_000
"""Samples per second: with other rates, a file of a few bytes would need a filter or a sound of gigabytes."""

LEAST = 128
"""Fewest columns of an image, and the columns of a segment."""


@dataclass(frozen=True, slots=True)
class SoundFile:
    """The spectrogram of a sound file, as an image reference."""

    path: Path
    channels: int = 1
    """1, or 2 for left and right"""

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    def samples(self) -> NDArray[np.float64]:
        """The sound: samples n, or 2 n, MEL.rate per second. Errors: DataError."""
        return read_sound(self.path, self.channels)

    def read_bytes(self) -> bytes:
        """The spectrogram as a PNG with its parameters. Errors: DataError."""
        return _encoded(picture(self.samples()))

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class MadeSound:
    """The spectrogram of a made sound, number `index` of a seed, as an image reference."""

    index: int
    seed: int = 0
    channels: int = 1
    """1, or 2 for left and right"""

    @property
    def stem(self) -> str:
        """The sound's seed and number."""
        return f"{self.seed}-{self.index:06d}"

    def samples(self) -> NDArray[np.float64]:
        """The sound: samples n, or 2 n, MEL.rate per second. Two channels are panned with constant power to the sound's
        `position`."""
        from ..synthetic.synthesis import panned, position  # it needs scipy.signal, which is slow to import
        from ..synthetic.synthesis import sound as synthesized

        samples = synthesized(self.index, self.seed)
        return panned(samples, position(self.index, self.seed)) if self.channels == 2 else samples

    def read_bytes(self) -> bytes:
        """The spectrogram as a PNG with its parameters."""
        return _encoded(picture(self.samples()))

    def __str__(self) -> str:
        from ..synthetic.synthesis import CLASSES

        return f"{MADE}/{CLASSES[self.index % len(CLASSES)]}/{self.stem}.wav"


Sound = SoundFile | MadeSound


@dataclass(frozen=True, slots=True)
class Segment:
    """LEAST columns of a sound's spectrogram, as an image reference."""

    of: Sound
    start: int
    """number of its first column"""

    @property
    def stem(self) -> str:
        """Name of the sound, and the first column."""
        return f"{self.of.stem}-{self.start:06d}"

    def read_bytes(self) -> bytes:
        """The spectrogram as a PNG with its parameters. Errors: DataError."""
        return _encoded(_filled(_whole(self.of)[..., self.start : self.start + LEAST]))

    def __str__(self) -> str:
        return str(Path(str(self.of)).with_name(f"{self.stem}.png"))


def sounds(source: str, channels: int = 1) -> list[Sound]:
    """The sounds of a source, without its first word: a file, a folder tree, or made[:COUNT[:SEED]].

    channels: 1, or 2 for left and right.
    Errors: DataError where there are none; MissingExtraError for other files than wav without soundfile.
    """
    if source.partition(":")[0] == MADE:
        return list(_made(source, channels))
    root = Path(source).expanduser()
    if not root.exists():
        raise DataError(f"sound {source!r} does not exist; give a file or folder of sounds, or {FORM}")
    paths = [root] if root.is_file() else files_below(root, SUFFIXES)
    if not paths:
        raise DataError(f"no sound in {source!r}; looked for {' '.join(SUFFIXES)} in all its subfolders")
    if any(path.suffix.lower() != ".wav" for path in paths):
        _soundfile()
    return [SoundFile(path, channels) for path in paths]


def segments(source: str) -> tuple[list[Segment], list[tuple[str, str]]]:
    """All segments of a source's sounds, and (name, reason) of sounds that cannot be read. It reads every sound."""
    found: list[Segment] = []
    skipped = []
    for sound in sounds(source):
        try:
            found += [Segment(sound, start) for start in range(0, _whole(sound).shape[-1], LEAST)]
        except DataError as error:
            skipped.append((str(sound), str(error)))
    if not found:
        raise DataError(f"no sound of {source!r} can be read; the first: {skipped[0][0]}: {skipped[0][1]}")
    return found, skipped


def read_sound(path: Path, channels: int = 1) -> NDArray[np.float64]:
    """Read a file's samples in [-1,1], resampled to MEL.rate: n, the mean of its channels, or with `channels` = 2 left
    and right, 2 n.

    The channel of a mono file is both. scipy reads WAV, soundfile everything else.
    Errors: DataError, with the reason in a few words; MissingExtraError without soundfile.
    """
    values, rate = _wav(path) if path.suffix.lower() == ".wav" else _any(path)
    if not values.size:
        raise DataError("no samples")
    values = values.reshape(len(values), -1)
    if channels == 2 and values.shape[1] > 2:
        raise DataError(f"{values.shape[1]} channels; stereo has 2")
    samples = values.mean(1) if channels == 1 else values.T.repeat(2 // values.shape[1], axis=0)
    if not np.isfinite(samples).all():
        raise DataError("samples that are not finite")
    return _resampled(samples, rate)


def picture(samples: NDArray[np.float64]) -> Tensor:
    """The spectrogram, uint8 c bands columns, with silence behind a short sound."""
    return _filled(spectrogram(samples))


def _filled(image: Tensor) -> Tensor:
    return F.pad(image, (0, max(0, LEAST - image.shape[-1])))  # pixel 0 is silence


def _encoded(image: Tensor) -> bytes:
    if len(image) == 2:
        return png(image[[0, 1, 0]].permute(1, 2, 0).numpy(), (NOTE, MEL.note), (PAIR, "left, right"))
    return png(image[0].numpy(), (NOTE, MEL.note))


@lru_cache(maxsize=4)
def _whole(sound: Sound) -> Tensor:
    """A sound's spectrogram, cached for its next segment."""
    return picture(sound.samples())


def _made(source: str, channels: int) -> list[MadeSound]:
    if not re.fullmatch(rf"{MADE}(:[0-9]{{1,19}}){{0,2}}", source):
        raise DataError(f"{source!r} is no source of made sounds; write {FORM}")
    count, seed = (
        int(number) if number else default
        for number, default in zip((source + ":::").split(":")[1:3], (2000, 0), strict=True)
    )
    for name, value, low, high in (("COUNT", count, 1, MOST), ("SEED", seed, 0, 2**63 - 1)):
        if not low <= value <= high:
            raise DataError(f"{name} (={value}) of made sounds must be {low} to {high}; write {FORM}")
    return [MadeSound(index, seed, channels) for index in range(count)]


def _wav(path: Path) -> tuple[NDArray[np.float64], int]:
    from scipy.io import wavfile

    try:
        with quiet, regular_file(path) as file:  # it warns of chunks without samples
            rate, values = wavfile.read(file)
    except DataError:
        raise
    except OSError as error:
        raise DataError(error.strerror or str(error)) from None
    except Exception as error:  # a torn header raises errors of many kinds
        raise DataError(
            f"not a WAV file that scipy reads: {' '.join(str(error).split()) or type(error).__name__}"
        ) from None
    _check_size(values.size)
    if values.dtype == np.uint8:
        return (values.astype(np.float64) - 128) / 128, rate
    scale = 1.0 if values.dtype.kind == "f" else 2.0 ** (8 * values.dtype.itemsize - 1)
    return values.astype(np.float64) / scale, rate


def _any(path: Path) -> tuple[NDArray[np.float64], int]:
    soundfile = _soundfile()
    try:
        regular_file(path).close()
        facts = soundfile.info(path)
        _check_size(facts.frames * facts.channels)
        return soundfile.read(path, dtype="float64")
    except DataError:
        raise
    except soundfile.LibsndfileError as error:
        raise DataError(f"not a sound that soundfile reads: {error.error_string}") from None
    except OSError as error:
        raise DataError(error.strerror or str(error)) from None
    except Exception as error:  # a torn header raises errors of many kinds
        raise DataError(
            f"not a sound that soundfile reads: {' '.join(str(error).split()) or type(error).__name__}"
        ) from None


def _check_size(samples: int) -> None:
    if samples > MOST_SAMPLES:
        raise DataError(
            f"{samples:,} samples of all channels, more than the {MOST_SAMPLES:,} that are read at once; cut it into "
            "pieces"
        )


def _soundfile():  # type: ignore[no-untyped-def]  # a module
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: its C library is missing
        raise MissingExtraError("soundfile", "audio", "reading other sounds than WAV") from None
    return soundfile


def _resampled(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    if rate == MEL.rate:
        return samples
    from scipy.signal import resample_poly

    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"{rate:,} samples a second; sounds have {RATES[0]:,} to {RATES[1]:,}")
    common = gcd(rate, MEL.rate)
    return resample_poly(samples, MEL.rate // common, rate // common, axis=-1)
