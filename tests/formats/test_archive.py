"""Tensors of files of every container: equal to what PyTorch and safetensors read, bit for bit, and known before they
are read."""

from __future__ import annotations

import json
import sys
import types
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vaeworks.errors import FormatError
from vaeworks.formats.archive import Archive, entries, joined, open_archive, open_shards
from vaeworks.formats.archive.entries import Entry
from vaeworks.formats.archive.mapped import MappedFile
from vaeworks.formats.archive.torch_dtypes import TORCH_DTYPES

NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}

FORMATS = [(new, protocol) for new in (True, False) for protocol in (2, 3, 4, 5)]


def raw(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def random_tensor(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    numel, generator = torch.Size(shape).numel(), torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    return (
        torch.randint(0, 256, (numel * dtype.itemsize,), dtype=torch.uint8, generator=generator)
        .view(dtype)
        .reshape(shape)
    )


def save_torch(content: object, path: Path, new: bool = True, protocol: int = 2) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    return path


def assert_same(archive: Archive, tensors: Mapping[str, Tensor], also: Sequence[str] = ()) -> None:
    """The archive holds exactly these tensors: names in order, dtypes, shapes, strides, and bytes in both ways of
    reading. also: names of others behind them."""
    assert list(archive.entries) == [*tensors, *also]
    for name, tensor in tensors.items():
        ours, entry = archive.read(name), archive.entries[name]
        assert (entry.dtype, entry.shape) == (NAMES[tensor.dtype], tuple(tensor.shape))
        assert (ours.dtype, ours.shape) == (tensor.dtype, tensor.shape)
        assert not tensor.numel() or tensor.is_contiguous() or ours.stride() == tensor.stride()
        assert raw(ours) == raw(tensor) == b"".join(archive.chunks(name))
        assert entry.nbytes == len(raw(tensor))
        assert entry.numel == tensor.numel()
        assert entry.is_float == (entry.dtype in ("F64", "F32", "F16", "BF16"))


def assert_like_torch(path: Path, saved: Mapping[str, Tensor] | None = None) -> Archive:
    """The archive equals what was saved, and what torch.load makes of it: where it can, which it cannot with protocols
    4 and 5."""
    archive = open_archive(path)
    if saved is not None:
        assert_same(archive, saved)
    with warnings.catch_warnings(action="ignore"):
        try:
            assert_same(archive, torch.load(path, weights_only=True, map_location="cpu"))
        except (UnpicklingError, AttributeError):  # the latter for younger dtypes in the older format
            assert saved is not None
    return archive


# PyTorch's files


@pytest.mark.parametrize(("new", "protocol"), FORMATS)
def test_every_dtype(tmp_path: Path, new: bool, protocol: int) -> None:
    tensors = {name: random_tensor((3, 5), dtype) for name, dtype in TORCH_DTYPES.items()}
    tensors |= {f"no {name}": torch.zeros(0, dtype=dtype) for name, dtype in TORCH_DTYPES.items()}
    assert_like_torch(save_torch(tensors, tmp_path / "m", new, protocol), tensors)
    for name, tensor in tensors.items():  # one by one, because torch.load cannot read all of them together
        assert_like_torch(save_torch({name: tensor}, tmp_path / "m", new, protocol), {name: tensor})


@pytest.mark.parametrize(("new", "protocol"), FORMATS)
def test_every_arrangement(tmp_path: Path, new: bool, protocol: int) -> None:
    """Views, shared storages, expanded, empty and zero-dimensional tensors, parameters and state_dicts with their
    metadata."""
    whole = torch.randn(6, 8)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    content = OrderedDict(
        whole=whole,
        transposed=whole.T,
        row=whole[2],
        column=whole[:, 3],
        steps=whole[::2, 1::3],
        again=whole,
        expanded=torch.randn(3, 1).expand(3, 7),
        channels_last=torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        empty_view=whole[6:],
        ones=torch.randn(1, 1, 1),
        one_of_many=whole[:1, :1],
        parameter=nn.Parameter(torch.randn(4)),
        frozen=nn.Parameter(torch.randn(4), requires_grad=False),
        buffer=nn.Buffer(torch.randn(2)),
        counter=torch.tensor(7),
        **module.state_dict(),
    )
    archive = assert_like_torch(save_torch(content, tmp_path / "m", new, protocol), content)
    assert archive.container == "pickle"
    assert archive.metadata == {}
    assert archive.dropped == ()
    assert not any(archive.read(name).requires_grad for name in archive.entries)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 4), max_size=4), st.sampled_from(sorted(TORCH_DTYPES))), max_size=6),
    st.sampled_from(FORMATS),
    st.randoms(use_true_random=False),
)
def test_any_views(described: list, how: tuple[bool, int], random) -> None:
    tensors = {"first": torch.zeros(1)}
    for number, (shape, dtype) in enumerate(described):
        tensor = random_tensor(tuple(shape), TORCH_DTYPES[dtype], number)
        order = list(range(tensor.ndim))
        random.shuffle(order)
        tensor = tensor.permute(order)
        if tensor.ndim and tensor.shape[0]:
            start = random.randrange(tensor.shape[0])
            tensors[f"part {number}"] = tensor[start :: random.randint(1, 2)]
        tensors[f"whole {number}"] = tensor
    with NamedTemporaryFile() as file:
        assert_like_torch(save_torch(tensors, Path(file.name), *how), tensors)


def test_conjugate_views_are_refused(tmp_path: Path) -> None:
    path = save_torch(
        {"fine": torch.zeros(1), "spectrum": torch.zeros(2, dtype=torch.complex64).conj()}, tmp_path / "m"
    )
    with pytest.raises(FormatError, match=r"'spectrum' is a conjugate"):
        open_archive(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
        lambda: torch.zeros(3, device="meta"),
    ],
    ids=["sparse", "csr", "quantized", "meta"],
)
@pytest.mark.filterwarnings("ignore:.*")
def test_special_tensors_are_refused_by_name(tmp_path: Path, make: Callable[[], Tensor]) -> None:
    path = save_torch({"fine": torch.zeros(1), "odd.one": make()}, tmp_path / "m")
    with pytest.raises(FormatError, match=r"tensor 'odd.one' is a "):
        open_archive(path)


def test_dtypes_that_pytorch_lacks_are_refused_when_read(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F4", "shape": [6], "data_offsets": [0, 3]}}).encode()
    path = tmp_path / "m"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"abc")
    archive = open_archive(path)
    assert archive.entries == {"x": Entry("F4", (6,))}
    assert b"".join(archive.chunks("x")) == b"abc"
    with pytest.raises(FormatError, match="F4"):
        archive.read("x")


def test_unknown_name(tmp_path: Path) -> None:
    archive = open_archive(save_torch({"x": torch.zeros(1)}, tmp_path / "m"))
    with pytest.raises(FormatError, match="no tensor 'y'"):
        archive.read("y")


# What trainers write


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class that pickles as pytorch_lightning's, and is gone when the file is read."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    checkpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = checkpoint
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    return checkpoint


@pytest.mark.parametrize(("new", "protocol"), FORMATS)
def test_lightning_checkpoint(tmp_path: Path, lightning: type, new: bool, protocol: int) -> None:
    """The tensors under state_dict, although there are more of them elsewhere; everything else is named."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    history = defaultdict(list, loss=[0.5, np.float32(0.25)])
    content = {
        "epoch": 3,
        "global_step": np.int64(17),
        "pytorch-lightning_version": "1.4.2",
        "state_dict": model.state_dict() | {"_extra_state": {"n": 1}},
        "callbacks": {
            lightning: {"best_model_score": torch.tensor(1.0), "best_model_path": Path("x"), "self": lightning()}
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [history],
        "hyper_parameters": {
            "array": np.arange(3),
            "complex": 1j,
            "set": {1, 2},
            "slice": slice(3),
            "bytes": b"12",
            "range": range(3),
        },
        "model": {f"{n}": torch.zeros(1) for n in range(50)},
        5: torch.zeros(2),
        lightning: None,
        ("a", 1): None,
    }
    path = save_torch(content, tmp_path / "m", new, protocol)
    for name in [name for name in sys.modules if name.startswith("pytorch_lightning")]:
        del sys.modules[name]
    archive = open_archive(path)
    assert_same(archive, dict(model.state_dict()))
    name = "class pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    assert archive.dropped == (
        "_extra_state",
        "epoch",
        "global_step",
        "pytorch-lightning_version",
        "callbacks",
        "optimizer_states",
        "lr_schedulers",
        "hyper_parameters",
        "key 5",
        name,
        "a key that is a list",
        "model",
    )


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "module", "ema", "net", "my own key", "vae"])
@pytest.mark.parametrize("more", [{}, {"other": {"c": torch.zeros(1)}}], ids=["alone", "beside"])
def test_wrapped_state_dicts(tmp_path: Path, key: str, more: dict) -> None:
    """A dict in which all tensors lie is a wrapper; of several, each one's key is before its tensors' names. What lies
    under state_dict has its own names."""
    tensors = {"a": torch.randn(2), "b": torch.randn(3)}
    archive = open_archive(save_torch({key: tensors, "step": 3, "optimizer": {}, **more}, tmp_path / "m"))
    own = key == "state_dict"
    prefix = f"{key}." if more and not own else ""
    also = ["other.c"] if more and not own else []
    assert_same(archive, {prefix + name: tensor for name, tensor in tensors.items()}, also)
    assert archive.dropped == ("step", "optimizer", *(["other"] if own and more else []))
    assert archive.wrapper == ("" if more or own else f"{key}.")


def test_averages_beside_a_state_dict_are_kept(tmp_path: Path) -> None:
    """A dict with the same names may be what is wanted; an optimizer's is not."""
    tensors = {"a": torch.randn(2), "b": torch.randn(3)}
    content = {
        "state_dict": tensors,
        "ema_state_dict": {n: t + 1 for n, t in tensors.items()},
        "optimizer": {"c": tensors["a"]},
    }
    archive = open_archive(save_torch(content, tmp_path / "m"))
    assert list(archive.entries) == ["a", "b", "ema_state_dict.a", "ema_state_dict.b"]
    assert archive.dropped == ("optimizer",)


def test_wrapped_in_wrappers(tmp_path: Path) -> None:
    """At most five deep."""
    tensors = {"a": torch.randn(2), "b": torch.randn(3)}
    content = {"model": {"module": {"state_dict": tensors}}, "ema": {"a": torch.zeros(1)}, "x": torch.zeros(1)}
    archive = open_archive(save_torch(content, tmp_path / "m"))
    assert list(archive.entries) == ["model.module.a", "model.module.b", "ema.a", "x"]
    deep: dict = {"one": {"two": {"three": {"four": tensors}}}}
    assert_same(open_archive(save_torch(deep, tmp_path / "deep")), tensors)
    with pytest.raises(FormatError, match="without tensors"):
        open_archive(save_torch({"zero": deep}, tmp_path / "deeper"))


def test_halves_in_dicts_of_their_own(tmp_path: Path) -> None:
    """The key of a half belongs to the names of its tensors."""
    tensors = {"encoder.a": torch.randn(2), "decoder.b": torch.randn(3)}
    halves = {"encoder": {"a": tensors["encoder.a"]}, "decoder": {"b": tensors["decoder.b"]}}
    assert_same(open_archive(save_torch(halves, tmp_path / "m")), tensors)
    assert_same(open_archive(save_torch({"vae": halves, "step": 1}, tmp_path / "n")), tensors)
    one = open_archive(save_torch({"decoder": halves["decoder"]}, tmp_path / "o"))
    assert list(one.entries) == ["decoder.b"]


def test_a_dict_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2)}
    archive = open_archive(save_torch({"copy": tensors, "state_dict": tensors}, tmp_path / "m"))
    assert list(archive.entries) == ["a"]


def test_flat_tensors_beside_a_smaller_wrapper(tmp_path: Path) -> None:
    archive = open_archive(
        save_torch({"a": torch.zeros(1), "b": torch.zeros(1), "vae": {"c": torch.zeros(1)}}, tmp_path / "m")
    )
    assert list(archive.entries) == ["a", "b", "vae.c"]
    assert archive.dropped == ()


def test_many_leftovers_are_counted(tmp_path: Path) -> None:
    archive = open_archive(save_torch({"x": torch.zeros(1)} | {f"{n}": n for n in range(250)}, tmp_path / "m"))
    assert len(archive.dropped) == 101
    assert archive.dropped[-1] == "and 150 more"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.zeros(3), "a single tensor"),
        ([torch.zeros(3)], "a list"),
        (3, "a number"),
        ("text", "text"),
        (None, "nothing"),
        ({}, "without tensors .keys: none"),
        ({"a": 1, "b": [torch.zeros(1)]}, "without tensors .keys: a, b"),
    ],
    ids=str,
)
@pytest.mark.parametrize("new", [True, False])
def test_no_state_dict(tmp_path: Path, content: object, said: str, new: bool) -> None:
    with pytest.raises(FormatError, match=said):
        open_archive(save_torch(content, tmp_path / "m", new))


def test_pickled_modules_are_refused(tmp_path: Path) -> None:
    path = save_torch(nn.Sequential(nn.Linear(2, 2)), tmp_path / "m")
    with pytest.raises(
        FormatError, match=r"pickled model of class torch.nn.modules.container.Sequential.*state_dict\(\)"
    ):
        open_archive(path)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "m")
    with pytest.raises(FormatError, match="TorchScript"):
        open_archive(tmp_path / "m")


def test_names_from_the_file_stay_short_and_printable(tmp_path: Path) -> None:
    archive = open_archive(save_torch({"x": torch.zeros(1), "\x1b[31m\n" * 99: 1}, tmp_path / "m"))
    assert archive.dropped[0].isascii() and archive.dropped[0].isprintable() and len(archive.dropped[0]) <= 80


# safetensors


def test_safetensors(tmp_path: Path) -> None:
    tensors = {name: random_tensor((3, 4), dtype) for name, dtype in TORCH_DTYPES.items() if name != "complex128"}
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 2), "ключ": torch.zeros(3)}
    save_file(tensors, tmp_path / "m.ckpt", metadata={"format": "pt", "a": "b"})
    archive = open_archive(tmp_path / "m.ckpt")
    assert (archive.container, archive.metadata, archive.dropped) == ("safetensors", {"format": "pt", "a": "b"}, ())
    assert archive.path == tmp_path / "m.ckpt"
    assert_same(archive, {name: tensors[name] for name in archive.entries})
    assert set(archive.entries) == set(tensors)


def test_misaligned_tensors(tmp_path: Path) -> None:
    """safetensors files that others write need not be aligned."""
    tensor = torch.randn(5)
    header = json.dumps(
        {
            "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
            "b": {"dtype": "F32", "shape": [5], "data_offsets": [3, 23]},
        }
    ).encode()
    (tmp_path / "m").write_bytes(len(header).to_bytes(8, "little") + header + b"abc" + raw(tensor))
    assert_same(open_archive(tmp_path / "m"), {"a": torch.tensor([*b"abc"], dtype=torch.uint8), "b": tensor})


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    for new in (True, False):
        path = save_torch({"x": torch.ones(4)}, tmp_path / "m", new)
        before = path.read_bytes()
        open_archive(path).read("x").mul_(2)
        assert path.read_bytes() == before
        assert open_archive(path).read("x").equal(torch.ones(4))


def test_a_tensor_outlives_its_archive(tmp_path: Path) -> None:
    path = save_torch({"x": torch.arange(1000.0)}, tmp_path / "m")
    tensor = open_archive(path).read("x")
    path.unlink()
    assert tensor.equal(torch.arange(1000.0))


def pieces(archive: Archive, name: str) -> Iterator[int]:
    return map(len, archive.chunks(name))


def test_chunks_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "CHUNK", 64)
    wide = torch.arange(4000).reshape(2, 5, 400)
    tensors = {
        "plain": wide,
        "turned": wide.mT,
        "rows": wide[:, ::2],
        "narrow": wide.permute(2, 0, 1)[..., ::2],
        "small": torch.zeros(3, 2).T,
    }
    archive = assert_like_torch(save_torch(tensors, tmp_path / "m"))
    for name in tensors:
        assert max(pieces(archive, name)) <= 64
    assert all(isinstance(chunk, memoryview) for chunk in archive.chunks("plain"))


# Several files


def save_shards(folder: Path, ending: str = "safetensors") -> tuple[Path, dict[str, Tensor]]:
    tensors = {name: torch.randn(3) for name in "abcd"}
    names = {1: f"x-00001-of-00002.{ending}", 2: f"x-00002-of-00002.{ending}"}
    for number, keys in ((1, "ac"), (2, "bd")):
        part = {key: tensors[key] for key in keys}
        if ending == "bin":
            save_torch(part, folder / names[number])
        else:
            save_file(part, folder / names[number], {"format": "pt"})
    weight_map = {key: names[1 if key in "ac" else 2] for key in tensors}
    index = folder / f"x.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": weight_map}))
    return index, tensors


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards(tmp_path: Path, ending: str) -> None:
    index, tensors = save_shards(tmp_path, ending)
    archive = open_shards(index)
    assert_same(archive, {name: tensors[name] for name in archive.entries})
    assert set(archive.entries) == set(tensors)
    assert (archive.container, archive.path) == ("shards", index)
    assert archive.metadata == ({"format": "pt"} if ending == "safetensors" else {})


def test_shards_may_be_links(tmp_path: Path) -> None:
    """As they are in the hub's cache."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    index, tensors = save_shards(tmp_path / "snapshot")
    for number, file in enumerate(sorted((tmp_path / "snapshot").iterdir())):
        file.rename(tmp_path / "blobs" / str(number))
        file.symlink_to(Path("..", "blobs", str(number)))
    assert set(open_shards(index).entries) == set(tensors)


def test_joined(tmp_path: Path) -> None:
    save_file({"0.weight": torch.zeros(2)}, tmp_path / "e", {"a": "b"})
    save_torch({"1.weight": torch.ones(3), "step": 1}, tmp_path / "d")
    archive = joined(
        tmp_path / "e", {"encoder.": open_archive(tmp_path / "e"), "decoder.": open_archive(tmp_path / "d")}
    )
    assert_same(archive, {"encoder.0.weight": torch.zeros(2), "decoder.1.weight": torch.ones(3)})
    assert (archive.container, archive.metadata, archive.dropped) == ("pair", {"a": "b"}, ("step",))


# Opening is cheap


@pytest.mark.parametrize("kind", ["zip", "stream", "safetensors"])
def test_only_the_header_is_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a mapped file of 80 MB, no more than a megabyte is copied."""
    tensors = {"x": torch.zeros(10_000_000), "y": torch.zeros(10_000_000)}
    save_file(tensors, tmp_path / "m") if kind == "safetensors" else save_torch(tensors, tmp_path / "m", kind == "zip")
    copied = []

    class Counted(MappedFile):
        def __getitem__(self, key):
            found = super().__getitem__(key)
            copied.append(len(found))
            return found

    monkeypatch.setattr("vaeworks.formats.archive.mapped.MappedFile", Counted)
    assert set(open_archive(tmp_path / "m").entries) == {"x", "y"}
    assert sum(copied) < 1_000_000


# Real files


@pytest.mark.parametrize(
    "name",
    [
        *("taef2/taef2_encoder.pth", "taef2/taef2_decoder.pth", "lpips/v0.1/vgg.pth", "lpips/v0.0/squeeze.pth"),
        *(
            "mobilenetv2-keras-features/mobilenetv2_keras_features.pth",
            "squeezenet10-deepcompression/squeezenet1_0_deepcompression.pth",
        ),
        "vgg16-oxford-conv1to3/vgg16_oxford_conv1to3.pth",
    ],
)
def test_real_files(test_data: Path, name: str) -> None:
    assert_like_torch(test_data / "weights" / name)


def test_real_files_as_safetensors(test_data: Path, tmp_path: Path) -> None:
    tensors = torch.load(test_data / "weights" / "taef2" / "taef2_decoder.pth", weights_only=True)
    save_file(tensors, tmp_path / "m")
    archive = open_archive(tmp_path / "m")
    assert_same(archive, {name: load_file(tmp_path / "m")[name] for name in archive.entries})
