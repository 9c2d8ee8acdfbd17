"""Small files that would take minutes or gigabytes to understand, errors that nobody thought of, and files that change
while in use."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from configs import ATTENTIVE, WIDE
from crafted import (
    items,
    name,
    number,
    program,
    safetensors,
    storage,
    table,
    tensor,
    text,
    torch_stream,
    torch_zip,
    written,
)
from safetensors.torch import load_file, save_file

import vaeworks as vw
from vaeworks.config import AutoencoderConfig, TinyConfig, to_dict
from vaeworks.errors import FormatError, VaeworksError
from vaeworks.files.atomic import read_tensors
from vaeworks.formats import locate as locating
from vaeworks.formats.archive import entries, limits, open_archive, open_shards
from vaeworks.formats.archive.mapped import mapped
from vaeworks.formats.archive.pickle_vm import MAX_GLOBALS, MAX_STEPS, Machine, Stream
from vaeworks.formats.fingerprint import SAMPLE, _first
from vaeworks.formats.identify import identify
from vaeworks.formats.keymap import layout_name
from vaeworks.formats.locate import locate
from vaeworks.formats.sources import WEIGHTS
from vaeworks.formats.tensor_shapes import tensor_shapes
from vaeworks.formats.understood import FOREIGN, understood
from vaeworks.training.run.checkpoint import METADATA_KEY, newest_checkpoint, planned_checkpoints

TINY = TinyConfig(encoder_widths=(8, 8), encoder_blocks=(0, 1), decoder_widths=(8, 8), decoder_blocks=(0, 1))
EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
LDM, OURS, DIFFUSERS = (
    "decoder.up.0.block.0.norm1.weight",
    "decoder.levels.0.blocks.0.norm1.weight",
    "decoder.up_blocks.0.resnets.0.norm1.weight",
)
MANY = 30_000
"""Names of which the quadratic readers of before would have needed many minutes."""


def refusal(path: Path | str) -> str:
    """What is said, by all that look at a file; nothing that only the last guard made a sentence of."""
    with pytest.raises(FormatError, match=r"^[^\n]+$") as caught:
        identify(path)
    assert caught.value.__cause__ is None
    with pytest.raises(FormatError) as again:
        vw.load(path)
    assert str(again.value) == str(caught.value)
    assert len(str(caught.value)) < 1500
    return str(caught.value).replace(str(path), "FILE")


def unopened(path: Path) -> str:
    """The same of what is refused before anybody looks for a VAE in it."""
    with pytest.raises(FormatError, match=r"^[^\n]{,1500}$") as caught:
        (open_shards if path.name.endswith(".index.json") else open_archive)(path)
    return str(caught.value)


def saved(folder: Path, config: AutoencoderConfig | TinyConfig = ATTENTIVE, layout: Any = "ldm") -> Path:
    path = folder / (layout if layout == "diffusers" else f"{layout}.safetensors")
    vw.save(vw.build(config), path, layout)
    return path


def changed(path: Path, more: dict[str, torch.Tensor] | None = None, **metadata: str) -> Path:
    """The file without its metadata, or with others, and with more tensors."""
    save_file(load_file(path) | (more or {}), path, metadata=metadata or None)
    return path


# Names


@pytest.mark.parametrize(
    ("pattern", "sign", "said"),
    [
        ("loss.{}", LDM, "no encoder levels"),
        ("t{}", LDM, "no encoder levels"),
        ("encoder.down.{}.block.0.conv2.weight", LDM, f"{MANY} levels, more than 16"),
        ("encoder.levels.{}.blocks.0.conv2.weight", OURS, f"{MANY} levels, more than 16"),
        ("encoder.levels.0.blocks.{}.conv2.weight", OURS, "which is no convolution's"),
        ("p{}.decoder.up.0.block.0.norm1.weight", LDM, "no encoder levels"),
        ("{}.0.linear.0.weight", "1.0.linear.1.weight", "a hypernetwork"),
        ("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z.{}", "x", "its first tensors are"),
    ],
)
def test_very_many_names(tmp_path: Path, pattern: str, sign: str, said: str) -> None:
    header = {sign: EMPTY, **{pattern.format(i): EMPTY for i in range(MANY)}}
    path = written(tmp_path, safetensors(header))
    with pytest.raises(FormatError, match=re.escape(said)):
        locate(path)


def test_a_vae_among_very_many_names(tmp_path: Path) -> None:
    """What a limit is for is refused; what is large, and a model, is not."""
    path, none = saved(tmp_path), torch.zeros(0)
    before = identify(path)
    kinds = ("loss.discriminator.{}", "model_ema.a{}", "cond_stage_model.{}.weight", "optimizer.{}")
    changed(path, {pattern.format(i): none for i in range(20_000) for pattern in kinds}, format="pt")
    found = identify(path)
    assert (found.tensors, found.content_hash, found.encoder_widths) == (before.tensors, before.content_hash, (8, 16))
    assert len(found.ignored) == 40_000


def test_more_tensors_than_any_model_has(tmp_path: Path) -> None:
    count = limits.MAX_TENSORS + 1
    assert f"has {count} tensors, more than" in unopened(
        written(tmp_path, safetensors({f"{i}": EMPTY for i in range(count)}))
    )
    pickle = program(
        name("torch._utils", "_rebuild_tensor_v2") + b"q\1" + tensor_arguments() + b"q\2" + many_tensors(count)
    )
    assert f"has {count} tensors, more than" in unopened(written(tmp_path, torch_zip(pickle)))
    (tmp_path / "x.index.json").write_text(json.dumps({"weight_map": {f"{i}": "a" for i in range(count)}}))
    assert f"has {count} tensors, more than" in refusal(tmp_path / "x.index.json")


def tensor_arguments() -> bytes:
    return items(storage(), number(0), items(number(1)), items(number(1)), b"\x89", b"}")


def many_tensors(count: int) -> bytes:
    return b"00}(" + b"".join(text(f"{i}") + b"h\1h\2R" for i in range(count)) + b"u"


@pytest.mark.parametrize("long", ["." * 4_000_000, "decoder.up." * 300_000, "9" * 5000, "é" * 2000])
def test_names_longer_than_any(tmp_path: Path, long: str) -> None:
    said = f"a tensor whose name is {len(long)} characters long, more than {limits.MAX_NAME}"
    assert said in unopened(written(tmp_path, safetensors({LDM: EMPTY, long: EMPTY})))
    assert said in unopened(written(tmp_path, torch_zip(program(table({LDM: tensor(), long: tensor()})))))
    (tmp_path / "x.index.json").write_text(json.dumps({"weight_map": {long: "a"}}))
    assert said in refusal(tmp_path / "x.index.json")


def test_shards_without_end(tmp_path: Path) -> None:
    (tmp_path / "x.index.json").write_text(
        json.dumps({"weight_map": {f"{i}": f"{i}" for i in range(limits.MAX_SHARDS + 1)}})
    )
    assert "lists 1001 files, more than 1000" in refusal(tmp_path / "x.index.json")


def test_metadata_without_end(tmp_path: Path) -> None:
    entries = {f"{i}": "" for i in range(limits.MAX_METADATA + 1)}
    assert "10001 entries of metadata" in unopened(written(tmp_path, safetensors({"__metadata__": entries})))


def test_a_vae_of_more_tensors_than_any(tmp_path: Path) -> None:
    config = AutoencoderConfig(channels=1, channel_mult=(1,) * 4, num_res_blocks=90, norm_groups=1, mid_attention=False)
    shapes = {n: torch.zeros(shape) for n, shape in tensor_shapes(config).items()}
    save_file(shapes, tmp_path / "x.safetensors")
    assert f"more than {limits.MAX_VAE_TENSORS} tensors" in refusal(tmp_path / "x.safetensors")


# Configurations


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"channel_mult": [1] * 100_000}, "100000 entries"),
        ({"channel_mult": [1] * 17}, "channel_mult has 17 entries; a model has 16 levels at most"),
        ({"decoder_channel_mult": [1] * 9_000}, "as many entries as"),
        ({"attention_factors": [1] * 9_000}, "attention_factors has 9000 entries"),
        ({"latents_mean": [0.0] * 100_000}, "100000 entries"),
        ({"channel_mult": [1, float("nan")]}, "whole numbers"),
        ({"channel_mult": [1, float("inf")]}, "whole numbers"),
        ({"channels": 10**400}, "cannot be a number of"),
        ({"scaling_factor": 10**400}, "cannot be a number of"),
        ({"norm_groups": 2**70}, "cannot be a number of"),
        ({"x" * 50_000: 1}, "has no field"),
        ({"padding_mode": "a" * 50_000}, "padding_mode cannot be"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_metadata_that_mean_nothing(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    path = changed(saved(tmp_path), vaeworks=json.dumps({"version": 1, "network": "kl", "autoencoder": values}))
    assert said in refusal(path)


@pytest.mark.parametrize(
    "described", ['{"a":' * 50_000, '{"version":' + "9" * 5000 + "}", "[" * 90_000, " " * 2**21, '{"version":1e999}']
)
def test_metadata_that_cannot_be_read(tmp_path: Path, described: str) -> None:
    assert "metadata" in refusal(changed(saved(tmp_path), vaeworks=described))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"block_out_channels": [8] * 100_000}, "100000 entries, more than 16"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 20_000}, "20000 entries, more than 16"),
        ({"block_out_channels": [8, float("nan")]}, "whole numbers"),
        ({"block_out_channels": [8, 10**4000]}, "does not describe an AutoencoderKL"),
        ({"latents_mean": [0.0] * 50_000, "latents_std": [1.0] * 50_000}, "50000 entries"),
        ({"_class_name": "A" * 50_000}, "describes"),
        ({"act_fn": ["a"] * 50_000}, "act_fn is"),
        ({"scaling_factor": 10**400}, "cannot be a number of"),
        ({"x": "a" * 2**21}, "more than 1,048,576 are not read"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_config_json_that_means_nothing(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    path = saved(tmp_path, layout="diffusers")
    described = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(described | values))
    assert said in refusal(path)


@pytest.mark.parametrize(
    "content", [b'{"_class_name":' * 50_000, b"[" * 100_000, b'{"_class_name":' + b"9" * 5000 + b"}", b"\xff\xfe"]
)
def test_config_json_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    path = saved(tmp_path, layout="diffusers")
    (path / "config.json").write_bytes(content)
    assert "config.json is not JSON" in refusal(path)
    assert "config.json is not JSON" in refusal(path / WEIGHTS)


# Pickles

DEVICE = name("torch", "device")


@pytest.mark.parametrize("container", ["bare", "zip", "stream"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (DEVICE * 300_000, "holds a torch.device"),
        (
            b"".join(name(f"torch.optim.a{i}", "A") for i in range(MAX_GLOBALS + 1)),
            f"names more than {MAX_GLOBALS} things",
        ),
        (name("torch.optim" + ".a" * 2_000_000, "A"), "too long for a name"),
        (number(1 << 2**26), "holds a number"),
        (b"L" + b"9" * 100_000 + b"L\n", "makes no sense"),
        (table({"x": number(1 << 2**24)}), "without tensors"),
        (b"}" + number(1 << 2**24) + b"Ns", "without tensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pickles_of_one_thing(tmp_path: Path, body: bytes, said: str, container: str) -> None:
    """Each has its answer, however often it is said."""
    pickle = program(body)
    with pytest.raises(FormatError) as caught:
        open_archive(
            written(tmp_path, {"bare": pickle, "zip": torch_zip(pickle), "stream": torch_stream(pickle, {})}[container])
        )
    assert said in str(caught.value) or (container == "bare" and "a plain pickle that" in str(caught.value))


def test_the_pickles_of_a_file_share_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of before PyTorch 1.6 has five of them."""
    monkeypatch.setattr("vaeworks.formats.archive.pickle_vm.MAX_STEPS", 10_000)
    whole = torch_stream(program(b"}"))
    at, slow = whole.index(b"\x80\x02", 2), program(DEVICE * 4000)
    assert "pickle ends too early" in unopened(written(tmp_path, whole[:at] + slow * 2))
    assert "more than 10000 steps" in unopened(written(tmp_path, whole[:at] + slow * 3))


def test_sizes_of_millions_of_digits(tmp_path: Path) -> None:
    """They are compared with what there is, and never multiplied at their length."""
    huge = b"".join([number(1 << 2**24), b"q\7"])
    stored = items(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), huge) + b"Q"
    first = tensor(stored=stored)
    again = tensor(
        shape=(4,), stored=items(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), b"h\7") + b"Q"
    )
    assert "more bytes than its storage has" in unopened(
        written(tmp_path, torch_zip(program(table({"a": first, "b": again}))))
    )


def test_records_without_end(tmp_path: Path) -> None:
    assert "zip file of 200001 records" in unopened(written(tmp_path, records_listed(200_001)))


def records_listed(count: int) -> bytes:
    """A zip file whose directory has so many entries."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size, place = len(entry) * count, 4
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, place)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, place + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    return b"PK\3\4" + entry * count + end64 + locator + end


# Expanded tensors


def expanded(folder: Path, config: AutoencoderConfig = ATTENTIVE) -> Path:
    """A whole VAE, each of whose tensors is one number of the file."""
    one = items(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(1)) + b"Q"
    tensors = {n: tensor(shape, (0,) * len(shape), stored=one) for n, shape in tensor_shapes(config).items()}
    return written(folder, torch_zip(program(table(tensors)), {"0": bytes(4)}), "model.ckpt")


def test_weights_out_of_nothing(tmp_path: Path) -> None:
    assert identify(expanded(tmp_path)).tensors == len(tensor_shapes(ATTENTIVE))
    large = AutoencoderConfig(channels=512, channel_mult=(1, 2), norm_groups=32)
    assert "bytes of weights in" in refusal(expanded(tmp_path, large))


@pytest.mark.parametrize(
    "shape",
    [(), (1,), (1000,), (3, 5), (2, 300, 7), (1, 1, 70_000_000), (70_000_000, 1, 1), (1, 257), (256, 1), (16, 16)],
)
def test_first_elements_of_a_strided_tensor(shape: tuple[int, ...]) -> None:
    """As of a copy in C order, without making it."""
    ramp = torch.arange(2.0 * SAMPLE)
    found = _first(ramp[0].expand(shape))
    assert found.equal(torch.zeros(min(SAMPLE, found.numel()))) and found.numel() == min(
        SAMPLE, torch.Size(shape).numel()
    )
    if 0 < torch.Size(shape).numel() < 2 * SAMPLE:
        whole = ramp[: torch.Size(shape).numel()].reshape(shape[::-1]).permute(tuple(reversed(range(len(shape)))))
        assert _first(whole).equal(whole.flatten()[:SAMPLE])


def test_strides_are_those_of_pytorch() -> None:
    for shape in ((), (3,), (2, 3, 5), (1, 4, 1), (7,) * 5, (1,) * 64):
        assert entries.c_strides(shape) == torch.empty(shape).stride()


# What nobody thought of

NAMES: dict[str, tuple[Any, dict[str, str]]] = {
    "an attention without a layer": (
        "diffusers",
        {"decoder.up_blocks.0.attentions.0": "the first is 'decoder.up_blocks.0.attentions.0'"},
    ),
    "an attention in the middle": (
        "diffusers",
        {"decoder.mid_block.attentions.0": "the first is 'decoder.mid_block.attentions.0'"},
    ),
    "an old name beside the new one": (
        "diffusers",
        {"decoder.mid_block.attentions.0.query.weight": "are the same part of a VAE"},
    ),
    "Flux.2's name beside SD's": ("ldm", {"encoder.quant_conv.weight": "are the same part of a VAE"}),
    "a digit of another script": ("ldm", {"encoder.down.٠.block.0.norm1.weight": "are the same part of a VAE"}),
    "a digit without an end": (
        "ldm",
        {f"encoder.down.{'9' * 900}.block.0.norm1.weight": "its configuration does not have"},
    ),
}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("bare", [True, False])
def test_names_that_nobody_thought_of(tmp_path: Path, case: str, bare: bool) -> None:
    layout, names = NAMES[case]
    path = saved(tmp_path, ATTENTIVE, layout)
    file = path / WEIGHTS if path.is_dir() else path
    metadata = {} if bare else open_archive(file).metadata
    for renamed, said in names.items():
        changed(file, {renamed: torch.zeros(1)}, **metadata)
        assert said in refusal(path)


@pytest.mark.parametrize("name", ["weight", "", "...", "encoder", "decoder.", "ENCODER.x"])
@pytest.mark.parametrize("layout", ["native", "ldm"])
def test_names_that_are_no_part_of_a_vae(tmp_path: Path, name: str, layout: str) -> None:
    """They are listed, unless they begin as a part does."""
    path = saved(tmp_path, ATTENTIVE, layout)
    changed(path, {name: torch.zeros(1)}, **open_archive(path).metadata)
    if name == "decoder.":
        assert "its configuration does not have; the first is 'decoder.'" in refusal(path)
    else:
        assert locate(path).beside == (name,)


def test_layers_without_numbers(tmp_path: Path) -> None:
    none = {
        n: torch.zeros(1)
        for n in ("decoder.layers.x", "encoder.layers.", "decoder.layers.0.weight", "encoder.layers.x.weight")
    }
    save_file(none, tmp_path / "x")
    assert "no layers in its encoder" in refusal(tmp_path / "x")


def test_metadata_of_another_network(tmp_path: Path) -> None:
    kl, tiny = saved(tmp_path, ATTENTIVE, "native"), saved(tmp_path, TINY, "taesd")
    other = open_archive(kl).metadata
    assert "has no tensor 'encoder.conv_in.weight'" in refusal(changed(tiny, **other))
    values = {"version": 1, "network": "tiny", "autoencoder": {**to_dict(TINY), "normalization": "batchnorm"}}
    assert "has no tensor" in refusal(changed(tiny, vaeworks=json.dumps(values)))
    assert layout_name("bn.running_mean", "taesd", TINY) == "bn.running_mean"


@pytest.mark.parametrize(
    "path", ["~nobody-of-that-name/x", "a" * 300, "x\0y", "/dev/zero", "/proc/self/maps", "hf:../..", "hf:a"]
)
def test_paths_that_lead_nowhere(path: str) -> None:
    refusal(path)


@pytest.mark.parametrize(
    "kind", [*FOREIGN, RecursionError, OverflowError, KeyError, IndexError, ZeroDivisionError, UnicodeDecodeError]
)
def test_whatever_goes_wrong_is_a_sentence(
    tmp_path: Path, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Any:
        raise (
            UnicodeDecodeError("utf-8", b"a\n", 0, 1, "why")
            if kind is UnicodeDecodeError
            else kind("a\nb\x1b" + "c" * 9000)
        )

    path = saved(tmp_path)
    located = locate(path)
    monkeypatch.setattr(locating, "find_source", fails)
    monkeypatch.setattr("vaeworks.formats.identify.support", fails)
    monkeypatch.setattr("vaeworks.formats.io.is_finite", fails)
    for way in (
        lambda: locate(path),
        lambda: vw.load(path),
        lambda: identify(path),
        lambda: vw.formats.identify.identify_located(located),
    ):
        with pytest.raises(FormatError, match=r"^[^\n]+$") as caught:
            way()
        assert str(path) in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 600
        assert isinstance(caught.value.__cause__, kind)


def test_a_sentence_passes_unchanged() -> None:
    for error in (VaeworksError("a"), vw.ConfigError("b")):
        with pytest.raises(VaeworksError) as caught, understood("x"):
            raise error
        assert caught.value is error


# Files that change while they are read

CHANGES = """
import os, sys, time
from pathlib import Path
from vaeworks.errors import FormatError
from vaeworks.formats.identify import identify_located
from vaeworks.formats.io import read
from vaeworks.formats.locate import locate

def all_chunks(located):
    for name in located.archive.entries:
        for chunk in located.archive.chunks(name):
            bytes(chunk)

def all_tensors(located):
    for name in located.archive.entries:
        located.archive.read(name).sum()

def cut(path):
    os.truncate(path, path.stat().st_size // 2)

def emptied(path):
    os.truncate(path, 0)

def rewritten(path):
    before = path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == before:
        content = path.read_bytes()
        with path.open("r+b") as file:
            file.write(content)

def replaced(path):
    path.with_suffix(".new").write_bytes(b"something else")
    path.with_suffix(".new").replace(path)

def removed(path):
    path.unlink()

for given in sys.argv[1:]:
    path = Path(given)
    whole = path.read_bytes()
    for use in (read, identify_located, all_chunks, all_tensors):
        for change in (cut, emptied, rewritten, replaced, removed):
            path.write_bytes(whole)
            located = locate(path)
            change(path)
            try:
                use(located)
                said = "fine"
            except FormatError as error:
                said = str(error)
            print(path.suffix, use.__name__, change.__name__, said, sep="\\t")
"""
"""In a process of its own, which SIGBUS may kill."""


def test_files_that_are_cut_or_rewritten(tmp_path: Path) -> None:
    """A sentence, and never the end of the process; what is replaced by another file, or removed, stays what it was."""
    vae = vw.build(WIDE)
    vw.save(vae, tmp_path / "a.safetensors")
    torch.save(vae.state_dict(), tmp_path / "a.zip")
    torch.save(vae.state_dict(), tmp_path / "a.old", _use_new_zipfile_serialization=False)
    torch.save(
        {n: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in vae.state_dict().items()},
        tmp_path / "a.last",
    )
    files = [str(tmp_path / f"a.{kind}") for kind in ("safetensors", "zip", "old", "last")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHANGES, *files],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = {tuple(line.split("\t")[:3]): line.split("\t")[3] for line in done.stdout.splitlines()}
    assert len(said) == 4 * 4 * 5
    words = {
        "cut": "was cut from",
        "emptied": "was cut from",
        "rewritten": "was written to",
        "replaced": "fine",
        "removed": "fine",
    }
    for (file, use, change), answer in said.items():
        assert words[change] in answer, (file, use, change)


def test_a_consumer_of_chunks_is_told_between_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "CHUNK", 64)
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(1000), "y": torch.zeros(30, 40)}, path)
    chunks = open_archive(path).chunks("x")
    assert bytes(next(chunks)) == bytes(64)
    with path.open("r+b") as file:
        file.truncate(300)
    with pytest.raises(FormatError, match="was cut from"):
        next(chunks)


@pytest.mark.parametrize("container", [torch_zip, torch_stream])
def test_equal_texts_of_pickles_are_one_object(tmp_path: Path, container: Any) -> None:
    """Long names that are equal and not the same would be compared byte by byte, a hundred thousand times."""
    machine = Machine("file")
    path = written(tmp_path, program(text("a" * 5000) + b"q\1" + text("a" * 5000) + b"q\2."))
    machine.interpret(Stream(mapped(path), 0, path.stat().st_size))
    assert machine.memo[1] is machine.memo[2]
    long = text("a" * 20_000_000)
    pairs = long + b"q\1" + long + b"q\2" + tensor() + b"q\3}(" + b"h\1h\3h\2h\3" * 50_000 + b"u"
    assert "20000000 characters long" in unopened(written(tmp_path, container(program(pairs)), "names.ckpt"))


def test_the_files_of_a_model_share_the_steps_of_their_pickles(tmp_path: Path) -> None:
    """A hundred files of a million steps each would take minutes."""
    for number_of in range(3):
        body = b"(" + b"N" * (MAX_STEPS * 2 // 5) + b"t0" + table({f"t{number_of}": tensor()})
        written(tmp_path, torch_zip(program(body)), f"m{number_of}.bin")
    index = {"weight_map": {f"t{n}": f"m{n}.bin" for n in range(3)}}
    said = unopened(written(tmp_path, json.dumps(index).encode(), "m.bin.index.json"))
    assert "more than 1000000 steps" in said
    assert len(open_archive(tmp_path / "m2.bin").entries) == 1


def test_the_files_of_a_model_share_the_length_of_their_headers(tmp_path: Path) -> None:
    """One file under a thousand names has a header for each."""
    index = {"weight_map": {"x": "m0.safetensors", **{f"x{n}": f"m{n}.safetensors" for n in range(1, 50)}}}
    written(tmp_path, safetensors({"x": EMPTY}), "m0.safetensors")
    long = written(tmp_path, safetensors({"__metadata__": {str(n): "x" * 1500 for n in range(2000)}}), "m1.safetensors")
    for n in range(2, 50):
        (tmp_path / f"m{n}.safetensors").hardlink_to(long)
    assert "have headers of more than" in unopened(
        written(tmp_path, json.dumps(index).encode(), "m.safetensors.index.json")
    )


def test_headers_of_files_that_are_no_models_have_an_end(tmp_path: Path) -> None:
    """Checkpoints, shards of latents and directions: a million empty tensors would take a minute and 2 GB."""
    path = written(
        tmp_path,
        struct.pack("<Q", limits.MAX_HEADER + 8) + b"{}".ljust(limits.MAX_HEADER + 8),
        "0000000001.safetensors",
    )
    with pytest.raises(FormatError, match="claims a header of 16777224 bytes"):
        read_tensors(path)
    with pytest.raises(FormatError, match="none of the 1 checkpoints"):
        newest_checkpoint(tmp_path)
    assert planned_checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    "changed", [{"seconds": 1e308}, {"seconds": float("nan")}, {"seconds": -1.0}, {"images_seen": 2**62}]
)
def test_a_checkpoint_is_not_from_beyond_time(tmp_path: Path, changed: dict[str, Any]) -> None:
    position = {"images_seen": 1, "seconds": 1.0, "balance": {}, "planned": True}
    path = tmp_path / "0000000001.safetensors"
    save_file({"x": torch.zeros(1)}, path, {METADATA_KEY: json.dumps(position)})
    assert planned_checkpoints(tmp_path) == [path]
    save_file({"x": torch.zeros(1)}, path, {METADATA_KEY: json.dumps(position | changed)})
    assert planned_checkpoints(tmp_path) == []
