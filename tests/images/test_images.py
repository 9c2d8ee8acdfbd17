"""Reading files of every kind as the eye sees them, and the changes of range and size, each with its inverse."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vaeworks as vw
from vaeworks import images as im


def colours(height: int = 4, width: int = 6, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random uint8 pixels, h w c (h w for one channel)."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source: bytes | Path, channels: int = 3) -> np.ndarray:
    image = im.open_image(source, channels)
    assert image.mode == ("L" if channels == 1 else "RGB")
    return np.asarray(image)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),  # a quarter turn clockwise
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),  # a quarter turn counter-clockwise
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(orientation: int, kind: str) -> None:
    """All eight orientations of the EXIF standard come out upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = colours()
    source = saved(Image.fromarray(stored), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(pixels(source), UPRIGHT[orientation](stored))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize(
    "exif", [b"nonsense", b"MM\x00*", b"MM\x00*\x00\x00\x00\x08\x00\x09\x01\x12"], ids=["text", "cut", "short"]
)
def test_broken_exif_does_not_hide_the_pixels(exif: bytes, kind: str) -> None:
    """Where the metadata cannot be read, the image is taken as it is stored."""
    source = saved(Image.new("RGB", (6, 4), (9, 9, 9)), kind, exif=b"Exif\x00\x00" + exif)
    assert pixels(source).shape == (4, 6, 3)


def test_sources_are_bytes_paths_and_names(tmp_path: Path) -> None:
    """Bytes, a path and a path's name give the same image, whatever the file's ending says."""
    (tmp_path / "image.jpg").write_bytes(source := saved(Image.fromarray(colours())))
    for same in (source, tmp_path / "image.jpg", str(tmp_path / "image.jpg")):
        assert np.array_equal(pixels(same), colours())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_kinds(kind: str) -> None:
    """Every lossless kind of file gives back its pixels."""
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(pixels(saved(Image.fromarray(colours()), kind, **options)), colours())


def test_jpeg_is_near() -> None:
    """A JPEG of the best quality deviates by a few grey levels only."""
    smooth = np.add.outer(np.arange(64), np.arange(48))[..., None] * np.array([1.0, 2.0, 0.5])
    stored = smooth.astype(np.uint8)
    assert (
        np.abs(pixels(saved(Image.fromarray(stored), "JPEG", quality=100, subsampling=0)).astype(int) - stored).max()
        <= 4
    )


def test_gray_and_colour_convert_into_each_other() -> None:
    """Gray becomes three equal channels; colour becomes ITU-R 601 luma where one channel is wanted."""
    gray, colour = colours(channels=1), colours()
    assert np.array_equal(pixels(saved(Image.fromarray(gray))), np.stack([gray] * 3, -1))
    assert np.array_equal(pixels(saved(Image.fromarray(gray)), channels=1), gray)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(pixels(saved(Image.fromarray(colour)), channels=1) - luma).max() <= 1


def test_palette() -> None:
    """A palette's colours come out, and its transparent entry is white."""
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert pixels(saved(image)).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    for kind in ("PNG", "GIF"):
        assert pixels(saved(image, kind, transparency=1)).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    assert pixels(saved(image, transparency=bytes([255, 0, 128]))).tolist() == [
        [[255, 0, 0], [255, 255, 255], [127, 127, 255]]
    ]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_on_white(mode: str, kind: str) -> None:
    """Transparent pixels are laid on white: alpha * colour + (1 - alpha) * 255."""
    stored = colours(channels=4 if mode == "RGBA" else 2)
    stored[0, 0, -1], stored[0, 1, -1] = 0, 255
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    actual = pixels(saved(Image.fromarray(stored), kind, **options))
    colour, alpha = stored[..., :-1].astype(float), stored[..., -1:] / 255
    assert np.abs(actual - (alpha * colour + (1 - alpha) * 255)).max() <= 1
    assert actual[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(actual[0, 1], np.broadcast_to(stored[0, 1, :-1], 3))
    assert pixels(saved(Image.fromarray(stored)), channels=1)[0, 0] == 255


def test_transparent_gray_and_colour_keys() -> None:
    """The one transparent colour of a PNG without alpha channel is white, others stay."""
    gray = Image.fromarray(np.array([[0, 7, 200]], dtype=np.uint8))
    assert pixels(saved(gray, transparency=7), channels=1).tolist() == [[0, 255, 200]]
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert pixels(saved(colour, transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_cmyk() -> None:
    """Cyan, magenta, yellow and black inks come out as light, not as inverted ink."""
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    expected = [[255, 255, 255], [0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0]]
    assert pixels(saved(cmyk(inks), "TIFF")).tolist() == [expected]
    flat = cmyk(np.broadcast_to(np.array([255, 0, 0, 0], dtype=np.uint8), (16, 16, 4)).copy())
    assert np.abs(pixels(saved(flat, "JPEG", quality=95)).astype(int) - [0, 255, 255]).max() <= 4


def cmyk(inks: np.ndarray) -> Image.Image:
    return Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled(kind: str) -> None:
    """All 65536 levels are divided by 257 and rounded, not clipped at 255."""
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.floor(levels / 257 + 0.5)
    assert np.array_equal(pixels(saved(Image.fromarray(levels), kind), channels=1), expected)
    assert np.array_equal(pixels(saved(Image.fromarray(levels), kind)), np.stack([expected] * 3, -1))


def test_big_endian_sixteen_bit_gray() -> None:
    """A TIFF of the other byte order has the same grey levels."""
    levels = np.array([[0, 257, 25700, 65535]], dtype=">u2")
    image = Image.frombytes("I;16B", (4, 1), levels.tobytes())
    assert pixels(saved(image, "TIFF"), channels=1).tolist() == [[0, 1, 100, 255]]


def test_one_bit() -> None:
    """Bits are black and white."""
    bits = np.array([[True, False, True]])
    assert pixels(saved(Image.fromarray(bits)), channels=1).tolist() == [[255, 0, 255]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind: str) -> None:
    """Of several frames the first one is read."""
    frames = [Image.new("RGB", (5, 3), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    source = saved(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    with Image.open(io.BytesIO(source)) as check:
        assert check.n_frames == 3
    assert np.array_equal(pixels(source), np.broadcast_to([255, 0, 0], (3, 5, 3)))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    """A file whose end is missing is a DataError in one line, not half an image."""
    source = saved(Image.fromarray(colours(64, 64)), kind)
    with pytest.raises(vw.DataError, match=r"^[^\n]+$"):
        im.open_image(source[: int(len(source) * share)])


def float_tiff() -> bytes:
    return saved(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF")


def deep_tiff() -> bytes:
    return saved(Image.fromarray(np.full((2, 2), 70_000, dtype=np.int32)), "TIFF")


@pytest.mark.parametrize(
    ("source", "reason"),
    [(b"hello", "not an image"), (b"", "not an image"), (float_tiff(), "floating-point"), (deep_tiff(), "65535")],
    ids=["text", "empty", "floats", "deep"],
)
def test_what_is_no_image_of_known_range_is_refused(source: bytes, reason: str) -> None:
    """Text, nothing, floats and integers beyond 16 bits are a DataError in one line that says so."""
    with pytest.raises(vw.DataError, match=reason) as caught:
        im.open_image(source)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A path without a file is a DataError too, not a stack of Pillow's."""
    with pytest.raises(vw.DataError, match="No such file"):
        im.open_image(tmp_path / "none.png")


def test_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """More pixels than Pillow's limit allows are a DataError; as many as it only warns of are read."""
    source = saved(Image.fromarray(colours(30, 30)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 449)  # the error starts at twice as many
    with pytest.raises(vw.DataError, match="safety limit"):
        im.open_image(source)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 450)
    assert np.array_equal(pixels(source), colours(30, 30))


@pytest.mark.parametrize("channels", [1, 3])
def test_tensors_and_pillow_are_inverse(channels: int) -> None:
    """uint8 c h w holds the same numbers as the Pillow image, which comes back from it."""
    array = colours(channels=channels)
    tensor = im.to_uint8(Image.fromarray(array))
    assert tensor.dtype == torch.uint8
    assert np.array_equal(tensor.permute(1, 2, 0).numpy().reshape(array.shape), array)
    assert np.array_equal(np.asarray(im.to_pillow(tensor)), array)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_model_range_is_exactly_inverted(dtype: torch.dtype) -> None:
    """0..255 map to -1..1 in equal steps, with no change to the input, and every value comes back."""
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    floats = im.to_model_range(values)
    assert floats.dtype == torch.float32
    assert torch.equal(values.flatten(), torch.arange(256, dtype=torch.uint8))
    expected = torch.linspace(-1, 1, 256, dtype=torch.float64).reshape_as(values)
    assert (floats.double() - expected).abs().max() < 1e-7
    assert (floats.min(), floats.max()) == (-1, 1)
    assert torch.equal(im.from_model_range(floats.to(dtype)), values)


def test_from_model_range_rounds_and_clamps() -> None:
    """Values go to the nearest of 0..255, those outside [-1,1] to the ends, and the input stays as it was."""
    floats = torch.tensor([-1e9, -3.0, -1.001, 1.001, 3.0, 1e9, 0.5 / 127.5 * 0.98 - 1, 0.5 / 127.5 * 1.02 - 1])
    before = floats.clone()
    assert im.from_model_range(floats).tolist() == [0, 0, 0, 255, 255, 255, 0, 1]
    assert torch.equal(floats, before)


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 4, 8, 16]))
def test_pad_and_crop_are_inverse(height: int, width: int, factor: int) -> None:
    """Padding gives the smallest multiples, repeats the last row and column, and cropping takes it away."""
    x = torch.rand(1, 3, height, width)
    padded = im.pad_to_multiple(x, factor)
    assert padded.shape[-2:] == (math.ceil(height / factor) * factor, math.ceil(width / factor) * factor)
    im.check_divisible(*padded.shape[-2:], factor)
    assert torch.equal(im.crop_to(padded, height, width), x)
    rows = torch.arange(padded.shape[-2]).clamp(max=height - 1)
    columns = torch.arange(padded.shape[-1]).clamp(max=width - 1)
    assert torch.equal(padded, x[..., rows, :][..., columns])


@given(st.integers(0, 50), st.integers(0, 50), st.sampled_from([1, 2, 8]))
def test_check_divisible_accepts_multiples_only(height: int, width: int, factor: int) -> None:
    """Positive multiples pass, everything else is a ConfigError whose remedy passes."""
    if height and width and height % factor == 0 and width % factor == 0:
        im.check_divisible(height, width, factor)
        return
    with pytest.raises(vw.ConfigError, match=r"pass pad=True .* up to (\d+)") as caught:
        im.check_divisible(height, width, factor)
    assert int(str(caught.value).split("up to ")[1].split(",")[0]) % factor == 0


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 8]), st.none() | st.integers(8, 50))
def test_center_crop(width: int, height: int, factor: int, limit: int | None) -> None:
    """The crop is the largest allowed one, from the middle, of the file's own pixels; too small is a DataError."""
    array = colours(height, width)
    if min(width, height) < factor:
        with pytest.raises(vw.DataError, match=f"{width}x{height}"):
            im.center_crop(Image.fromarray(array), factor, limit)
        return
    crop = np.asarray(im.center_crop(Image.fromarray(array), factor, limit))
    for side, full in zip(crop.shape[:2], (height, width), strict=True):
        allowed = min(full, limit or full)
        assert side % factor == 0
        assert 0 <= allowed - side < factor
    top, left = (height - crop.shape[0]) // 2, (width - crop.shape[1]) // 2
    assert np.array_equal(crop, array[top : top + crop.shape[0], left : left + crop.shape[1]])


def test_grid_places_every_image() -> None:
    """Images of unlike sizes and channels stand in rows and columns, with the background between them."""
    rows = [
        [torch.full((3, 2, 4), 10, dtype=torch.uint8), torch.full((1, 3, 5), 20, dtype=torch.uint8)],
        [torch.full((3, 4, 6), 30, dtype=torch.uint8)],
    ]
    sheet = im.grid(rows, gap=1, background=99)
    expected = np.full((3 + 1 + 4, 6 + 1 + 5, 3), 99)
    expected[:2, :4], expected[:3, 7:12], expected[4:8, :6] = 10, 20, 30
    assert sheet.mode == "RGB"
    assert np.array_equal(np.asarray(sheet), expected)


def test_difference_is_symmetric_and_saturates() -> None:
    """|a - b| * gain in both orders, at most 255, without the wrap-around of uint8."""
    a, b = torch.tensor([0, 10, 255, 255], dtype=torch.uint8), torch.tensor([0, 13, 0, 254], dtype=torch.uint8)
    for x, y in ((a, b), (b, a)):
        actual = im.difference(x, y, gain=4)
        assert actual.dtype == torch.uint8
        assert actual.tolist() == [0, 12, 255, 4]
