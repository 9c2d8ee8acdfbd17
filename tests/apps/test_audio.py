"""Sound: spectrograms as a source, the way back, and an autoencoder in between."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

import vaeworks as vw
from vaeworks.apps.audio import Heard, audible, griffin_lim, listen, magnitudes, sheet
from vaeworks.apps.audio.hear import log_mel_distance, spectral_convergence
from vaeworks.cli import main
from vaeworks.data import Crops, scan
from vaeworks.data.image_ref import open_place
from vaeworks.data.labels import find_labels
from vaeworks.data.sources.sound import read_sound, sounds
from vaeworks.data.spectrogram import (
    MEL,
    NOTE,
    columns_of,
    edges,
    filters,
    from_pixels,
    hertz_to_mel,
    istft,
    levels,
    mel_to_hertz,
    spectrogram,
    stft,
)
from vaeworks.data.synthetic.synthesis import CLASSES, LENGTH, panned, position, sound
from vaeworks.errors import ConfigError, DataError, MissingExtraError
from vaeworks.images import image_size, square, to_pillow, to_uint8
from vaeworks.recipes import recipe
from vaeworks.training.run.folder import split_data

BIN = MEL.rate / MEL.window


def sine(hertz: float, length: int = 16_000, rate: int = MEL.rate, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * math.pi * hertz * np.arange(length) / rate)


def peaks(samples: np.ndarray, count: int) -> list[float]:
    """The strongest frequencies in Hz, at least 40 Hz from each other."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 4 * len(samples)))
    hertz, found = np.arange(len(power)) * MEL.rate / (4 * len(samples)), []
    for _ in range(count):
        found.append(float(hertz[power.argmax()]))
        power[abs(hertz - found[-1]) < 40] = 0
    return sorted(found)


def save(path: Path, samples: np.ndarray, rate: int = MEL.rate) -> Path:
    wavfile.write(path, rate, (samples * 32767).round().astype(np.int16))
    return path


@pytest.fixture(scope="module")
def codec() -> vw.Codec:
    torch.manual_seed(0)
    return vw.Codec(vw.build(recipe("audio-mel-tiny").model))


def test_mel_scale() -> None:
    """Slaney's: 15 mel at 1 kHz, 27 more at 6.4 kHz, linear below and logarithmic above."""
    assert hertz_to_mel(np.array([0.0, 200, 1000, 6400])) == pytest.approx([0, 3, 15, 42])
    hertz = np.geomspace(20, 8000, 50)
    assert mel_to_hertz(hertz_to_mel(hertz)) == pytest.approx(hertz)
    assert np.allclose(np.diff(edges()[:42]), np.diff(edges()[:2]))  # equal steps up to 1 kHz
    assert edges()[44:] / edges()[43:-1] == pytest.approx(edges()[-1] / edges()[-2])  # equal ratios above


def test_mel_filters() -> None:
    """Triangles of area 1, the first by hand; noise of one density has one level."""
    step = float(hertz_to_mel(np.array(8000.0))) / 129 * 200 / 3  # Hz between edges below 1 kHz
    wanted = [max(0.0, min(k * BIN, 2 * step - k * BIN)) / step**2 for k in range(8)]
    assert filters()[0, :8].numpy() == pytest.approx(wanted)
    areas = filters().sum(1) * BIN
    assert areas[60:].numpy() == pytest.approx(1, abs=0.03)  # wide ones
    assert areas.mean() == pytest.approx(1, abs=0.01)
    low, peak, high = edges()[100:103]
    assert filters()[100].max() == pytest.approx(2 / (high - low), rel=0.1)
    assert abs(int(filters()[100].argmax()) * BIN - peak) <= BIN


def test_scale_of_levels() -> None:
    """A sine's level is its amplitude's square times its band's weights; half the amplitude is 6.02 dB less."""
    hertz = 64 * BIN
    spectrum = stft(torch.from_numpy(sine(hertz, amplitude=1.0)))[:, 30].abs()
    assert spectrum[63:66].numpy() == pytest.approx([0.5, 1, 0.5], abs=1e-3)  # a Hann window's main lobe
    loud, soft = (levels(sine(hertz, amplitude=a))[:, 30].max() for a in (0.8, 0.4))
    assert loud - soft == pytest.approx(20 * math.log10(2), abs=1e-6)
    weights = filters()[:, 63:66] @ torch.tensor([0.25, 1, 0.25], dtype=torch.float64)
    assert loud == pytest.approx(10 * math.log10(0.64 * float(weights.max())), abs=0.01)


def test_quantization() -> None:
    """Pixels are half a step from their levels at most, and the loudest samples there are do not reach the last one."""
    exact = levels(sound(6, 0))
    image = spectrogram(sound(6, 0))
    assert (from_pixels(image) - exact).abs().max() <= MEL.step / 2 + 1e-9
    assert image.shape == (1, 128, 128)
    assert image[0, -1].float().mean() != image[0, 0].float().mean()
    assert spectrogram(sine(100))[0, :, 30].argmax() > 110  # low at the bottom
    loudest = max(float(levels(np.sign(sine(hertz))).max()) for hertz in np.linspace(10, 200, 20))
    assert -13 < loudest < -9 < MEL.floor + 255 * MEL.step


@pytest.mark.parametrize("length", [1, 255, 256, 5000])
def test_the_spectrum_inverts(length: int) -> None:
    """Sounds of any length come back from their spectrum."""
    samples = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, length))
    spectrum = stft(samples)
    assert spectrum.shape == (513, columns_of(length))
    assert torch.allclose(istft(spectrum, length), samples)


@pytest.mark.parametrize("hertz", [110.0, 440.0, 1000.0])
def test_a_sine_comes_back(hertz: float) -> None:
    """Its frequency within a bin, its strength within half a decibel."""
    samples = sine(hertz)
    back = audible(spectrogram(samples), len(samples))
    assert len(back) == len(samples)
    assert peaks(back, 1)[0] == pytest.approx(hertz, abs=BIN)
    assert 10 * math.log10(np.mean(back**2) / np.mean(samples**2)) == pytest.approx(0, abs=0.5)


def test_a_high_sine_comes_back() -> None:
    """Above 1 kHz bands are wider than bins, and say no more than the band."""
    low, high = edges()[np.searchsorted(edges(), 5000) + np.array([-1, 0])]
    assert high - low > 5 * BIN
    assert peaks(audible(spectrogram(sine(5000)), 16_000), 1)[0] == pytest.approx(5000, abs=high - low)


def test_a_chord_comes_back() -> None:
    notes = [220.0, 277.2, 329.6]
    back = audible(spectrogram(sum(sine(note, amplitude=0.3) for note in notes)), 16_000)
    assert peaks(back, 3) == pytest.approx(notes, abs=BIN)


def test_bands_come_back() -> None:
    """The spectrum that is found has the bands that were asked for: as good as scipy's non-negative least squares, in
    power."""
    wanted = levels(sound(2, 0))[:, 40:60]
    found = filters() @ magnitudes(wanted).double().square()
    loud = wanted > wanted.max() - 40
    assert (10 * found.log10() - wanted)[loud].abs().mean() < 0.5


def test_griffin_lim_converges() -> None:
    """More iterations, a spectrum that fits better; nothing depends on anything but the seed."""
    samples = torch.from_numpy(sound(0, 0)).float()
    aim = stft(samples).abs()

    def misfit(iterations: int) -> float:
        return float((stft(griffin_lim(aim, len(samples), iterations=iterations)).abs() - aim).norm() / aim.norm())

    assert misfit(32) < 0.5 * misfit(2)
    first, again, other = (griffin_lim(aim, len(samples), iterations=2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(ConfigError, match="columns"):
        griffin_lim(aim, 100)


def test_silence() -> None:
    """Silence is black, and black is silent."""
    image = spectrogram(np.zeros(5000))
    assert not image.any()
    assert not audible(image, 5000).any()
    assert math.isnan(spectral_convergence(np.zeros(5000), np.zeros(5000)))


def test_figures() -> None:
    """Distances whose values are known."""
    samples = sine(440)
    assert spectral_convergence(samples, samples) == 0
    assert spectral_convergence(samples, 0 * samples) == pytest.approx(1)
    assert spectral_convergence(samples, -0.5 * samples) == pytest.approx(0.5)  # the phase does not count
    image = torch.full((1, 128, 10), 100, dtype=torch.uint8)
    assert log_mel_distance(image, image + 10) == pytest.approx(4.0)


def test_files(tmp_path: Path) -> None:
    """Folders are labels; stereo is mixed, other rates are resampled, short ones filled with silence; scan names the
    broken."""
    for name in ("high", "low"):
        (tmp_path / name).mkdir()
    rate = 44_100
    tone = sine(1000, rate, rate)
    save(tmp_path / "high" / "a.wav", np.stack([tone, -0.5 * tone], axis=1), rate)
    save(tmp_path / "high" / "b.wav", sine(1000, 40_000))
    save(tmp_path / "low" / "c.wav", sine(200, 700))
    save(tmp_path / "low" / "d.wav", sine(200, 0))
    save(tmp_path / "low" / "e.wav", sine(200))
    (tmp_path / "low" / "f.wav").write_bytes((tmp_path / "low" / "e.wav").read_bytes()[:30])
    (tmp_path / "low" / "g.wav").write_text("no sound")
    images = scan(f"sound:{tmp_path}")
    assert [(file.path.stem, file.width, file.height) for file in images.files] == [
        ("a", 128, 128),
        ("b", columns_of(40_000), 128),
        ("c", 128, 128),
        ("e", 128, 128),
    ]
    assert find_labels(images.files) == ("high", "high", "low", "low")
    assert {Path(name).stem: reason for name, reason in images.skipped}.keys() == {"d", "f", "g"}
    assert all("\n" not in reason for _, reason in images.skipped)
    mixed = read_sound(tmp_path / "high" / "a.wav")
    assert len(mixed) == MEL.rate
    assert mixed[1000:-1000] == pytest.approx(0.25 * sine(1000)[1000:-1000], abs=1e-3)
    short = np.asarray(Image.open(io.BytesIO(images.files[2].path.read_bytes())))
    assert short[:, : columns_of(700)].any()
    assert not short[:, columns_of(700) :].any()


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float32"])
def test_wav_of_every_kind(tmp_path: Path, kind: str) -> None:
    samples = sine(300, 1000)
    scale = {"uint8": 127, "int16": 2**15 - 1, "int32": 2**31 - 1, "float32": 1}[kind]
    wavfile.write(tmp_path / "a.wav", MEL.rate, (samples * scale + (128 if kind == "uint8" else 0)).astype(kind))
    assert read_sound(tmp_path / "a.wav") == pytest.approx(samples, abs=0.02 if kind == "uint8" else 1e-4)


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3"])
def test_other_files(tmp_path: Path, ending: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / f"a.{ending}", sine(440), MEL.rate)
    (file,) = scan(f"sound:{tmp_path}").files
    assert peaks(file.path.samples(), 1)[0] == pytest.approx(440, abs=2)
    (tmp_path / f"b.{ending}").write_bytes(b"no sound")
    assert "not a sound" in scan(f"sound:{tmp_path}").skipped[0][1]


def test_other_files_need_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    save(tmp_path / "a.wav", sine(440))
    assert len(sounds(str(tmp_path))) == 1
    (tmp_path / "b.flac").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"vaeworks\[audio\]"):
        sounds(str(tmp_path))


def test_made_sounds() -> None:
    """Labelled, different, reproducible, independent of how many there are; the PNG says how it was made."""
    images = scan("sound:made:16:5")
    assert find_labels(images.files) == CLASSES * 2
    assert len({file.digest for file in images.files}) == 16
    assert [f.digest for f in scan("sound:made:8:5").files] == [f.digest for f in images.files[:8]]
    assert images.files[0].digest != scan("sound:made:1:6").files[0].digest
    assert peaks(sound(0, 5), 1) != peaks(sound(0, 6), 1)  # another pitch, not only another hiss
    note = json.loads(Image.open(io.BytesIO(images.files[0].path.read_bytes())).info[NOTE])
    assert note == dataclasses.asdict(MEL)
    for index in range(8):
        samples = sound(index, 5)
        assert samples.shape == (LENGTH,)
        assert 0.02 < abs(samples).max() <= 1


@pytest.mark.parametrize("source", ["made:", "made:0", "made:x", "made:1:2:3", "nowhere"])
def test_no_such_source(source: str) -> None:
    with pytest.raises(DataError, match=r"write sound:made|give a file"):
        scan(f"sound:{source}")


def test_segments(tmp_path: Path) -> None:
    """Pieces side by side are the whole picture; what cannot be read is named."""
    save(tmp_path / "a.wav", sound(1, 0)[:20_000].repeat(3))
    (tmp_path / "b.wav").write_text("no sound")
    (whole,) = scan(f"sound:{tmp_path}").files
    pieces = scan(f"segments:{tmp_path}")
    assert [name for name, _ in pieces.skipped] == [str(tmp_path / "b.wav")]
    assert {(f.width, f.height) for f in pieces.files} == {(128, 128)}
    joined = np.concatenate([np.asarray(Image.open(io.BytesIO(f.path.read_bytes()))) for f in pieces.files], axis=1)
    assert (joined[:, : whole.width] == np.asarray(Image.open(io.BytesIO(whole.path.read_bytes())))).all()
    assert not joined[:, whole.width :].any()


def test_crops_keep_pitch_and_time(tmp_path: Path) -> None:
    """What the recipe trains on are columns of the picture, as they are."""
    save(tmp_path / "a.wav", np.concatenate([sound(k, 0) for k in range(3)]))
    files = scan(f"sound:{tmp_path}").files
    whole = spectrogram(files[0].path.samples())
    crops = Crops(files, recipe("audio-mel").data, seed=0, channels=1)
    starts = set()
    for counter in range(6):
        crop = crops[counter][0]
        found = [i for i in range(whole.shape[-1] - 127) if torch.equal(whole[..., i : i + 128], crop)]
        assert found
        starts.add(found[0])
    assert len(starts) > 3


def test_listen(codec: vw.Codec) -> None:
    """Any length; the ceiling is the way back alone; a perfect reconstruction would have distance 0 and sound like the
    ceiling."""
    samples = sound(7, 0)[:9000]
    heard = listen(codec, samples, iterations=4)
    assert heard.image.shape == heard.recon_image.shape == (1, 128, columns_of(9000))
    assert len(heard.ceiling) == len(heard.recon) == 9000
    assert heard.ceiling == pytest.approx(audible(heard.image, 9000, iterations=4))
    assert heard.figures.log_mel == log_mel_distance(heard.image, heard.recon_image) > heard.figures.log_mel_ceiling
    assert heard.figures.convergence_heard > heard.figures.convergence_ceiling
    again = listen(codec, samples, iterations=4)
    assert (again.recon == heard.recon).all()
    assert again.figures == heard.figures


def test_listen_through_colour(codec: vw.Codec) -> None:
    """A VAE of RGB images hears gray."""
    config = dataclasses.replace(recipe("audio-mel-tiny").model, in_channels=3, out_channels=3)
    assert isinstance(listen(vw.Codec(vw.build(config)), sound(0, 0)[:600], iterations=1), Heard)


def test_sheet() -> None:
    """Three panels with the pictures' own pixels."""
    image = spectrogram(sound(2, 0))
    drawn = np.asarray(sheet(image, image))
    assert (drawn[18 : 18 + 256 : 2, 60 : 60 + 256 : 2] == image[0].numpy()).all()
    assert not drawn[2 * 296 + 18 : 2 * 296 + 18 + 256, 60 : 60 + 256].any()


def test_command(codec: vw.Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files for every sound, figures by class; what is broken is named; nothing is written over."""
    vw.save(codec.autoencoder, tmp_path / "vae.safetensors", layout="native")
    (tmp_path / "in" / "one").mkdir(parents=True)
    (tmp_path / "in" / "two").mkdir()
    save(tmp_path / "in" / "one" / "a.wav", sine(440, 3000))
    save(tmp_path / "in" / "two" / "a.wav", np.zeros(3000))
    (tmp_path / "in" / "two" / "b.wav").write_text("no sound")
    words = [
        "listen",
        str(tmp_path / "vae.safetensors"),
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
        "--iterations",
        "2",
    ]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"].keys() == {"one", "two", "all"}
    assert told["classes"]["two"]["convergence_heard"] is None
    assert told["classes"]["all"]["sounds"] == 2
    assert len(told["skipped"]) == 1
    folder = tmp_path / "out" / "one" / "a"
    assert {path.stem for path in folder.iterdir()} == {
        "original",
        "original-griffin-lim",
        "reconstruction",
        "spectrograms",
    }
    rate, samples = wavfile.read(folder / "original.wav")
    assert rate == MEL.rate
    assert samples / 32767 == pytest.approx(sine(440, 3000), abs=1e-4)
    assert not wavfile.read(tmp_path / "out" / "two" / "a" / "original-griffin-lim.wav")[1].any()
    assert main(words) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*words[:2], str(tmp_path / "in" / "two" / "b.wav"), "--out", str(tmp_path / "none")]) == 2
    assert "not a WAV" in capsys.readouterr().err
    assert not any((tmp_path / "none").glob("**/*.wav"))


def test_stereo_keeps_both_sides(tmp_path: Path) -> None:
    """Left and right of a file, as they are; of a mono file both are it; files of more channels are named."""
    left, right = sine(300), sine(2000, amplitude=0.1)
    save(tmp_path / "a.wav", np.stack([left, right], axis=1))
    save(tmp_path / "b.wav", left)
    save(tmp_path / "c.wav", np.stack([left] * 6, axis=1))
    save(tmp_path / "d.wav", np.stack([sine(300, 44_100, 44_100), sine(2000, 44_100, 44_100, 0.1)], axis=1), 44_100)
    images = scan(f"stereo:{tmp_path}")
    assert [(Path(name).stem, reason) for name, reason in images.skipped] == [("c", "6 channels; stereo has 2")]
    pair, mono, resampled = (to_uint8(open_place(file.path, 2)) for file in images.files)
    for channel, samples in zip(pair, (left, right), strict=True):
        assert torch.equal(channel[None, :, : columns_of(16_000)], spectrogram((samples * 32767).round() / 32768))
    assert torch.equal(mono[0], mono[1])
    assert torch.equal(mono[0], pair[0])
    middle = slice(20, 40)
    assert (resampled[..., middle].int() - pair[..., middle].int())[
        :, pair[..., middle].amax((0, 2)) > 150
    ].abs().max() <= 2
    colour = to_uint8(open_place(images.files[0].path, 3))
    assert torch.equal(colour, pair[[0, 1, 0]])  # a VAE of colour pictures sees both


@pytest.mark.parametrize("index", range(8))
def test_panning_survives(index: int) -> None:
    """The difference in level between both sides is the panning law's, in every band that either side has above the
    floor."""
    (file,) = scan(f"stereo:made:{index + 1}:3").files[index:]
    image = to_uint8(open_place(file.path, 2))
    at = position(index, 3)
    wanted = -20 * math.log10(math.tan(at * math.pi / 2))
    left, right = (from_pixels(channel[None]) for channel in image)
    heard = (left > MEL.floor) & (right > MEL.floor)
    assert heard.float().mean() > 0.05
    assert (left - right - wanted)[heard].abs().max() <= MEL.step + 1e-9  # half a step of rounding on each side
    power = (10 ** (left / 10) + 10 ** (right / 10))[heard].log10() * 10
    assert (power - from_pixels(spectrogram(sound(index, 3)))[heard]).abs().max() <= MEL.step + 1e-9  # cos² + sin² = 1


def test_positions() -> None:
    """Spread evenly over the stage, of a seed, and of nothing else."""
    found = np.array([position(k, 0) for k in range(400)])
    assert 0.05 <= found.min() < 0.1
    assert 0.9 < found.max() <= 0.95
    assert found.mean() == pytest.approx(0.5, abs=0.04)
    assert position(7, 0) == found[7] != position(7, 1)


def test_two_channels_are_told_from_others(tmp_path: Path) -> None:
    """A model of one channel, or of two, gets pictures of so many, or one line before there is a folder."""
    save(tmp_path / "a.wav", sine(440))
    stereo, mono = (scan(f"{kind}:{tmp_path}").files[0].path for kind in ("stereo", "sound"))
    with pytest.raises(DataError, match="take sound:SRC"):
        open_place(stereo, 1)
    with pytest.raises(DataError, match="take stereo:SRC"):
        open_place(mono, 2)
    config = recipe("audio-mel-tiny")
    for channels, source in ((1, "stereo:made:4"), (2, "sound:made:4"), (2, "stream:hf:a/b")):
        model = dataclasses.replace(config.model, in_channels=channels, out_channels=channels)
        with pytest.raises(DataError, match="channels"):
            split_data(dataclasses.replace(config, model=model), source, tmp_path / "run")


def test_stereo_crops() -> None:
    """Crops are both channels' columns, as they are: neither weighs the other, even where one is silent; shrunk ones
    are each shrunk."""
    files = scan("stereo:made:2:1").files
    pictures = {file.path.stem: to_uint8(open_place(file.path, 2)) for file in files}
    crops = Crops(files, recipe("audio-mel").data, seed=0, channels=2)
    assert {
        next(stem for stem, whole in pictures.items() if torch.equal(whole, crops[k][0])) for k in range(2)
    } == pictures.keys()
    silent = torch.stack([pictures["1-000000"][0], torch.zeros(128, 128, dtype=torch.uint8)])
    planes = [to_pillow(channel[None]) for channel in silent]
    small = square(Image.merge("La", planes), 32)
    assert torch.equal(small, torch.cat([square(plane, 32) for plane in planes]))


@pytest.fixture(scope="module")
def stereo() -> vw.Codec:
    torch.manual_seed(0)
    return vw.Codec(vw.build(dataclasses.replace(recipe("audio-mel-tiny").model, in_channels=2, out_channels=2)))


def test_listen_in_stereo(stereo: vw.Codec, codec: vw.Codec) -> None:
    """Both sides come back, each from its own picture and both from one phase: what is equal sounds equal."""
    samples = panned(sound(7, 0)[8000:12000], 0.2)
    heard = listen(stereo, samples, iterations=4)
    assert heard.image.shape == heard.recon_image.shape == (2, 128, columns_of(4000))
    assert heard.original.shape == heard.ceiling.shape == heard.recon.shape == (2, 4000)
    for side in range(2):
        assert (heard.ceiling[side] == audible(heard.image[side : side + 1], 4000, iterations=4)).all()
        assert (heard.recon[side] == audible(heard.recon_image[side : side + 1], 4000, iterations=4)).all()
    left, right = np.square(heard.ceiling).mean(1)
    assert 10 * math.log10(left / right) == pytest.approx(-20 * math.log10(math.tan(0.1 * math.pi)), abs=0.5)
    equal, mono = listen(stereo, samples[0], iterations=4), listen(codec, samples[0], iterations=4)
    assert (equal.ceiling == mono.ceiling).all()
    assert equal.figures.log_mel_ceiling == pytest.approx(mono.figures.log_mel_ceiling)
    assert equal.figures.log_mel_down_up == pytest.approx(mono.figures.log_mel_down_up)
    assert equal.figures.convergence_ceiling == pytest.approx(mono.figures.convergence_ceiling)
    with pytest.raises(ConfigError, match="mean of both sides"):
        listen(codec, samples)


def test_stereo_sheet() -> None:
    """Six panels, left above right, each with its own pixels."""
    image = spectrogram(panned(sound(2, 0), 0.1))
    drawn = np.asarray(sheet(image, image.flip(0)))
    panels = [drawn[k * 296 + 18 : k * 296 + 18 + 256 : 2, 60 : 60 + 256 : 2] for k in range(6)]
    for panel, channel in zip(panels, (image[0], image[1], image[1], image[0]), strict=False):
        assert (panel == channel.numpy()).all()
    assert (panels[4] == panels[5]).all()
    assert panels[4].any()


def test_stereo_commands(stereo: vw.Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained on stereo, heard in stereo; what eval and encode cannot do with two channels is a line, and no file."""
    run, out = tmp_path / "run", tmp_path / "out"
    words = [
        "train",
        "audio-mel-tiny",
        "--data",
        "stereo:made:12",
        "--out",
        str(run),
        "--images",
        "8",
        "--data.workers",
        "0",
    ]
    assert main([*words, "--model.in-channels", "2", "--model.out-channels", "2", "--data.val-fraction", "0.3"]) == 0
    assert main(["listen", str(run), "made:1:0", "made:1:1", "--out", str(out), "--iterations", "1"]) == 0
    for seed in range(2):
        folder = out / CLASSES[0] / f"{seed}-000000"
        for name in ("original", "original-griffin-lim", "reconstruction"):
            assert wavfile.read(folder / f"{name}.wav")[1].shape == (LENGTH, 2)
        written = wavfile.read(folder / "original.wav")[1].T / 32767
        assert written == pytest.approx(panned(sound(0, seed), position(0, seed)), abs=1e-4)
        assert image_size((folder / "spectrograms.png").read_bytes())[1] == 6 * 296
    capsys.readouterr()
    for refused in (["eval", "--data"], ["encode"]):
        place = tmp_path / "none"
        last = ["--size", "128"] if refused == ["encode"] else []
        assert main([refused[0], str(run), *refused[1:], "stereo:made:4", "--out", str(place), *last]) == 2
        said = capsys.readouterr().err
        assert "2 channels" in said and re.search(r"1( \(gray\))? or 3", said)
        assert not place.exists()
