"""VAEs out of full checkpoints and into them: bytes, names, metadata, memory, and what must be refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from checkpoints import F8C4, FIRST_STAGE, checkpoint, denoiser, ldm_tensors, saved
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import vaeworks as vw
from vaeworks.config import AutoencoderConfig, TinyConfig
from vaeworks.errors import ConfigError, FormatError, VaeworksError
from vaeworks.files.atomic import ROOM, atomic
from vaeworks.formats import bake as baking
from vaeworks.formats.archive.entries import Entry
from vaeworks.formats.bake import bake, extract
from vaeworks.formats.keymap import is_attention_matrix, ldm_name
from vaeworks.formats.locate import locate
from vaeworks.formats.stream import Item, tensor_item, write_stream
from vaeworks.reporting import Progress, Reporter

SDXL_LIKE = AutoencoderConfig(
    channels=8, channel_mult=(1, 2, 1, 1), num_res_blocks=2, norm_groups=4, scaling_factor=0.13025
)


def raw(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """(dtype, shape, bytes) of every tensor, read independently of the code under test."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    content = data[8 + length :]
    return {name: (v["dtype"], tuple(v["shape"]), content[slice(*v["data_offsets"])]) for name, v in header.items()}


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


# Writing


def test_a_written_file_is_what_safetensors_reads(tmp_path: Path) -> None:
    """Every dtype, empty and 0-dimensional tensors, aligned to their elements, as safetensors' own reader sees them."""
    tensors = denoiser()
    with atomic(tmp_path / "a.safetensors") as temporary:
        size = write_stream(temporary, [tensor_item(name, t) for name, t in tensors.items()], {"k": 'ä"\n'})
    path = tmp_path / "a.safetensors"
    assert path.stat().st_size == size
    assert metadata_of(path) == {"k": 'ä"\n'}
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == tensors.keys()
        for name, expected in tensors.items():
            got = file.get_tensor(name)
            assert got.dtype == expected.dtype and got.shape == expected.shape
            assert raw(path)[name][2] == expected.reshape(-1).view(torch.uint8).numpy().tobytes()
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    header.pop("__metadata__")
    assert length % 8 == 0
    for name, tensor in tensors.items():
        assert header[name]["data_offsets"][0] % tensor.itemsize == 0
    assert list(header) == sorted(header, key=lambda name: header[name]["data_offsets"])


def test_the_file_is_for_everyone_whom_the_umask_allows(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic(tmp_path / "a.safetensors") as temporary:
            write_stream(temporary, [tensor_item("x", torch.zeros(3))])
    finally:
        os.umask(old)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("chunks", "word"), [([b"abc"], "1 fewer"), ([b"ab", b"cde"], "more"), ([], "4 fewer")])
def test_chunks_of_another_length_are_an_error(tmp_path: Path, chunks: list[bytes], word: str) -> None:
    item = Item("x", Entry("U8", (4,)), lambda: iter(chunks))
    with pytest.raises(FormatError, match=word), atomic(tmp_path / "a.safetensors") as temporary:
        write_stream(temporary, [item])
    assert not list(tmp_path.iterdir())


def test_names_and_dtypes_that_cannot_be_written(tmp_path: Path) -> None:
    for items, word in (
        ([tensor_item("x", torch.zeros(1))] * 2, "two tensors"),
        ([tensor_item("__metadata__", torch.zeros(1))], "two tensors"),
        ([Item("x", Entry("complex128", ()), lambda: (bytes(16),))], "no dtype complex128"),
    ):
        with pytest.raises(FormatError, match=word), atomic(tmp_path / "a.safetensors") as temporary:
            write_stream(temporary, items)
        assert not list(tmp_path.iterdir())


def test_room_is_looked_for_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = ROOM + 3_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))

    def unwanted() -> Iterator[bytes]:
        raise AssertionError("read before there was room")

    with (
        pytest.raises(VaeworksError, match=r"3\.9 MiB free, and 4\.8 MiB are needed"),
        atomic(tmp_path / "a") as temporary,
    ):
        write_stream(temporary, [Item("x", Entry("U8", (4_000_000,)), unwanted)])
    assert not list(tmp_path.iterdir())


# Extracting


def test_extract_is_the_vae_byte_for_byte(tmp_path: Path) -> None:
    """Names without the prefix, nothing of the rest, training's leftovers behind, and the scale that the checkpoint
    tells."""
    inside = ldm_tensors()
    full = checkpoint(
        tmp_path / "full.safetensors", inside | {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.zeros(())}
    )
    done = extract(full, tmp_path / "vae.safetensors")
    out = raw(tmp_path / "vae.safetensors")
    whole = raw(full)
    assert out == {name: whole[FIRST_STAGE + name] for name in inside}
    assert done.tensors == len(inside) and done.bytes == (tmp_path / "vae.safetensors").stat().st_size
    assert any("loss.* (1)" in note and "model_ema.* (1)" in note for note in done.notes)
    assert metadata_of(tmp_path / "vae.safetensors")[baking.SOURCE_KEY] == "full.safetensors"
    located = locate(tmp_path / "vae.safetensors")
    assert located.layout == "ldm" and located.normalization_source == "metadata"
    assert (located.config.scaling_factor, located.config.name) == (0.18215, "f8c4")


@pytest.mark.parametrize("dimensions", [2, 3])
def test_attention_becomes_a_convolution(tmp_path: Path, dimensions: int) -> None:
    """Some checkpoints store attention's matrices as such; A1111's strict loader wants 1x1 convolutions. The bytes are
    the same."""
    inside = ldm_tensors()
    flat = {
        name: t.reshape(t.shape[:dimensions]) if ".attn_1." in name and t.ndim == 4 else t for name, t in inside.items()
    }
    full = checkpoint(tmp_path / "full.safetensors", flat)
    extract(full, tmp_path / "vae.safetensors")
    assert raw(tmp_path / "vae.safetensors") == raw(saved_file(tmp_path / "expected.safetensors", inside))


def saved_file(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path)
    return path


def test_extract_from_a_pickle(tmp_path: Path) -> None:
    inside = ldm_tensors()
    state = denoiser() | {FIRST_STAGE + name: t for name, t in inside.items()}
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "full.ckpt")
    extract(tmp_path / "full.ckpt", tmp_path / "vae.safetensors")
    assert raw(tmp_path / "vae.safetensors") == raw(saved_file(tmp_path / "expected.safetensors", inside))


def test_extract_from_shards(tmp_path: Path) -> None:
    inside = ldm_tensors()
    state = denoiser() | {FIRST_STAGE + name: t for name, t in inside.items()}
    names = sorted(state)
    parts = {"a-1.safetensors": names[::2], "a-2.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: state[name] for name in own}, tmp_path / file)
    index = tmp_path / "a.safetensors.index.json"
    index.write_text(
        json.dumps({"metadata": {}, "weight_map": {name: file for file, own in parts.items() for name in own}})
    )
    extract(index, tmp_path / "vae.safetensors")
    assert raw(tmp_path / "vae.safetensors") == raw(saved_file(tmp_path / "expected.safetensors", inside))


def test_extract_from_a_diffusers_pipeline(tmp_path: Path) -> None:
    """Names become LDM's on the way, and the configuration that the folder's config.json has goes into the metadata."""
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    saved(folder / "vae", SDXL_LIKE, "diffusers")
    extract(folder, tmp_path / "vae.safetensors")
    saved(tmp_path / "expected.safetensors", SDXL_LIKE, "ldm")
    assert raw(tmp_path / "vae.safetensors") == raw(tmp_path / "expected.safetensors")
    assert locate(tmp_path / "vae.safetensors").config == locate(folder).config


def test_a_guess_is_not_written_down(tmp_path: Path) -> None:
    """A VAE of SD's very shape, behind a prefix but without a denoiser, may be SD 1's or SDXL's."""
    with torch.device("meta"):
        state = vw.build("sd1").state_dict()
    items = []
    for name, t in state.items():
        entry = Entry("F16", (*t.shape, 1, 1) if is_attention_matrix(name) else tuple(t.shape))
        items.append(Item(FIRST_STAGE + ldm_name(name, 4), entry, lambda entry=entry: (b"\1" * entry.nbytes,)))
    with atomic(tmp_path / "prefixed.safetensors") as temporary:
        write_stream(temporary, items)
    done = extract(tmp_path / "prefixed.safetensors", tmp_path / "vae.safetensors")
    assert "vaeworks" not in metadata_of(tmp_path / "vae.safetensors")
    assert any("scaled" in note for note in done.notes)


def test_extract_refuses(tmp_path: Path) -> None:
    bare = saved(tmp_path / "bare.safetensors")
    full = checkpoint(tmp_path / "full.safetensors")
    with pytest.raises(ConfigError, match="a VAE by itself"):
        extract(bare, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        extract(full, tmp_path / "x.ckpt")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        extract(full, tmp_path / "folder.safetensors", overwrite=True)
    with pytest.raises(ConfigError, match="exists"):
        extract(full, bare)
    with pytest.raises(FormatError, match="no VAE"):
        extract(saved_file(tmp_path / "unet.safetensors", denoiser()), tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


# Baking


def test_baking_what_was_extracted_changes_nothing(tmp_path: Path) -> None:
    full = checkpoint(tmp_path / "full.safetensors")
    extract(full, tmp_path / "vae.safetensors")
    done = bake(tmp_path / "vae.safetensors", full, tmp_path / "again.safetensors")
    assert raw(tmp_path / "again.safetensors") == raw(full)
    assert (done.prefix, done.dtype) == (FIRST_STAGE, "F16")
    assert (done.tensors, done.replaced, done.kept) == (len(ldm_tensors()), len(ldm_tensors()), len(denoiser()))


@pytest.mark.parametrize("layout", ["native", "diffusers", "ldm"])
def test_bake_replaces_the_vae_and_nothing_else(tmp_path: Path, layout: str) -> None:
    """A VAE of another shape, in any layout, in the dtype of the old one, which leaves no tensor behind."""
    config = AutoencoderConfig(
        channels=8,
        channel_mult=(1, 1, 1, 2),
        num_res_blocks=2,
        norm_groups=4,
        scaling_factor=0.18215,
        quant_conv=False,
        post_quant_conv=False,
    )
    vae = saved(tmp_path / ("vae" if layout == "diffusers" else "vae.safetensors"), config, layout, seed=3)
    full = checkpoint(tmp_path / "full.safetensors", ldm_tensors() | {"loss.logvar": torch.zeros(())})
    done = bake(vae, full, tmp_path / "new.safetensors")
    new, old = raw(tmp_path / "new.safetensors"), raw(full)
    expected = raw(saved_file(tmp_path / "expected.safetensors", ldm_tensors(config, seed=3)))
    assert {n.removeprefix(FIRST_STAGE): v for n, v in new.items() if n.startswith(FIRST_STAGE)} == expected
    assert {n: v for n, v in new.items() if not n.startswith(FIRST_STAGE)} == {n: old[n] for n in denoiser()}
    assert done.replaced == len(ldm_tensors()) + 1
    carried = metadata_of(tmp_path / "new.safetensors")
    assert carried.pop("vaeworks")
    assert carried == {"format": "pt", "modelspec.title": "a model"}
    assert any("sshs_model_hash, sshs_legacy_hash, modelspec.hash_sha256" in note for note in done.notes)
    assert vw.load(tmp_path / "new.safetensors").config.num_res_blocks == 2


def test_bake_into_a_checkpoint_without_a_vae(tmp_path: Path) -> None:
    """Under the prefix of its family, in the VAE's own dtype; a torn VAE counts as none, and is gone."""
    vae = saved(tmp_path / "vae.safetensors")
    torn = {
        FIRST_STAGE + "decoder.conv_in.weight": torch.zeros(8, 4, 3, 3),
        FIRST_STAGE + "decoder.left.over": torch.zeros(3),
    }
    for extra in ({}, torn):
        full = saved_file(tmp_path / "full.safetensors", denoiser() | extra)
        done = bake(vae, full, tmp_path / "new.safetensors", overwrite=True)
        names = {n for n in raw(tmp_path / "new.safetensors") if n.startswith(FIRST_STAGE)}
        assert names == {FIRST_STAGE + n for n in ldm_tensors()}
        assert (done.dtype, done.replaced) == ("F32", len(extra))


def test_bake_in_a_dtype(tmp_path: Path) -> None:
    vae, full = saved(tmp_path / "vae.safetensors"), checkpoint(tmp_path / "full.safetensors")
    done = bake(vae, full, tmp_path / "new.safetensors", dtype=torch.bfloat16)
    expected = raw(saved_file(tmp_path / "expected.safetensors", ldm_tensors(dtype=torch.bfloat16)))
    new = raw(tmp_path / "new.safetensors")
    assert done.dtype == "BF16" and all(new[FIRST_STAGE + name] == value for name, value in expected.items())


def test_weights_that_do_not_survive_are_refused(tmp_path: Path) -> None:
    full = checkpoint(tmp_path / "full.safetensors")
    tensors = ldm_tensors(dtype=torch.float32)
    for value, dtype, error, word in (
        (1e6, None, ConfigError, "1e.06, more than"),
        (float("nan"), None, FormatError, "no numbers"),
        (float("nan"), torch.float32, FormatError, "no numbers"),
    ):
        tensors["decoder.conv_out.bias"] = torch.full((3,), value)
        save_file(tensors, tmp_path / "vae.safetensors")
        with pytest.raises(error, match=word):
            bake(tmp_path / "vae.safetensors", full, tmp_path / "new.safetensors", dtype=dtype)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["full.safetensors", "vae.safetensors"]


def test_bake_into_a_pickle_makes_safetensors(tmp_path: Path) -> None:
    state = denoiser() | {FIRST_STAGE + name: t for name, t in ldm_tensors().items()}
    del state["model.diffusion_model.odd"]
    torch.save({"state_dict": state, "global_step": 3, "optimizer_states": [1]}, tmp_path / "full.ckpt")
    bake(saved(tmp_path / "vae.safetensors", seed=1), tmp_path / "full.ckpt", tmp_path / "new.safetensors")
    new, old = raw(tmp_path / "new.safetensors"), raw(saved_file(tmp_path / "expected.safetensors", state))
    assert {n: v for n, v in new.items() if not n.startswith(FIRST_STAGE)} == {
        n: v for n, v in old.items() if not n.startswith(FIRST_STAGE)
    }
    assert metadata_of(tmp_path / "new.safetensors")["format"] == "pt"


def test_bake_in_place_is_a_wish(tmp_path: Path) -> None:
    full, vae = checkpoint(tmp_path / "full.safetensors"), saved(tmp_path / "vae.safetensors", seed=5)
    before = full.read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        bake(vae, full, full)
    assert full.read_bytes() == before
    bake(vae, full, full, overwrite=True)
    expected = raw(saved_file(tmp_path / "expected.safetensors", ldm_tensors(seed=5)))
    assert {n.removeprefix(FIRST_STAGE): v for n, v in raw(full).items() if n.startswith(FIRST_STAGE)} == expected


def test_another_scale_is_said(tmp_path: Path) -> None:
    """SDXL's scale in an SD 1 checkpoint is foggy; the checkpoint's own is not worth a word."""
    full = checkpoint(tmp_path / "full.safetensors")
    notes = bake(saved(tmp_path / "xl.safetensors", SDXL_LIKE), full, tmp_path / "a.safetensors").notes
    assert any("0.18215" in note and "0.13025" in note and "vaeworks fold" in note for note in notes)
    notes = bake(saved(tmp_path / "sd.safetensors", F8C4), full, tmp_path / "b.safetensors").notes
    assert not any("scaling_factor" in note for note in notes)
    bare = saved_file(tmp_path / "bare.safetensors", ldm_tensors(SDXL_LIKE))
    notes = bake(bare, full, tmp_path / "c.safetensors").notes
    assert any("does not say how its latents are scaled" in note for note in notes)
    assert "vaeworks" not in metadata_of(tmp_path / "c.safetensors")


def test_what_applications_do_not_see_is_said(tmp_path: Path) -> None:
    config = AutoencoderConfig(**{**F8C4.__dict__, "padding_mode": "reflect"})
    notes = bake(
        saved(tmp_path / "vae.safetensors", config), checkpoint(tmp_path / "f.safetensors"), tmp_path / "a.safetensors"
    ).notes
    assert any("padding_mode reflect" in note for note in notes)
    assert any("no application will load it" in note and "widths" in note for note in notes)


MISFITS = {
    "channels": (AutoencoderConfig(**{**F8C4.__dict__, "latent_channels": 16}), "latent_channels 4"),
    "factor": (AutoencoderConfig(**{**F8C4.__dict__, "channel_mult": (1, 1, 2)}), "downsample_factor 8"),
    "flux2": (
        AutoencoderConfig(**{**F8C4.__dict__, "normalization": "batchnorm", "latents_patch": 2}),
        "without batch normalization",
    ),
    "taesd": (TinyConfig(encoder_widths=(8,) * 4, decoder_widths=(8,) * 4), "TAESD"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_bake_refuses_a_vae_that_cannot_fit(tmp_path: Path, name: str) -> None:
    config, word = MISFITS[name]
    vae = saved(tmp_path / "vae.safetensors", config, "taesd" if name == "taesd" else "ldm")
    full = checkpoint(tmp_path / "full.safetensors")
    with pytest.raises(ConfigError, match=word):
        bake(vae, full, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_bake_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    vae = saved(tmp_path / "vae.safetensors")
    out = tmp_path / "new.safetensors"
    with pytest.raises(FormatError, match="a VAE by itself"):
        bake(vae, vae, out)
    lora = saved_file(tmp_path / "lora.safetensors", {"lora_unet_x.lora_down.weight": torch.zeros(4, 4)})
    with pytest.raises(FormatError, match="LoRA"):
        bake(vae, lora, out)
    with pytest.raises(FormatError, match="no kind that vaeworks knows"):
        bake(vae, saved_file(tmp_path / "odd.safetensors", {"a": torch.zeros(1), "b": torch.zeros(2)}), out)
    with pytest.raises(FormatError, match="does not exist"):
        bake(vae, tmp_path / "none.safetensors", out)
    saved(tmp_path / "pipeline" / "vae", layout="diffusers")
    with pytest.raises(ConfigError, match="--layout diffusers"):
        bake(vae, tmp_path / "pipeline", out)
    wan = {"head.modulation": torch.zeros(1, 2, 8), "patch_embedding.weight": torch.zeros(8, 16, 1, 2, 2)}
    deep = AutoencoderConfig(**{**F8C4.__dict__, "latent_channels": 16})
    with pytest.raises(ConfigError, match=r"Wan 2\.1, which needs a kind of VAE"):
        bake(saved(tmp_path / "16.safetensors", deep), saved_file(tmp_path / "wan.safetensors", wan), out)
    assert not out.exists()


def test_newer_packages_keep_their_prefix(tmp_path: Path) -> None:
    """Flux.1's checkpoints have the VAE under vae."""
    flux = {"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(4), "img_in.weight": torch.zeros(8, 64)}
    state = {"model.diffusion_model." + name: t for name, t in flux.items()}
    config = AutoencoderConfig(
        **{**F8C4.__dict__, "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159}
    )
    vae = saved(tmp_path / "vae.safetensors", config)
    full = saved_file(tmp_path / "full.safetensors", state | {"vae." + n: t for n, t in ldm_tensors(config, 1).items()})
    done = bake(vae, full, tmp_path / "new.safetensors")
    assert done.prefix == "vae." and not any("scaling_factor" in note for note in done.notes)
    bare = saved_file(tmp_path / "unet.safetensors", state)
    assert bake(vae, bare, tmp_path / "new2.safetensors").prefix == "vae."


# Memory and interruption


def large_checkpoint(path: Path, mib: int) -> Path:
    """A sparse file: a denoiser with one tensor of so many MiB of zeros, and a VAE."""
    tensors = denoiser() | {FIRST_STAGE + name: t for name, t in ldm_tensors().items()}
    header, place, content = {}, 0, b""
    for name, t in sorted(tensors.items(), key=lambda pair: -pair[1].itemsize):
        entry = tensor_item(name, t).entry
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [place, place + entry.nbytes]}
        content += t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        place += entry.nbytes
    header["zeros"] = {"dtype": "U8", "shape": [mib * 2**20], "data_offsets": [place, place + mib * 2**20]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + content)
        file.truncate(file.tell() + mib * 2**20)
    return path


class Counting(Reporter):
    """Calls a function with the bytes that are done and to be done."""

    def __init__(self, moved: Callable[[int, int], object]):
        self.moved = moved

    @contextmanager
    def bytes(self, what: str) -> Iterator[Progress]:
        yield self.moved


def anonymous_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is counted by Linux")
def test_the_rest_is_never_in_memory(tmp_path: Path) -> None:
    """A checkpoint of 300 MB passes through with less than 32 MiB beside what is mapped."""
    full, vae = large_checkpoint(tmp_path / "full.safetensors", 300), saved(tmp_path / "vae.safetensors")
    bake(vae, checkpoint(tmp_path / "warm.safetensors"), tmp_path / "warmed.safetensors")
    before, peaks = anonymous_kib(), [0]
    tracemalloc.start()
    done = bake(vae, full, tmp_path / "new.safetensors", reporter=Counting(lambda *_: peaks.append(anonymous_kib())))
    traced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert traced < 32 * 2**20
    assert max(peaks) - before < 32 * 2**10
    assert done.bytes > 300 * 2**20
    assert (tmp_path / "new.safetensors").stat().st_size == done.bytes
    shutil.rmtree(tmp_path)  # it is large


def test_progress_counts_bytes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    full = checkpoint(tmp_path / "full.safetensors")
    done = bake(
        saved(tmp_path / "vae.safetensors"),
        full,
        tmp_path / "new.safetensors",
        reporter=Counting(lambda *now: seen.append(now)),
    )
    assert seen == sorted(seen) and seen[-1] == (done.bytes, done.bytes) and len(seen) == done.tensors + done.kept


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    vae, full = saved(tmp_path / "vae.safetensors"), checkpoint(tmp_path / "full.safetensors")

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        bake(vae, full, tmp_path / "new.safetensors", reporter=Counting(interrupt))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    vae, full = saved(tmp_path / "vae.safetensors"), checkpoint(tmp_path / "full.safetensors")
    before = full.read_bytes()
    code = (
        "import contextlib, os, sys\nfrom vaeworks.formats.bake import bake\nfrom vaeworks.reporting import Reporter\n"
        "class Kill(Reporter):\n  @contextlib.contextmanager\n  def bytes(self, what):\n"
        "    yield lambda done, total: done > total // 2 and os.kill(os.getpid(), 9)\n"
        "bake(*sys.argv[1:], overwrite=True, reporter=Kill())"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(vae), str(full), str(full)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert full.read_bytes() == before
