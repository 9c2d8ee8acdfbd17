"""The networks that sets of images are compared in, against other definitions of them and against their files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageFilter

import vaeworks as vw
from vaeworks.data import photos
from vaeworks.features.inception import BlockA, BlockE, InceptionV3, resized_like_tensorflow
from vaeworks.features.mobilenet import MobileNetV2
from vaeworks.features.weights import SET_NETS, load_set_net
from vaeworks.images import open_image, to_uint8
from vaeworks.metrics.feature_spaces import load_features, weights_digest
from vaeworks.metrics.sets import set_distances


def test_inception_has_the_published_files_tensors() -> None:
    """Names and shapes of FID's file; as many weights as Keras counts, with the scales that TensorFlow leaves out."""
    with torch.device("meta"):
        net = InceptionV3()
    shapes = {name: tuple(t.shape) for name, t in net.state_dict().items()}
    assert sum(p.numel() for p in net.parameters()) == 21_768_352 + 17_216
    assert sum("conv" in name for name in shapes) == 94
    expected = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_1a_3x3.bn.running_var": (32,),
        "Conv2d_3b_1x1.conv.weight": (80, 64, 1, 1),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5c.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6c.branch7x7dbl_4.conv.weight": (160, 160, 7, 1),
        "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3dbl_1.conv.weight": (448, 1280, 1, 1),
        "Mixed_7c.branch3x3_2b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.bn.bias": (192,),
    }
    assert {name: shapes.get(name) for name in expected} == expected


def test_inceptions_pools_are_fids() -> None:
    """Average pools do not count padding: a constant stays one at the border; the last block takes the maximum."""
    block = BlockA(2, 3).eval()
    with torch.no_grad():
        block.branch_pool.conv.weight.fill_(1.0)
        pooled = block(torch.ones(1, 2, 5, 5))[:, -3:]
    torch.testing.assert_close(pooled, torch.full_like(pooled, 2 / (1 + 1e-3) ** 0.5))
    spike = torch.zeros(1, 1, 5, 5)
    spike[..., 2, 2] = 9.0
    for last, expected in ((True, 9.0), (False, 1.0)):
        block = BlockE(1, last).eval()
        with torch.no_grad():
            block.branch_pool.conv.weight.fill_(1.0)
            seen = block(spike)[0, -1, 1:4, 1:4]
        torch.testing.assert_close(seen, torch.full((3, 3), expected / (1 + 1e-3) ** 0.5))


def test_resizing_is_tensorflow_1s() -> None:
    """Output i lies at input i·h/299: doubling keeps every pixel at even places, with means between and the last one
    repeated."""
    x = torch.tensor([[0.0, 10.0, 30.0]]).view(1, 1, 1, 3)
    assert resized_like_tensorflow(x, 1, 6).flatten().tolist() == [0, 5, 10, 20, 30, 30]
    shrunk = resized_like_tensorflow(torch.arange(12.0).view(1, 1, 1, 12), 1, 4)
    assert shrunk.flatten().tolist() == [0, 3, 6, 9]  # not filtered, not centred
    assert torch.equal(resized_like_tensorflow(x, 1, 3), x)


def test_inception_runs_and_is_read_from_a_file(tmp_path: Path) -> None:
    """A file of its names loads, whatever its classifier; one that lacks a tensor is refused by that name; 2048
    features, called FID."""
    torch.manual_seed(0)
    net = InceptionV3()
    weights = {k: v for k, v in net.state_dict().items() if "tracked" not in k} | {"fc.weight": torch.zeros(1008, 2048)}
    torch.save(weights, tmp_path / "inception.pth")
    features = load_features("inception", tmp_path / "inception.pth")
    assert (features.frechet, features.kernel) == ("FID", "KID")
    image = torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8)
    with torch.no_grad():
        np.testing.assert_allclose(features(image), net(image[None] / 127.5 - 1)[0].numpy(), rtol=1e-4, atol=1e-6)
    assert features.digest == weights_digest(net)
    del weights["Mixed_6b.branch1x1.bn.weight"]
    torch.save(weights, tmp_path / "torn.pth")
    with pytest.raises(vw.FormatError, match=r"Mixed_6b\.branch1x1\.bn\.weight"):
        load_features("inception", tmp_path / "torn.pth")
    with pytest.raises(vw.FormatError, match="HF_HUB_OFFLINE"):
        load_features("inception")


def test_mobilenet_is_keras(test_data: Path) -> None:
    """Equal to the definition that stands beside the weights, for sides that padding treats unequally; weights by their
    hash."""
    spec = importlib.util.spec_from_file_location("reference_nets", test_data / "weights" / "reference_nets.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    folder = test_data / "weights" / "mobilenetv2-keras-features"
    theirs = reference.MobileNetV2Features().eval()
    theirs.load_state_dict(torch.load(folder / "mobilenetv2_keras_features.pth"))
    ours = load_set_net("mobilenetv2", folder)
    x = torch.rand(1, 3, 95, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
    assert not any(p.requires_grad for p in ours.parameters())


def test_mobilenet_ranks_blurs(test_data: Path) -> None:
    """Identity < mild blur < strong blur; never called FID."""
    features = load_features("mobilenetv2", test_data / "weights" / "mobilenetv2-keras-features")
    pictures = [open_image(path).resize((64, 64)) for path in photos()[:8]]
    x = np.stack([features(to_uint8(p)) for p in pictures])
    found = [
        set_distances(
            features, x, np.stack([features(to_uint8(p.filter(ImageFilter.GaussianBlur(r)))) for p in pictures])
        )
        for r in (0.4, 1.5)
    ]
    assert 0 < found[0].frechet.value < found[1].frechet.value
    assert found[0].frechet_name == "FD (mobilenetv2)" and "it is no FID" in found[0].warnings[0]


def test_mobilenet_needs_no_weights_to_be_built() -> None:
    """Its shape without a file: 2.2 M weights, as Keras without a classifier has."""
    with torch.device("meta"):
        net = MobileNetV2()
    assert sum(p.numel() for p in net.parameters()) == 2_223_872  # 2,257,984 less 34,112 moving averages
    assert set(SET_NETS) == {"inception", "mobilenetv2"}


def test_other_networks_give_their_last_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody's network by MODULE:FUNCTION, its last map's mean over places; originals are looked at once."""
    (tmp_path / "my_net.py").write_text(
        "calls = []\ndef make():\n    def look(x):\n        calls.append(1)\n        return [x[:, :1], x * 2]\n    "
        "return look\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    features = load_features("my_net:make")
    image = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    np.testing.assert_allclose(features(image), [2, 2, 2])
    import my_net

    before = len(my_net.calls)
    for _ in range(3):
        features.of_original(image)
    assert len(my_net.calls) == before + 1
    with pytest.raises(vw.ConfigError, match="names no network"):
        load_features("nothing-like-this")


def test_transformers_give_the_mean_of_their_patches_tokens(tmp_path: Path) -> None:
    """A DINOv2 folder: of 32 px there are 2 x 2 tokens, without the class token; the hash follows the weights."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    model = Dinov2Model(
        Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    ).eval()
    model.save_pretrained(tmp_path / "dino")
    features = load_features(str(tmp_path / "dino"))
    image = torch.full((3, 32, 32), 200, dtype=torch.uint8)  # a constant stays one when it is resized
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        tokens = model(pixel_values=((torch.full((1, 3, 28, 28), 200 / 255)) - mean) / std).last_hidden_state
    np.testing.assert_allclose(features(image), tokens[0, 1:].mean(0).numpy(), atol=1e-4)
    with torch.no_grad():
        model.layernorm.weight.add_(1)
    model.save_pretrained(tmp_path / "other")
    assert load_features(str(tmp_path / "other")).digest != features.digest
