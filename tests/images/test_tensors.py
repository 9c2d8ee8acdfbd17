"""A model's images from files, Pillow, arrays and tensors; back to pictures; and errors that name the call."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import TINY_TAESD
from PIL import Image

import vaeworks as vw
from vaeworks.errors import NotFiniteError
from vaeworks.images import to_images
from vaeworks.images.tensors import open_image
from vaeworks.runtime import Codec


@pytest.fixture(scope="module")
def vae() -> vw.Autoencoder:
    torch.manual_seed(0)
    return vw.build(TINY_TAESD).eval()


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(PIXELS).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize(
    "source",
    [
        Image.fromarray(PIXELS),
        PIXELS,
        PIXELS / 255.0,
        (PIXELS / 255.0).astype(np.float32),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1)[None] / 255,
        Image.fromarray(np.dstack([PIXELS, np.full((6, 8), 255, np.uint8)])),
    ],
    ids=["PIL", "uint8", "float64", "float32", "tensor", "batch of one", "RGBA"],
)
def test_every_source_is_the_same_image(source: object) -> None:
    """float32 1 c h w in [-1,1], as x / 127.5 - 1 makes it."""
    x = open_image(source)  # type: ignore[arg-type]
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, EXPECTED, rtol=0, atol=1e-6)


def test_files_and_their_content(tmp_path: Path) -> None:
    """A path and bytes; gray where one channel is wanted; and a square of a size."""
    path = tmp_path / "picture.png"
    Image.fromarray(PIXELS).save(path)
    for source in (path, str(path), path.read_bytes()):
        torch.testing.assert_close(open_image(source), EXPECTED, rtol=0, atol=1e-6)
    assert open_image(path, channels=1).shape == (1, 1, 6, 8)
    assert open_image(PIXELS[..., 0], channels=3).shape == (1, 3, 6, 8)
    assert open_image(path, size=4).shape == (1, 3, 4, 4)
    with pytest.raises(vw.DataError):
        open_image(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (PIXELS / 127.5 - 1, "a tensor in .-1,1. is a model's image already"),
        (PIXELS.astype(np.float32), "divide by 255"),
        (PIXELS.astype(np.int64), "not int64"),
        (PIXELS.transpose(2, 0, 1), "h w 3"),
        (torch.from_numpy(PIXELS), "a tensor must have shape c h w"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.full((4, 4), np.nan), "floats must lie in"),
        ([1, 2], "not list"),
    ],
)
def test_arrays_of_another_range_or_layout(source: object, reason: str) -> None:
    """The rule, what was found, and what to do."""
    with pytest.raises(vw.ConfigError, match=reason):
        open_image(source)  # type: ignore[arg-type]


def test_options_out_of_range() -> None:
    """Channels that no model has, and an empty square."""
    for options in ({"channels": 4}, {"size": 0}, {"channels": 2}):
        with pytest.raises(vw.ConfigError):
            open_image(PIXELS, **options)


def test_to_images_is_the_inverse(vae: vw.Autoencoder) -> None:
    """Of batches and single images, floats and uint8, one channel and three."""
    (picture,) = to_images(EXPECTED)
    assert np.array_equal(np.asarray(picture), PIXELS)
    assert np.array_equal(np.asarray(to_images(EXPECTED[0])[0]), PIXELS)
    assert np.array_equal(np.asarray(to_images(torch.from_numpy(PIXELS).permute(2, 0, 1))[0]), PIXELS)
    assert to_images(EXPECTED[:, :1])[0].mode == "L"
    assert np.asarray(to_images(EXPECTED * 3)[0]).max() == 255  # clamped
    assert [p.size for p in to_images(vae.reconstruct(EXPECTED.repeat(2, 1, 1, 1)))] == [(8, 6)] * 2


def test_to_images_of_what_is_no_image() -> None:
    """Other shapes and types, and values that are no numbers."""
    for wrong in (EXPECTED[0, 0], EXPECTED.permute(0, 2, 3, 1), EXPECTED.long(), PIXELS, EXPECTED[:0]):
        with pytest.raises(vw.ConfigError, match="images must"):
            to_images(wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFiniteError):
        to_images(EXPECTED * float("nan"))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (torch.from_numpy(PIXELS).permute(2, 0, 1)[None], r"not uint8 \(Tensor\)"),
        (EXPECTED.permute(0, 2, 3, 1), "whose channels come last"),
        (EXPECTED[0].permute(1, 2, 0), "whose channels come last"),
        (EXPECTED[0], r"has no batch axis; give images\[None\]"),
        (EXPECTED[:, :1], r"must have shape n 3 h w, not \(1, 1, 6, 8\)"),
        (EXPECTED[0, 0], r"must have shape n 3 h w, not \(6, 8\)"),
        (PIXELS, "not uint8 .ndarray."),
        (Image.fromarray(PIXELS), "not PIL.Image.Image"),
        ("dog.png", "not str"),
    ],
)
def test_a_wrong_image_gets_a_sentence_that_names_the_call(vae: vw.Autoencoder, images: object, reason: str) -> None:
    """From the autoencoder and from a codec, encoding and reconstructing."""
    codec = Codec(vae)
    for call in (vae.encode, vae.reconstruct, codec.encode, codec.reconstruct):
        with pytest.raises(vw.ConfigError, match=reason) as caught:
            call(images)  # type: ignore[arg-type]
        assert "vaeworks.open_image(source)" in str(caught.value) and "\n" not in str(caught.value)


def test_latents_of_another_layout(vae: vw.Autoencoder) -> None:
    """Wrong channels, and no batch axis."""
    with pytest.raises(vw.ConfigError, match=r"latents must have shape n 4 h w, not \(1, 3, 2, 2\)"):
        vae.decode(torch.zeros(1, 3, 2, 2))
    with pytest.raises(vw.ConfigError, match="no batch axis; give latents"):
        vae.decode(torch.zeros(4, 2, 2))
    with pytest.raises(vw.ConfigError, match="floats"):
        vae.decode(torch.zeros(1, 4, 2, 2, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("images", "words"), [((EXPECTED + 1) / 2, "lie in"), ((EXPECTED + 1) * 127.5, "reach from 0")]
)
def test_a_likely_range_is_a_warning(vae: vw.Autoencoder, images: torch.Tensor, words: str) -> None:
    """Because a bright image looks the same; it points to the caller's line, and the result is what it was."""
    codec = Codec(vae)
    for call in (vae.encode, vae.reconstruct, codec.encode, codec.reconstruct):
        with pytest.warns(UserWarning, match=words) as caught:
            call(images)
        assert [w.filename for w in caught] == [__file__]


def test_no_warning_without_reason(vae: vw.Autoencoder) -> None:
    """Images in [-1,1], beyond it, of one colour, and of no numbers; and those of the package itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (EXPECTED, EXPECTED * 1.5, torch.zeros(1, 3, 6, 8), torch.ones(1, 3, 6, 8)):
            vae.encode(images)
        vae.encode(EXPECTED * float("nan"))
        vae((EXPECTED + 1) / 2)  # `forward` is the trainer's


def test_compilers_do_not_see_the_checks(vae: vw.Autoencoder) -> None:
    """No graph break, whatever the values are."""
    compiled = torch.compile(vae.encode, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled((EXPECTED + 1) / 2).mean, vae((EXPECTED + 1) / 2)[1].mean)
