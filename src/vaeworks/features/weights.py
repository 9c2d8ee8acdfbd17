"""Weights of feature networks and LPIPS heads: found where the user says, or in a cache, or fetched once. Never
silently replaced.

Files are read as any model file is: nothing in them is executed. A fetched file must have the whole SHA-256 that is
written here, when it is fetched and each time it is loaded (2 GB take about a second).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, FormatError
from ..files.atomic import atomic
from ..files.cache import cache_folder
from ..files.hub_network import is_offline
from ..formats.archive import Archive, open_archive
from ..losses.perceptual import LPIPS, FeatureDistance
from .inception import InceptionV3
from .mobilenet import MobileNetV2
from .nets import FEATURE_NETS, IMAGENET, UNSCALED, FeatureNet, Scaling

Say = Callable[[str], None]
"""Is told, in one line, that something large is being fetched."""


@dataclass(frozen=True)
class Published:
    """A file of weights as its makers publish it."""

    file: str
    """its place in a folder of weights"""
    sha256: str
    """of its content, in hex"""
    megabytes: float = 0.1
    url: str = ""
    """where it is published; empty: nowhere, so that it must be given"""


_TORCH = "https://download.pytorch.org/models/"
_FID = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
_LPIPS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/"

BACKBONES = {
    "vgg16": Published(
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        528,
        _TORCH + "vgg16-397923af.pth",
    ),
    "alexnet": Published(
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        233,
        _TORCH + "alexnet-owt-7be5be79.pth",
    ),
    "squeezenet1_1": Published(
        "squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        5,
        _TORCH + "squeezenet1_1-b8a52dc0.pth",
    ),
    "vgg16_conv1to3": Published(
        "vgg16_oxford_conv1to3.pth", "eafc17c837909e5ff98fb8ff54f00a0b8b0e08d3502ac5a6573584fc15500b74", 7
    ),
}
"""By the networks' names in features/nets.py: torchvision's classifiers of ImageNet, and the part of Oxford's VGG16.

Publishers put the first 8 digits of a hash into a file's name. The whole ones begin with these, and are what many
independent projects have written down of the same files.
"""

SET_NETS: dict[str, tuple[Callable[[], nn.Module], Published]] = {
    "inception": (
        InceptionV3,
        Published(
            "pt_inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            91,
            _FID + "pt_inception-2015-12-05-6726825d.pth",
        ),
    ),
    "mobilenetv2": (
        MobileNetV2,
        Published(
            "mobilenetv2_keras_features.pth", "d584d0682de6b5ac39fa1d6b059467ec04521c5dea50390ed1eae0455645a2d5", 9
        ),
    ),
}
"""Networks whose features sets of images are compared in, by name: FID's, with TensorFlow's weights, and Keras'
MobileNetV2."""

_HEAD_HASHES = {
    ("0.0", "alexnet", "alex"): "18720f55913d0af89042f13faa7e536a6ce1444a0914e6db9461355ece1e8cd5",
    ("0.0", "squeezenet1_1", "squeeze"): "c27abd3a0145541baa50990817df58d3759c3f8154949f42af3b59b4e042d0bf",
    ("0.0", "vgg16", "vgg"): "b9e4236260c3dd988fc79d2a48d645d885afcbb21f9fd595e6744cf7419b582c",
    ("0.1", "alexnet", "alex"): "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    ("0.1", "squeezenet1_1", "squeeze"): "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    ("0.1", "vgg16", "vgg"): "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
}

HEADS = {
    (backbone, version): Published(
        f"lpips/v{version}/{short}.pth", sha256, 0.1, f"{_LPIPS}lpips/weights/v{version}/{short}.pth"
    )
    for (version, backbone, short), sha256 in _HEAD_HASHES.items()
}
"""LPIPS's by backbone and version, in the folders that its package has."""


SLACK = 16
"""MiB that a download may have besides twice its published size."""


def load_feature_net(
    name: str, path: str | Path | None = None, scaling: Scaling | None = None, say: Say | None = None
) -> FeatureNet:
    """A frozen network of features/nets.py with its published weights, or with those at `path`, a file or a folder.

    Errors: ConfigError for an unknown name; FormatError for weights that are not there, not fetched or of another
    network.
    """
    if name not in FEATURE_NETS:
        raise ConfigError(f"feature network {name!r} is not known; choose from {', '.join(FEATURE_NETS)}")
    archive = open_archive(find(BACKBONES[name], path, say))
    with torch.device("meta"):  # no random weights are drawn, so that a run's own do not change
        network = FEATURE_NETS[name](scaling) if scaling else FEATURE_NETS[name]()
    weights = {
        key: _read(archive, key, tuple(empty.shape), network.name) for key, empty in network.state_dict().items()
    }
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False)


def load_lpips(
    name: str = "vgg16",
    version: str = "0.1",
    path: str | Path | None = None,
    heads: str | Path | None = None,
    say: Say | None = None,
) -> LPIPS:
    """LPIPS with a backbone of ImageNet at `path` and heads at `heads`; by default each from the cache, fetched on
    first use.

    A folder at `path` holds both, unless `heads` is given.
    Trainers use VGG16, figures are commonly AlexNet's; versions are "0.1" and, for old results, "0.0".
    Errors: as `load_feature_net`.
    """
    if (name, version) not in HEADS:
        known = ", ".join(f"{backbone} v{v}" for backbone, v in HEADS)
        raise ConfigError(f"LPIPS has no heads for {name} v{version}; choose from {known}")
    if heads is None and path is not None and Path(path).is_dir():
        heads = path
    weights = _heads(open_archive(find(HEADS[name, version], heads, say)))
    network = load_feature_net(name, path, IMAGENET if version == "0.1" else UNSCALED, say)
    return LPIPS(network, weights)


def load_set_net(name: str, path: str | Path | None = None, say: Say | None = None) -> nn.Module:
    """A frozen network of `SET_NETS`, images n 3 h w in [-1,1] to features n d, with its published weights or those at
    `path`.

    Errors: as `load_feature_net`.
    """
    if name not in SET_NETS:
        raise ConfigError(f"feature network {name!r} is not known; choose from {', '.join(SET_NETS)}")
    make, published = SET_NETS[name]
    archive = open_archive(find(published, path, say))
    with torch.device("meta"):  # as in load_feature_net
        network = make()
    weights = {
        key: torch.zeros((), dtype=torch.long)
        if key.endswith("num_batches_tracked")
        else _read(archive, key, tuple(empty.shape), name)
        for key, empty in network.state_dict().items()
    }
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False).eval()


def is_here(name: str, version: str = "0.1") -> bool:
    """Whether LPIPS with this backbone can be loaded without fetching anything."""
    return all(
        (cache_folder() / w.file).is_file() or local(w) is not None for w in (BACKBONES[name], HEADS[name, version])
    )


def load_feature_distance(
    name: str = "vgg16_conv1to3", path: str | Path | None = None, say: Say | None = None
) -> FeatureDistance:
    """The uncalibrated distance in a network's features; arguments and errors as `load_feature_net`."""
    return FeatureDistance(load_feature_net(name, path, say=say))


def find(weights: Published, path: str | Path | None = None, say: Say | None = None) -> Path:
    """The local file: at `path` if one is given; else from the cache, from torch's cache, or fetched into the cache.

    path: the file itself, of whatever name and hash; or a folder that holds it, whose hash must be right.
    Errors: FormatError where it is not at `path`, where the cache holds another file, and where it cannot be fetched
    whole.
    """
    if path is not None:
        return _given(weights, Path(path))
    if found := local(weights):
        return found
    cached = cache_folder() / weights.file
    _fetch(weights, cached, say)
    return cached


def local(weights: Published) -> Path | None:
    """The file in the cache or in torch's; None where it would have to be fetched.

    Errors: FormatError for another file in the cache.
    """
    path = _place(weights)
    if path is not None and not (found := _sha256(path)).startswith(weights.sha256):
        if path != cache_folder() / weights.file:
            return None
        raise FormatError(
            f"{path} is not the published file any more: {_unequal(found, weights)}; delete it, and it is fetched again"
        )
    return path


def _place(weights: Published) -> Path | None:
    """Where the file is, whatever it holds: torchvision may have fetched it already."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "torch")
    places = (cache_folder() / weights.file, Path(home, "hub", "checkpoints", weights.file))
    return next((path for path in places if path.is_file()), None)


def _given(weights: Published, path: Path) -> Path:
    if path.is_dir():
        parts = Path(weights.file).parts
        for candidate in (path.joinpath(*parts[i:]) for i in range(len(parts))):
            if candidate.is_file():
                if not (found := _sha256(candidate)).startswith(weights.sha256):
                    raise FormatError(
                        f"{candidate} is not the published file: {_unequal(found, weights)}; to use it, pass the file "
                        "itself"
                    )
                return candidate
        raise FormatError(f"{path} holds no {weights.file}; pass the file itself")
    if not path.is_file():
        raise FormatError(f"{path} does not exist; pass {weights.file} or a folder that holds it")
    return path


OPTIONS = (
    "train: --loss.perceptual-path, --regularizers.alignment-path or --adversarial.network-path; eval: --lpips or "
    "--features-weights; other commands: --features-weights"
)
"""The options that take weights' paths, by what needs them."""


def _fetch(weights: Published, to: Path, say: Say | None) -> None:
    """Download to a name that appears when the file is whole and its hash is right."""
    remedy = f"put it at {to}, or pass its path ({OPTIONS})"
    if not weights.url:
        raise FormatError(f"{weights.file} is published nowhere that it could be fetched from; {remedy}")
    if is_offline():
        raise FormatError(
            f"{weights.file} is not in the cache, and HF_HUB_OFFLINE forbids to fetch {weights.url}; {remedy}"
        )
    if say:
        say(f"fetching {weights.file} ({weights.megabytes:g} MB) from {weights.url}")
    with atomic(to, overwrite=True) as temporary:
        try:
            found = _download(weights.url, temporary, round((2 * weights.megabytes + SLACK) * 2**20))
        except (OSError, ValueError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is an open answer as well
            cause = error.reason if type(error) is urllib.error.URLError else error
            told = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
            reason = " ".join(told.split()) or type(error).__name__
            raise FormatError(f"{weights.url} could not be fetched: {reason}; try again, or {remedy}") from None
        if not found.startswith(weights.sha256):
            raise FormatError(f"{weights.url} gave another file: {_unequal(found, weights)}; try again, or {remedy}")


def _download(url: str, to: Path, most: int, chunk: int = 2**20) -> str:
    """The SHA-256 of what was written to `to`. Errors: OSError, also for more than `most` bytes and for a redirection
    away from https."""
    digest = hashlib.sha256()
    with urllib.request.build_opener(_SameScheme).open(url, timeout=30) as response, to.open("wb") as file:
        expected = response.headers.get("Content-Length")
        while block := response.read(chunk):
            digest.update(block)
            file.write(block)
            if file.tell() > most:
                raise OSError(f"it has more than {most:,} bytes, at least twice what it should have")
        if expected is not None and file.tell() != int(expected):
            raise OSError(f"it ended after {file.tell()} of {expected} bytes")
    return digest.hexdigest()


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not from https to anything else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise OSError(f"it is redirected from https to {newurl[:80]}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _unequal(found: str, weights: Published) -> str:
    return f"its SHA-256 begins with {found[:8]}, not {weights.sha256[:8]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(archive: Archive, name: str, shape: tuple[int, ...], network: str) -> Tensor:
    entry = archive.entries.get(name)
    if entry is None or entry.shape != shape or not entry.is_float:
        found = "lacks it" if entry is None else f"has {entry.dtype} {list(entry.shape)}"
        raise FormatError(
            f"{archive.path} is not {network}: '{name}' should be {list(shape)}, it {found}; pass the right file"
        )
    return archive.read(name).to(torch.float32, copy=True)


def _heads(archive: Archive) -> list[Tensor]:
    """LPIPS's linear layers in order, one weight per channel."""
    names = [name for i in range(len(archive.entries)) if (name := f"lin{i}.model.1.weight") in archive.entries]
    if not names:
        raise FormatError(f"{archive.path} has no LPIPS heads (lin0.model.1.weight ...); pass the right file")
    return [archive.read(name).to(torch.float32, copy=True).flatten() for name in names]
