"""Frozen networks by name, from a transformers folder, or anybody's own: what they return, where, and what is said when
they fail."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.errors import ConfigError, FormatError
from vaeworks.features import backbones
from vaeworks.features.backbones import UNKNOWN, Backbone, load_backbone

CPU = torch.device("cpu")
WIDTH, PATCH, BLOCKS = 24, 6, 5


def vision_options() -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 4 * PATCH,
        "patch_size": PATCH,
    }


def dinov2(**options: Any) -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    values = vision_options()
    del values["intermediate_size"]
    return Dinov2Model(Dinov2Config(**values, mlp_ratio=2, **options))


def with_registers() -> nn.Module:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    values = vision_options()
    del values["intermediate_size"]
    return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**values, mlp_ratio=2, num_register_tokens=3))


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(**vision_options()))


def clip() -> nn.Module:
    """Both towers, of which the one that sees is taken."""
    from transformers import CLIPConfig, CLIPModel

    text = {**vision_options(), "vocab_size": 9, "bos_token_id": 7, "eos_token_id": 8}
    return CLIPModel(CLIPConfig(vision_config=vision_options(), text_config=text))


def siglip() -> nn.Module:
    """No class token at all."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig(**vision_options()))


TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    "dinov2": dinov2, "dinov2 with registers": with_registers, "vit": vit, "clip": clip, "siglip": siglip,
}  # fmt: skip


def saved(kind: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A small transformer with random weights, as its library writes it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TRANSFORMERS[kind]()
        for name, p in model.named_parameters():
            if "position" in name or "token" in name:  # random ones, so that places differ
                nn.init.normal_(p, std=0.2)
    model.to(dtype).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("transformers")
    return {kind: saved(kind, root / kind.replace(" ", "-")) for kind in TRANSFORMERS}


def pictures(*size: int, count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ---------------------------------------------------------------- transformers


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_tokens_lie_where_their_patches_are(kind: str, folders: dict[str, Path]) -> None:
    """One token for each latent at any size, square or not; what is changed in one place of the picture changes its
    token most."""
    network = load_backbone(str(folders[kind]), None, 8)
    images = pictures(3 * 8, 5 * 8, count=1)
    before = network(images)
    assert [m.shape for m in before] == [(1, WIDTH, 3, 5)] * 4
    for row, column in ((0, 4), (2, 1), (1, 0)):
        changed = images.clone()
        changed[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] *= -1
        for a, b in zip(before, network(changed), strict=True):
            moved = (a - b).square().sum(1)[0]
            assert divmod(int(moved.argmax()), 5) == (row, column)


@pytest.mark.parametrize("kind", ["dinov2", "vit", "siglip"])
def test_the_deepest_map_is_the_networks_output(kind: str, folders: dict[str, Path]) -> None:
    """As the library computes it: after the last normalization, whose input has outliers of its own; of ImageNet's
    colours."""
    from transformers import AutoModel

    images = pictures(4 * PATCH, 4 * PATCH)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    model = AutoModel.from_pretrained(folders[kind], dtype=torch.float32).eval()
    with torch.no_grad():
        tokens = model(pixel_values=((images + 1) / 2 - mean) / std).last_hidden_state[:, -16:]
    expected = tokens.transpose(1, 2).reshape(2, WIDTH, 4, 4)
    torch.testing.assert_close(
        load_backbone(str(folders[kind]), None, PATCH)(images)[-1], expected, rtol=1e-3, atol=1e-4
    )


def test_weights_are_single_precision_whatever_the_file_has(tmp_path: Path) -> None:
    """A file of float16 gives a network that computes in fp32, as crops and CPUs need."""
    network = load_backbone(str(saved("dinov2", tmp_path / "half", torch.float16)), None, 8)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert network(pictures(16, 16))[-1].dtype == torch.float32


def test_colours_are_those_of_its_training(folders: dict[str, Path], tmp_path: Path) -> None:
    """preprocessor_config.json says mean and deviation; shifting both with the picture's colours changes nothing."""
    folder = shutil.copytree(folders["siglip"], tmp_path / "own")
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]})
    )
    own, plain = (load_backbone(str(f), None, 8) for f in (folder, folders["siglip"]))
    images = pictures(16, 16) / 3
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    moved = ((images / 2) / 0.25 * std + mean) * 2 - 1
    torch.testing.assert_close(own(images)[-1], plain(moved)[-1], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(own(images)[-1], plain(images)[-1], atol=1e-2)


def test_what_cannot_be_loaded_is_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    """No weights, torn weights, half of the weights, another kind of folder, a convolutional network, a hub that is not
    reached."""
    from safetensors.torch import load_file, save_file

    def variant(name: str) -> Path:
        return shutil.copytree(folders["dinov2"], tmp_path / name)

    none, torn, half = variant("none"), variant("torn"), variant("half")
    (none / "model.safetensors").unlink()
    content = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(content[: len(content) // 2])
    tensors = load_file(half / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if "layer.1." not in n}, half / "model.safetensors", {"format": "pt"})
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    for where, words in {
        str(none): "cannot be loaded",
        str(torn): "cannot be loaded",
        str(half): "lacks .* of its network's tensors",
        str(tmp_path / "vae"): "cannot be loaded",
        "hf:nobody/nothing": "cannot be loaded",
    }.items():
        with pytest.raises(FormatError, match=rf"^[^\n]*{words}[^\n]*$"):
            load_backbone(where, None, 8)

    from transformers import ResNetConfig, ResNetModel

    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])).save_pretrained(tmp_path / "resnet")
    with pytest.raises(ConfigError, match=r"^[^\n]*only vision transformers[^\n]*$"):
        load_backbone(str(tmp_path / "resnet"), None, 8)


# ---------------------------------------------------------------- frozen


class Spied(nn.Module):
    """Has all that could change behind one's back: dropout, running statistics, weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.Dropout(0.5))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def test_a_network_stays_as_it_is() -> None:
    """Put into training mode, called and gone through backwards: no statistic moves, nothing is dropped, no weight has
    a gradient."""
    network = Spied()
    backbone = load_backbone(network, None, 8).train()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    images = pictures(16, 16).requires_grad_()
    (found,) = backbone(images)
    torch.testing.assert_close(found, backbone(images)[0])
    found.sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_named_networks_have_real_weights(test_data: Path) -> None:
    """VGG16 up to conv3_3 by its name and its file; it says how small images may be."""
    network = load_backbone("vgg16_conv1to3", test_data / "weights" / "vgg16-oxford-conv1to3", 8)
    assert network.channels(32, 3, CPU) == [64, 128, 256] == network.channels(32, 1, CPU)
    assert network.smallest == 4
    gray = pictures(16, 16)[:, :1]
    torch.testing.assert_close(network(gray)[-1], network(gray.expand(-1, 3, -1, -1))[-1])


def test_smallest_images(folders: dict[str, Path]) -> None:
    """A transformer takes any size, one's own network says it, and what says nothing gets no small ones."""
    small = Spied()
    small.smallest = 12  # type: ignore[assignment]
    found = [load_backbone(n, None, 8).smallest for n in (str(folders["vit"]), small, Spied())]
    assert found == [1, 12, UNKNOWN]


# ---------------------------------------------------------------- one's own


MODULE = """
import torch

def network():
    return lambda images: torch.nn.functional.avg_pool2d(images, 8)

def broken():
    raise RuntimeError("no weights\\nat all")

def nothing():
    return None

number = 3
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, as a user has it."""
    (tmp_path / "own_features.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    sys.modules.pop("own_features", None)
    return "own_features"


def test_a_function_of_ones_own(own_module: str) -> None:
    """MODULE:FUNCTION in the current folder is called without arguments and returns the network."""
    network = load_backbone(f"{own_module}:network", None, 8)
    assert [m.shape for m in network(pictures(16, 24))] == [(2, 3, 2, 3)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_features:broken", "cannot be had: RuntimeError: no weights at all"),
        ("own_features:nothing", "must return something that can be called with images, not NoneType"),
        ("own_features:absent", "cannot be had: AttributeError"),
        ("own_features:number", "cannot be had: TypeError"),
        ("nowhere_to_be_found:network", "cannot be had: ModuleNotFoundError"),
        ("vgg", "names no network: take one of vgg16, alexnet"),
        ("some/folder", "names no network"),
    ],
)
def test_what_names_no_network_is_one_line(own_module: str, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^[^\n]*{words}[^\n]*$"):
        load_backbone(name, None, 8)


def test_named_networks_without_weights_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, the remedy is named; nothing takes the network's place."""
    monkeypatch.setenv("VAEWORKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("vgg16", "vgg16_conv1to3"):
        with pytest.raises(FormatError, match=r"^[^\n]*pass its path[^\n]*$"):
            load_backbone(name, None, 8)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda x: x.mean((2, 3)), r"must return feature maps n d h w.*shape \(1, 3\)"),
        (lambda x: x[:0], "must return feature maps"),
        (lambda x: {"features": x}, "must return feature maps.*not dict"),
        (lambda x: [], "must return feature maps.*list of 0"),
        (nn.Conv2d(4, 8, 3), "fails on an image of 16x16 pixels: RuntimeError"),
    ],
)
def test_what_returns_no_maps_is_one_line(network: Callable[[Tensor], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^[^\n]*{words}[^\n]*$"):
        load_backbone(network, None, 8).channels(16, 3, CPU)


def test_what_cannot_be_called_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*not int$"):
        load_backbone(3, None, 8)  # type: ignore[arg-type]


def test_without_transformers(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(vw.MissingExtraError, match="diffusers"):
        load_backbone(str(folders["vit"]), None, 8)
    assert isinstance(Backbone(lambda x: x, "identity"), backbones.Backbone)
