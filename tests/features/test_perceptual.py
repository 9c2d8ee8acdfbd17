"""Perceptual distances: the networks' shapes, the formula restated, gradients, and where weights come from."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaeworks.errors import ConfigError, FormatError
from vaeworks.features import weights as fw
from vaeworks.features.nets import FEATURE_NETS, IMAGENET, UNSCALED, FeatureNet, Fire, squeezenet1_1, vgg16_conv1to3
from vaeworks.images import open_image, to_model_range, to_uint8
from vaeworks.losses.perceptual import LPIPS, FeatureDistance, distance_without_weights
from vaeworks.losses.reconstruction import haar_l1, ms_ssim_loss

CONVOLUTIONS = {
    "vgg16": {
        0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
        17: (512, 256), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512),
    },
    "alexnet": {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)},
    "squeezenet1_1": {
        0: (64, 3), 3: (16, 64, 64), 4: (16, 128, 64), 6: (32, 128, 128), 7: (32, 256, 128),
        9: (48, 256, 192), 10: (48, 384, 192), 11: (64, 384, 256), 12: (64, 512, 256),
    },
}  # fmt: skip
"""torchvision's layers by number: (out, in, kernel), or SqueezeNet's (squeezed, in, expanded)."""

TAPS = {
    "vgg16": (64, 128, 256, 512, 512), "alexnet": (64, 192, 384, 256, 256),
    "squeezenet1_1": (64, 128, 256, 384, 384, 512, 512), "vgg16_conv1to3": (64, 128, 256),
}  # fmt: skip
"""Channels of the taps, which are those of LPIPS's heads."""


def torchvision_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's file, without the classifier."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (out, inner, *rest) in CONVOLUTIONS[name].items():
        if name == "squeezenet1_1" and rest:
            for part, o, i, k in (
                ("squeeze", out, inner, 1),
                ("expand1x1", rest[0], out, 1),
                ("expand3x3", rest[0], out, 3),
            ):
                shapes |= {f"features.{number}.{part}.weight": (o, i, k, k), f"features.{number}.{part}.bias": (o,)}
        else:
            kernel = rest[0] if rest else 3
            shapes |= {f"features.{number}.weight": (out, inner, kernel, kernel), f"features.{number}.bias": (out,)}
    return shapes


def random_net(name: str = "squeezenet1_1", scaling: object = IMAGENET) -> FeatureNet:
    """With weights that keep activations as large as trained ones do."""
    torch.manual_seed(0)
    network = FEATURE_NETS[name](scaling)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    return network


def random_pair(n: int = 2, size: int = 48, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(n, channels, size, size, generator=generator) * 2 - 1
    return images + 0.2 * torch.randn(images.shape, generator=generator), images


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_networks_have_torchvisions_names(name: str) -> None:
    with torch.device("meta"):
        network = FEATURE_NETS[name]()
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == torchvision_shapes(name)
    assert network.shift.device.type == "cpu"  # not lost on "meta"


@pytest.mark.parametrize("name", FEATURE_NETS)
def test_taps_are_those_of_the_heads(name: str) -> None:
    """After ReLU; down to the smallest image that a network says it takes, and no smaller."""
    network = FEATURE_NETS[name]()
    seen = network(torch.rand(1, 3, network.smallest, network.smallest + 9))
    assert tuple(x.shape[1] for x in seen) == TAPS[name]
    assert all(x.min() >= 0 and x.numel() for x in seen)
    assert all(isinstance(network.features[tap], (nn.ReLU, Fire)) for tap in network.taps)
    small = network.smallest - 1
    with pytest.raises(ConfigError, match=f"at least {network.smallest}x{network.smallest} pixels, not {small}x40"):
        network(torch.rand(1, 3, small, 40))
    with pytest.raises(RuntimeError):
        network.features(torch.rand(1, 3, small, 40))


def test_gray_images_are_seen_as_gray_colour() -> None:
    recon, images = random_pair(channels=1)
    distance = FeatureDistance(random_net())
    assert distance(recon, images).equal(distance(recon.expand(-1, 3, -1, -1), images.expand(-1, 3, -1, -1)))


def test_images_are_scaled_as_torchvisions() -> None:
    """Mean (.485 .456 .406) and deviation (.229 .224 .225) of [0,1], from [-1,1]."""
    network = random_net()
    images = random_pair()[1]
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(network(images)[0], network.features[:2](((images + 1) / 2 - mean) / std))


def heads_like(network: FeatureNet, n: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.rand(1, x.shape[1], 1, 1, generator=generator) for x in network(torch.zeros(1, 3, 48, 48))]


def restated_lpips(network: FeatureNet, heads: list[Tensor], recon: Tensor, images: Tensor) -> Tensor:
    """Zhang et al. 2018, equation 1, in fp64 and in loops: n. The epsilon stands beside the root, as in the authors'
    code."""
    taps = zip(network(recon), network(images), heads, strict=True)
    total = torch.zeros(len(recon), dtype=torch.float64)
    for a, b, head in taps:
        a, b = (x.double() / (x.double().norm(dim=1, keepdim=True) + 1e-10) for x in (a, b))
        for place in (a - b).flatten(2).unbind(2):
            total += (head.double().flatten() * place.square()).sum(1) / (a.shape[-2] * a.shape[-1])
    return total


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("version", ["0.0", "0.1"])
def test_lpips_is_the_papers_formula(name: str, version: str, test_data: Path) -> None:
    """With the authors' heads; the backbone's weights are random, which the formula does not mind."""
    network = random_net(name, IMAGENET if version == "0.1" else UNSCALED)
    heads = fw._heads(fw.open_archive(fw.find(fw.HEADS[name, version], test_data / "weights")))
    assert tuple(map(len, heads)) == TAPS[name] and all((head >= 0).all() for head in heads)
    lpips = LPIPS(network, heads)
    recon, images = random_pair()
    expected = restated_lpips(network, heads, recon, images)
    torch.testing.assert_close(lpips.per_image(recon, images).double(), expected, rtol=1e-5, atol=0)
    assert lpips(recon, images).item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_lpips_is_a_weighted_feature_distance() -> None:
    """Heads of 1 give the uncalibrated one; both are the restated formula; heads of another backbone are refused."""
    network, (recon, images) = random_net(), random_pair()
    ones = [torch.ones_like(head) for head in heads_like(network)]
    plain = FeatureDistance(network).per_image(recon, images)
    torch.testing.assert_close(LPIPS(network, ones).per_image(recon, images), plain)
    torch.testing.assert_close(plain.double(), restated_lpips(network, ones, recon, images), rtol=1e-5, atol=0)
    for wrong in (ones[:-1], ones[::-1]):
        with pytest.raises(ConfigError, match="no head for tap"):
            LPIPS(network, wrong)(recon, images)


@pytest.mark.parametrize("kind", ["lpips", "features"])
def test_perceptual_loss_teaches_the_reconstruction(kind: str) -> None:
    """Its gradient is that which differences show, so it is there at all; the backbone gets none; and a decoder learns
    by it."""
    network = random_net()
    distance = LPIPS(network, heads_like(network)) if kind == "lpips" else FeatureDistance(network)
    recon, images = random_pair(n=1)
    loss = distance(recon.requires_grad_(), images)
    assert loss.requires_grad and not any(p.requires_grad for p in distance.parameters())
    loss.backward()
    assert recon.grad is not None and recon.grad.norm() > 1e-3
    assert all(p.grad is None for p in network.parameters())
    step = recon.grad / recon.grad.norm() * 1e-2
    with torch.no_grad():
        slope = (distance(recon + step, images) - distance(recon - step, images)) / 2e-2
    assert slope.item() == pytest.approx(recon.grad.norm().item(), rel=0.02)


def test_gradient_is_finite_at_equal_images_and_where_nothing_is_seen() -> None:
    """A root's slope at 0 is infinite: ReLU's dead places would make every weight of the autoencoder NaN."""
    network = random_net()
    for dead in (False, True):
        if dead:
            for parameter in network.parameters():
                parameter.data.fill_(-1.0) if parameter.ndim == 1 else parameter.data.zero_()
        lpips = LPIPS(network, heads_like(network))
        for recon in (random_pair()[1], random_pair()[0]):
            recon = recon.clone().requires_grad_()
            loss = lpips(recon, random_pair()[1])
            loss.backward()
            assert loss.isfinite() and recon.grad is not None and recon.grad.isfinite().all()
            assert loss.item() == 0 if dead or recon.equal(random_pair()[1]) else loss > 0


def test_unit_length_is_the_papers_wherever_something_is_seen() -> None:
    """The epsilon in the root changes no figure, not even of features far smaller than a trained network's."""
    network = random_net()
    recon, images = random_pair()
    for parameter in network.features[-1].parameters():
        parameter.data.mul_(0.03)
    heads = heads_like(network)
    deepest = network(images)[-1].norm(dim=1).mean()
    assert 0 < deepest < 0.1
    torch.testing.assert_close(
        LPIPS(network, heads).per_image(recon, images).double(),
        restated_lpips(network, heads, recon, images),
        rtol=1e-4,
        atol=0,
    )


def test_perceptual_values_are_fp32_under_autocast() -> None:
    """The same as without; and half-precision reconstructions are taken as they are."""
    network = random_net()
    lpips = LPIPS(network, heads_like(network))
    recon, images = random_pair()
    expected = lpips(recon, images)
    with torch.autocast("cpu", torch.bfloat16):
        value = lpips(recon, images)
        half = lpips(recon.bfloat16(), images)
    assert value.dtype == half.dtype == torch.float32
    assert value.equal(expected) and half.equal(lpips(recon.bfloat16().float(), images))
    network.bfloat16()  # the network alone may be asked to be fast
    assert lpips(recon, images).item() == pytest.approx(expected.item(), rel=0.05)


def test_network_stays_in_evaluation_mode() -> None:
    """Whoever calls train() on what contains it: dropout would make a figure of a die."""

    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.dropout = nn.Conv2d(3, 8, 3), nn.Dropout(0.5)

        def forward(self, images: Tensor) -> list[Tensor]:
            return [self.dropout(self.conv(images))]

    distance = FeatureDistance(Dropping().train())
    outer = nn.ModuleList([distance]).train()
    recon, images = random_pair()
    assert outer.training and not distance.network.training and not distance.network.dropout.training
    assert distance(recon, images).equal(distance(recon, images)) and distance(images, images).item() == 0
    assert not any(p.requires_grad for p in distance.parameters())


def test_fallback_is_declared_and_needs_no_network() -> None:
    recon, images = random_pair()
    expected = 0.5 * ms_ssim_loss(recon, images) + haar_l1(recon, images)
    assert distance_without_weights(recon, images).equal(expected)
    assert distance_without_weights(images, images).item() == pytest.approx(0, abs=1e-6)


# --- real weights


def test_vgg_head_sees_what_its_makers_do(test_data: Path) -> None:
    """Against the definition that the weights come with; distances grow with what a photograph loses."""
    weights = test_data / "weights" / "vgg16-oxford-conv1to3"
    network = fw.load_feature_net("vgg16_conv1to3", weights)
    spec = importlib.util.spec_from_file_location("reference_nets", test_data / "weights" / "reference_nets.py")
    assert spec and spec.loader
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    theirs = reference.VGG16Head()
    theirs.load_state_dict(network.state_dict())
    images = torch.stack(
        [to_model_range(to_uint8(open_image(f))) for f in sorted((test_data / "data" / "dogs").glob("*.jpg"))[:2]]
    )
    images = images[..., 40:140, 40:171]
    for ours, other in zip(network(images), theirs((images + 1) / 2), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-2)
    distance = fw.load_feature_distance("vgg16_conv1to3", weights)
    blurred = [
        nn.functional.avg_pool2d(nn.functional.pad(images, [s // 2] * 4, mode="reflect"), s, 1) for s in (3, 5, 9)
    ]
    near, middle, far = (distance(recon, images).item() for recon in blurred)
    assert 0.01 < near < middle < far


def test_a_file_of_another_network_is_refused(test_data: Path) -> None:
    small = test_data / "weights" / "vgg16-oxford-conv1to3" / "vgg16_oxford_conv1to3.pth"
    with pytest.raises(
        FormatError,
        match=r"is not VGG16: 'features.17.weight' should be \[512, 256, 3, 3\], it lacks it; pass the right file$",
    ):
        fw.load_feature_net("vgg16", small)
    heads = test_data / "weights" / "lpips" / "v0.1" / "alex.pth"
    with pytest.raises(FormatError, match="has no LPIPS heads"):
        fw._heads(fw.open_archive(small))
    with pytest.raises(FormatError, match=r"is not SqueezeNet 1\.1"):
        fw.load_feature_net("squeezenet1_1", heads)


# --- where weights come from


def state_bytes() -> bytes:
    """A file of torch.save with a whole SqueezeNet, classifier and all."""
    torch.manual_seed(1)
    buffer = io.BytesIO()
    torch.save({**squeezenet1_1().state_dict(), "classifier.1.weight": torch.zeros(1000, 512, 1, 1)}, buffer)
    return buffer.getvalue()


class Site:
    """A server of one file on this machine."""

    def __init__(self, content: bytes):
        self.content, self.announced, self.requests = content, len(content), 0
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests += 1
                if self.path != "/net.pth":
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(site.announced))
                self.end_headers()
                self.wfile.write(site.content)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/net.pth"
        self.published = fw.Published("net.pth", hashlib.sha256(content).hexdigest()[:8], 3, self.url)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    site = Site(state_bytes())
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("VAEWORKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "cache" / "weights"


def test_weights_are_fetched_once(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in one line, checked by hash, kept; then no network is asked. The run's random numbers are as if nothing had
    been loaded."""
    monkeypatch.setitem(fw.BACKBONES, "squeezenet1_1", site.published)
    said: list[str] = []
    state = torch.get_rng_state()
    network = fw.load_feature_net("squeezenet1_1", say=said.append)
    assert torch.get_rng_state().equal(state)
    assert said == [f"fetching net.pth (3 MB) from {site.url}"]
    assert (cache / "net.pth").read_bytes() == site.content and [p.name for p in cache.iterdir()] == ["net.pth"]
    again = fw.load_feature_net("squeezenet1_1", say=said.append)
    assert site.requests == 1 and len(said) == 1
    torch.manual_seed(1)
    expected = squeezenet1_1()
    for net in (network, again):
        assert all(a.equal(b) for a, b in zip(net.state_dict().values(), expected.state_dict().values(), strict=True))
        assert not net.training and not any(p.requires_grad or p.is_meta for p in net.parameters())
    assert network(random_pair()[0])[0].isfinite().all()


def test_another_file_is_not_kept(site: Site, cache: Path) -> None:
    with pytest.raises(
        FormatError,
        match=f"{site.url} gave another file: its SHA-256 begins with .{{8}}, not 00000000; try again, or put it at ",
    ) as e:
        fw.find(replace(site.published, sha256="00000000"))
    assert str(e.value).endswith(f"; try again, or put it at {cache / 'net.pth'}, or pass its path ({fw.OPTIONS})")
    assert "\n" not in str(e.value) and not cache.exists()


def test_half_a_file_is_not_kept(site: Site, cache: Path) -> None:
    site.announced = len(site.content) + 1000
    with pytest.raises(
        FormatError,
        match=f"could not be fetched: it ended after {len(site.content)} of {site.announced} bytes; try again",
    ):
        fw.find(site.published)
    assert not cache.exists()


def test_without_a_network_the_message_says_what_to_do(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is gone, a machine that does not answer, and HF_HUB_OFFLINE, which asks nobody."""
    with pytest.raises(FormatError, match="could not be fetched: HTTP Error 404") as e:
        fw.find(replace(site.published, url=site.url + "x"))
    remedy = f"put it at {cache / 'net.pth'}, or pass its path ({fw.OPTIONS})"
    assert str(e.value).endswith(f"; try again, or {remedy}") and "\n" not in str(e.value)
    with pytest.raises(FormatError, match=r"could not be fetched: .*refused"):
        fw.find(replace(site.published, url="http://127.0.0.1:9/net.pth"))
    asked = site.requests
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FormatError) as e:
        fw.find(site.published)
    forbidden = f"HF_HUB_OFFLINE forbids to fetch {site.published.url}"
    assert str(e.value) == f"{site.published.file} is not in the cache, and {forbidden}; {remedy}"
    assert site.requests == asked
    with pytest.raises(FormatError, match=r"vgg16_oxford_conv1to3\.pth is published nowhere"):
        fw.find(fw.BACKBONES["vgg16_conv1to3"])


def test_a_given_path_is_all_that_is_looked_at(site: Site, tmp_path: Path) -> None:
    """A file of any name, a folder that has it; nothing is fetched in its stead."""
    named = tmp_path / "mine.pth"
    named.write_bytes(site.content)
    assert fw.find(site.published, named) == named
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(FormatError, match=r"folder holds no net.pth; pass the file itself$"):
        fw.find(site.published, folder)
    with pytest.raises(FormatError, match=r"gone.pth does not exist; pass net.pth or a folder that holds it$"):
        fw.find(site.published, tmp_path / "gone.pth")
    (folder / "net.pth").write_bytes(site.content)
    assert fw.find(site.published, folder) == folder / "net.pth"
    (folder / "net.pth").write_bytes(b"other")
    with pytest.raises(FormatError, match="is not the published file: its SHA-256 begins with"):
        fw.find(site.published, folder)
    assert site.requests == 0


def test_torchs_own_downloads_are_used_if_they_are_whole(site: Site, tmp_path: Path, cache: Path) -> None:
    theirs = tmp_path / "torch" / "hub" / "checkpoints" / "net.pth"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(site.content)
    assert fw.find(site.published) == theirs and site.requests == 0
    theirs.write_bytes(site.content[:-1])
    assert fw.find(site.published) == cache / "net.pth" and site.requests == 1


def test_what_was_fetched_is_checked_at_every_load(site: Site, cache: Path) -> None:
    """A file in the cache that has changed is refused, and neither loaded nor replaced behind the user's back."""
    path = fw.find(site.published)
    path.write_bytes(site.content[:-1] + bytes([site.content[-1] ^ 1]))
    with pytest.raises(
        FormatError, match=r"net.pth is not the published file any more: .*; delete it, and it is fetched again"
    ):
        fw.find(site.published)
    assert site.requests == 1
    path.unlink()
    assert fw.find(site.published).read_bytes() == site.content and site.requests == 2


def test_a_download_has_an_end(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that gives much more than the published file."""
    monkeypatch.setattr(fw, "SLACK", 0)
    with pytest.raises(FormatError, match="it has more than 2,097,152 bytes, at least twice what it should have"):
        fw.find(replace(site.published, megabytes=1))
    assert not cache.exists()


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/net.pth", "ftp://127.0.0.1:9/net.pth", "file:///etc/passwd"])
def test_a_download_stays_with_https(target: str) -> None:
    import urllib.request
    from email.message import Message

    request = urllib.request.Request("https://example.org/net.pth")
    with pytest.raises(OSError, match="redirected from https"):
        fw._SameScheme().redirect_request(request, None, 302, "Found", Message(), target)
    again = fw._SameScheme().redirect_request(request, None, 302, "Found", Message(), "https://example.org/other.pth")
    assert again.full_url == "https://example.org/other.pth"


def test_lpips_of_a_folder(test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backbone and heads in one folder, as the authors' package lays heads out; an old file's heads are not taken for
    new ones."""
    content = state_bytes()
    published = fw.Published("net.pth", hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(fw.BACKBONES, "squeezenet1_1", published)
    (tmp_path / "net.pth").write_bytes(content)
    (tmp_path / "v0.1").mkdir()
    source = test_data / "weights" / "lpips"
    (tmp_path / "v0.1" / "squeeze.pth").write_bytes((source / "v0.1" / "squeeze.pth").read_bytes())
    lpips = fw.load_lpips("squeezenet1_1", path=tmp_path)
    assert isinstance(lpips, LPIPS) and lpips(*random_pair()).item() > 0
    assert isinstance(lpips.network, FeatureNet) and lpips.network.scale.flatten().tolist() == pytest.approx(
        [0.458, 0.448, 0.450]
    )
    old = fw.load_lpips("squeezenet1_1", "0.0", tmp_path / "net.pth", source)
    assert isinstance(old.network, FeatureNet) and old.network.scale.unique().tolist() == [1.0]
    (tmp_path / "v0.1" / "squeeze.pth").write_bytes((source / "v0.0" / "squeeze.pth").read_bytes())
    with pytest.raises(FormatError, match="is not the published file"):
        fw.load_lpips("squeezenet1_1", path=tmp_path)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="feature network 'vgg' is not known; choose from vgg16, alexnet"):
        fw.load_feature_net("vgg")
    with pytest.raises(ConfigError, match=r"LPIPS has no heads for vgg16_conv1to3 v0\.1; choose from"):
        fw.load_lpips("vgg16_conv1to3")


def test_published_files_carry_their_hashes() -> None:
    """Whole ones, whose beginnings are in the names of torchvision's and pytorch-fid's files; and addresses are
    https."""
    inception = fw.SET_NETS["inception"][1]
    for published in (*(fw.BACKBONES[name] for name in ("vgg16", "alexnet", "squeezenet1_1")), inception):
        assert published.file.endswith(f"-{published.sha256[:8]}.pth") and published.url.endswith(published.file)
    assert len(fw.HEADS) == 6 and all(head.url.endswith(head.file[5:]) for head in fw.HEADS.values())
    for published in (
        *fw.BACKBONES.values(),
        *fw.HEADS.values(),
        *(published for _, published in fw.SET_NETS.values()),
    ):
        assert len(bytes.fromhex(published.sha256)) == 32
        assert published.url == "" or published.url.startswith("https://")
    assert FEATURE_NETS.keys() == fw.BACKBONES.keys()
    assert vgg16_conv1to3().features[:16].state_dict().keys() <= FEATURE_NETS["vgg16"]().features.state_dict().keys()
