"""Model files by the thousand: sound ones of every layout and container, altered, and bombs of random sizes."""

from __future__ import annotations

import functools
import json
import random
import struct
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
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
    zipped,
)
from fuzzing import Target

import vaeworks as vw
from vaeworks.config import AutoencoderConfig, TinyConfig
from vaeworks.errors import FormatError
from vaeworks.formats.archive import open_archive
from vaeworks.formats.diffusers_config import diffusers_class, diffusers_config
from vaeworks.formats.identify import identify
from vaeworks.formats.io import stored_tensors
from vaeworks.formats.locate import locate
from vaeworks.formats.native import config_metadata
from vaeworks.formats.sources import WEIGHTS

KL = AutoencoderConfig(channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4, attention_factors=(2,))
FLUX2 = AutoencoderConfig(
    channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    norm_groups=4,
    latent_channels=2,
    normalization="batchnorm",
    latents_patch=2,
)
TINY = TinyConfig(encoder_widths=(8, 8), encoder_blocks=(0, 1), decoder_widths=(8, 8), decoder_blocks=(0, 1))
POOLED = TinyConfig(
    encoder_widths=(8, 8), encoder_blocks=(0, 1), decoder_widths=(8, 8), decoder_blocks=(0, 1), mid_pool=True
)

BASES: tuple[tuple[AutoencoderConfig | TinyConfig, str], ...] = (
    (KL, "native"), (KL, "ldm"), (KL, "diffusers"), (FLUX2, "native"), (FLUX2, "ldm"), (FLUX2, "diffusers"),
    (TINY, "native"), (TINY, "taesd"), (TINY, "diffusers"), (POOLED, "native"), (POOLED, "taesd"),
)  # fmt: skip

Header = dict[str, Any]
"""A safetensors header: tensors and metadata by name."""


@functools.cache
def base(number: int) -> tuple[dict[str, torch.Tensor], dict[str, str], dict[str, Any]]:
    """A sound model's tensors, metadata and config.json."""
    config, layout = BASES[number]
    torch.manual_seed(number)
    tensors = {n: t.detach().contiguous() for n, t in stored_tensors(vw.build(config), layout).items()}
    try:
        description = {"_class_name": diffusers_class(config), **diffusers_config(config)}
    except vw.ConfigError:
        description = {"_class_name": diffusers_class(config)}
    return tensors, {"format": "pt", **config_metadata(config)}, description


@functools.cache
def packed(number: int) -> tuple[str, bytes]:
    """A sound model's header, as JSON, and content."""
    tensors, metadata, _ = base(number)
    header: Header = {"__metadata__": metadata}
    content = b""
    for n, t in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        raw = t.numpy().tobytes()
        dtype = "I64" if t.dtype == torch.int64 else "F32"
        header[n] = {"dtype": dtype, "shape": list(t.shape), "data_offsets": [len(content), len(content) + len(raw)]}
        content += raw
    return json.dumps(header), content


@functools.cache
def pickled(number: int, new: bool) -> bytes:
    """A sound model as torch.save writes it."""
    tensors, _, _ = base(number)
    with tempfile.NamedTemporaryFile() as file, warnings.catch_warnings(action="ignore"):
        torch.save({"state_dict": OrderedDict(tensors), "epoch": 3}, file.name, _use_new_zipfile_serialization=new)
        return Path(file.name).read_bytes()


PARTS = (
    *(
        "encoder",
        "decoder",
        "levels",
        "down",
        "up",
        "down_blocks",
        "up_blocks",
        "block",
        "blocks",
        "resnets",
        "attentions",
        "attn",
        "mid",
    ),
    *(
        "middle",
        "mid_block",
        "attn_1",
        "block_1",
        "query",
        "key",
        "to_q",
        "to_out",
        "proj_attn",
        "out",
        "norm",
        "conv",
        "weight",
        "bias",
    ),
    *(
        "quant_conv",
        "post_quant_conv",
        "layers",
        "taesd_encoder",
        "taesd_decoder",
        "first_stage_model",
        "vae",
        "loss",
        "model_ema",
        "bn",
    ),
    *(
        "downsample",
        "upsamplers",
        "conv_in",
        "conv_out",
        "running_mean",
        "num_batches_tracked",
        "0",
        "1",
        "2",
        "7",
        "15",
        "999",
        "-1",
    ),
    *(
        "",
        " ",
        "٣",
        "²",
        "é",
        "\n",
        "\x1b[2J",
        "{}",
        "%s",
        "00",
        "9" * 400,
        "a" * 1500,
        "__metadata__",
        "conditioner",
        "model",
    ),
)
"""Parts of names of all layouts, and of none."""

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        16,
        17,
        64,
        1000,
        2**31,
        2**63 - 1,
        2**63,
        2**64,
        10**30,
        10**4000,
        10**400,
        -(10**4000),
    ),
    *(
        0.0,
        -0.5,
        1e-320,
        1e308,
        float("inf"),
        float("nan"),
        0.18215,
        "",
        "a",
        "a" * 3000,
        "\x1b]0;x\x07",
        "é",
        "\ud800",
        "silu",
        "scalar",
    ),
    *(
        "channel",
        "batchnorm",
        "kl",
        "point",
        "tanh",
        "reflect",
        "AutoencoderKL",
        "AutoencoderTiny",
        "AutoencoderKLFlux2",
        "VQModel",
    ),
    *(
        [],
        {},
        [1],
        [1, 2],
        [8, 16],
        [1.5],
        [0],
        [-1],
        [None],
        ["a"],
        [[8]],
        {"a": 1},
        [2**70],
        [1] * 20,
        [8] * 20_000,
        [2] * 3,
    ),
    *(["DownEncoderBlock2D"] * 2, ["AttnDownEncoderBlock2D"] * 40, ["X" * 2000]),
)
"""What may stand anywhere in a description, and should not."""

SHAPES = (
    [],
    [0],
    [1],
    [8],
    [4, 8],
    [8, 8, 3, 3],
    [8, 8, 1, 1],
    [8, 8, 1, 1, 1],
    [16, 8],
    [2**40],
    [2**62, 4],
    [0, 2**62],
    [1] * 64,
    [1] * 65,
    [-1],
)
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "F6_E2M3", "C64", "X", "")

NASTY = (
    *(bytes([byte]) for byte in (0, 1, 127, 128, 255, *b"(.0123459NQRIVSTXBCUPpqrjhgGaesud}{]lt)cioKMJLF")),
    *(bytes([byte]) for byte in range(0x80, 0x99)),
    *(struct.pack("<Q", value) for value in (0, 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)),
    *(
        b"cos\nsystem\n",
        b"cbuiltins\neval\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"PK\3\4",
        b"PK\1\2",
    ),
    *(b'"', b"[", b"]", b"{", b"}", b",", b"null", b"\\u0000", b"\xed\xa0\x80", b"\n", b" ", b"9" * 5000),
)


def mutated(random: random.Random, content: bytes, first: int = 0, last: int | None = None) -> bytes:
    """The bytes with a few places between two replaced, taken away, doubled, or filled with something nasty."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        end = len(changed) if last is None else min(last, len(changed))
        start = random.randint(first, max(first, end))
        stop = min(len(changed), start + random.choice((0, 0, 1, 1, 2, 8, 300)))
        changed[start:stop] = random.choice(
            (random.choice(NASTY), b"", random.randbytes(random.randint(1, 4)), bytes(changed[start:stop]) * 2)
        )
    return bytes(changed)


def other_name(random: random.Random, name: str) -> str:
    """A name with parts replaced, taken away or added."""
    parts = name.split(".")
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(parts) + 1)
        match random.randrange(4):
            case 0:
                parts[at : at + 1] = [random.choice(PARTS)]
            case 1:
                del parts[at : at + random.randint(1, 3)]
            case 2:
                parts[at:at] = [random.choice(PARTS)]
            case _:
                parts = parts[:at]
    return ".".join(parts)


def other_entry(random: random.Random, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of another shape or dtype; its place stays, as far as that is possible."""
    shape = list(entry["shape"])
    match random.randrange(5):
        case 0:
            return {**entry, "dtype": random.choice(DTYPES)}
        case 1:
            return {**entry, "shape": list(random.choice(SHAPES))}
        case 2:
            return {**entry, "shape": shape[::-1]}
        case 3:
            return {**entry, "shape": [*shape, 1]}
        case _:
            random.shuffle(shape)
            return {**entry, "shape": shape}


def other_header(random: random.Random, header: Header) -> Header:
    """A header with a few tensors renamed, of other shapes, gone, or there again under another name without any
    bytes."""
    header = dict(header)
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        chosen = random.choice([n for n in header if n != "__metadata__"])
        match random.randrange(5):
            case 0:
                renamed = other_name(random, chosen)
                header = {(renamed if n == chosen else n): item for n, item in header.items()}
            case 1:
                header[chosen] = other_entry(random, header[chosen])
            case 2:
                header[other_name(random, chosen)] = {
                    "dtype": random.choice(DTYPES[:6]),
                    "shape": [0],
                    "data_offsets": [0, 0],
                }
            case 3:
                begin = chosen.rpartition(".")[0].rpartition(".")[0]
                old, new = random.choice(chosen.split(".")), random.choice(PARTS)
                header = {(n.replace(old, new) if n.startswith(begin) else n): item for n, item in header.items()}
            case _:
                header[chosen] = {
                    **header[chosen],
                    "shape": [0],
                    "data_offsets": [header[chosen]["data_offsets"][0]] * 2,
                }
        header = {n: item for n, item in header.items() if isinstance(item, dict)}
        if len(header) < 2:
            break
    return header


def other_values(random: random.Random, values: dict[str, Any]) -> dict[str, Any]:
    """A description with a few values replaced, at any depth."""
    values = json.loads(json.dumps(values))
    for _ in range(random.randint(1, 3)):
        inner = values
        while inner and isinstance(deeper := inner.get(random.choice(list(inner))), dict) and deeper:
            inner = deeper
        key = random.choice(
            [*inner, "x", "_class_name", "version", "latents_mean", "latents_std", "channel_mult", "guessed"]
        )
        value = random.choice(VALUES)
        inner[key] = value if random.random() < 0.8 else nested(value, random.choice((2, 30, 900, 5000)))
        if random.random() < 0.2:
            inner.pop(random.choice(list(inner)))
    return values


def nested(value: Any, depth: int) -> Any:
    """A value within lists."""
    return functools.reduce(lambda inner, _: [inner], range(min(depth, 500)), value)


def as_json(random: random.Random, values: Any) -> bytes:
    """JSON of any values, with integers that have too many digits now and then, and with too many levels."""
    content = json.dumps(values, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < 0.05:
        content = content.replace(b": 1", b": " + b"1" * random.choice((4000, 4300, 5000)), 1)
    if random.random() < 0.03:
        content = content.replace(b": 1", b": " + b"[" * 5000 + b"]" * 5000, 1)
    return content


def model(random: random.Random, folder: Path, number: int | None = None) -> Path:
    """A safetensors file whose header is altered, of a sound length mostly, and its config.json beside it now and
    then."""
    number = random.randrange(len(BASES)) if number is None else number
    text, content = packed(number)
    header = json.loads(text)
    if random.random() < 0.4:
        del header["__metadata__"]
    elif random.random() < 0.5:
        described = json.loads(header["__metadata__"]["vaeworks"])
        header["__metadata__"]["vaeworks"] = as_json(random, other_values(random, described)).decode("utf-8", "replace")
    if random.random() < 0.8:
        header = other_header(random, header)
    if random.random() < 0.15:
        prefix = random.choice(("first_stage_model.", "vae.", "module.", "a." * 30, ".", "loss.", "\n."))
        header = {(n if n == "__metadata__" else prefix + n): item for n, item in header.items()}
    if random.random() < 0.3:
        header, content = laid_out(header, content)
    path = folder / "model.st"
    if random.random() < 0.4:
        _, _, description = base(number)
        path = folder / WEIGHTS
        (folder / "config.json").write_bytes(
            as_json(random, other_values(random, description) if random.random() < 0.8 else description)
        )
    path.write_bytes(safetensors(json.dumps(header).encode("utf-8", "surrogatepass"), content))
    return path if random.random() < 0.7 else folder


def laid_out(header: Header, content: bytes) -> tuple[Header, bytes]:
    """The header with the places that its shapes ask for, so that the file is whole, as far as they are believable."""
    place, sizes = 0, {"F64": 8, "I64": 8, "F32": 4, "C64": 8, "F16": 2, "BF16": 2}
    found: Header = {}
    for n, item in header.items():
        if "shape" not in item:
            found[n] = item
            continue
        count = sizes.get(item["dtype"], 1)
        for side in item["shape"]:
            count *= side
        count = count if 0 <= count < 2**16 else 0
        found[n] = {**item, "data_offsets": [place, place + count]}
        place += count
    return found, (content * (1 + place // max(1, len(content))))[:place]


def altered_file(random: random.Random, folder: Path) -> Path:
    """A sound file with a few bytes altered: mostly those of headers and pickles."""
    number, path = random.randrange(len(BASES)), folder / "model"
    match random.randrange(4):
        case 0:
            header, content = packed(number)
            path.write_bytes(mutated(random, safetensors(header.encode(), content), 0, len(header) + 8))
        case 1:
            header, content = packed(number)
            path.write_bytes(safetensors(mutated(random, header.encode()), content))
        case kind:
            whole = pickled(number, kind == 2)
            pickle = whole.find(b"\x80\x02")
            first, last = random.choice(((0, None), (pickle, pickle + 4000), (len(whole) - 5000, None)))
            path.write_bytes(mutated(random, whole, max(0, first), last))
    return path


def altered_pickle(random: random.Random, folder: Path) -> Path:
    """A pickle with altered bytes in a container that is sound."""
    described = {"x": tensor(), "decoder.conv_in.weight": tensor((2, 2), (2, 1)), "b": tensor((), ())}
    pickle = mutated(random, program(table({"state_dict": table(described), "n": number_of(random)})))
    path = folder / "model.ckpt"
    path.write_bytes(random.choice((torch_zip, torch_stream, bytes))(pickle))
    return path


def number_of(random: random.Random) -> bytes:
    return number(random.choice((0, 1, -1, 2**63, 2**20000)))


def pieces(random: random.Random, folder: Path) -> Path:
    """A model in shards with an index, in a pair of files, in a pipeline's or a run's folder; one file of it may be
    altered."""
    match random.randrange(4):
        case 0:
            return shards(random, folder)
        case 1:
            return pair(random, folder)
        case 2:
            (folder / "vae").mkdir()
            model(random, folder / "vae", random.choice((2, 5, 8)))
            if random.random() < 0.5 and (folder / "vae" / "model.st").exists():
                (folder / "vae" / "model.st").rename(folder / "vae" / WEIGHTS)
                (folder / "vae" / "config.json").write_bytes(as_json(random, base(2)[2]))
            return folder
        case _:
            file = model(random, folder, random.choice((0, 6)))
            (folder / random.choice(("run.json", "config.json", "encoder.pth", "x.safetensors"))).write_bytes(b"{}")
            if file.is_file() and random.random() < 0.7:
                file.rename(folder / "model.safetensors")
            return folder


def shards(random: random.Random, folder: Path) -> Path:
    header = json.loads(packed(2)[0])
    content, metadata = packed(2)[1], header.pop("__metadata__")
    files: dict[str, Header] = {"a-1.safetensors": {}, "a-2.safetensors": {}}
    for n, item in (other_header(random, header) if random.random() < 0.7 else header).items():
        files[random.choice(list(files))][n] = item
    index = {n: file for file, tensors in files.items() for n in tensors}
    for file, tensors in files.items():
        if random.random() < 0.9:
            placed, bytes_of = laid_out(tensors, content)
            (folder / file).write_bytes(safetensors({"__metadata__": metadata, **placed}, bytes_of))
    if random.random() < 0.5 and index:
        index[random.choice([*index, "x"])] = random.choice(
            ("a-1.safetensors", "..", "../a", "", "b", "/etc/passwd", 1, None, "a" * 5000)
        )
    if random.random() < 0.05:
        index |= {f"t{i}": f"f{i}" for i in range(random.choice((900, 2000)))}
    path = folder / f"{WEIGHTS}.index.json"
    path.write_bytes(
        as_json(random, {"metadata": {}, "weight_map": index if random.random() < 0.9 else random.choice(VALUES)})
    )
    if random.random() < 0.5:
        (folder / "config.json").write_bytes(as_json(random, base(2)[2]))
    return random.choice((path, folder))


def pair(random: random.Random, folder: Path) -> Path:
    header = json.loads(packed(random.choice((7, 10)))[0])
    content, metadata = packed(7)[1], header.pop("__metadata__")
    for half in ("encoder", "decoder"):
        prefix = f"taesd_{half}."
        tensors = {n.removeprefix(prefix): item for n, item in header.items() if n.startswith(prefix)}
        placed, bytes_of = laid_out(other_header(random, tensors) if random.random() < 0.5 else tensors, content)
        if random.random() < 0.9:
            (folder / f"taesd_{half}.safetensors").write_bytes(
                safetensors({"__metadata__": metadata, **placed}, bytes_of)
            )
    return random.choice((folder, folder / "taesd_encoder.safetensors", folder / "taesd_decoder.safetensors"))


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
SIGNS = (
    "decoder.levels.0.blocks.0.norm1.weight",
    "decoder.up.0.block.0.norm1.weight",
    "decoder.up_blocks.0.resnets.0.norm1.weight",
    "decoder.layers.0.weight",
    "taesd_decoder.1.weight",
)
"""Of each layout one name."""


def many(random: random.Random, most: int) -> int:
    """A number of any magnitude."""
    return int(10 ** random.uniform(0, len(str(most)) - 1))


def header_bomb(random: random.Random, count: int) -> bytes:
    """A safetensors file of so many of something."""
    sign = {random.choice(SIGNS): EMPTY}
    pattern = random.choice(
        (
            *(
                "t{}",
                "decoder.levels.{}.blocks.0.conv2.weight",
                "encoder.levels.{}.blocks.0.conv2.weight",
                "loss.{}",
                "model_ema.{}",
            ),
            *(
                "encoder.levels.0.blocks.{}.conv1.weight",
                "encoder.down.{}.block.0.conv2.weight",
                "decoder.up.{}.block.0.conv2.weight",
            ),
            *(
                "encoder.layers.{}.weight",
                "encoder.layers.{}.bias",
                "lora_unet_{}.lora_down.weight",
                "{}.conv.0.weight",
            ),
            *(
                "p{}.decoder.up.0.block.0.norm1.weight",
                "model.diffusion_model.{}",
                "{}.0.linear.0.weight",
                "x.attn2.to_k.lora_A.weight{}",
            ),
        )
    )
    match random.randrange(6):
        case 0 | 1:
            shape = random.choice(([0], [0], [1] * 63 + [0], [0, 8, 3, 3]))
            return safetensors(
                {**sign, **{pattern.format(i): {**EMPTY, "shape": shape} for i in range(min(count, 150_000))}}
            )
        case 2:
            return safetensors({**sign, random.choice((".", "a.", "9", "\n", "é", "decoder.up.")) * count: EMPTY})
        case 3:
            return safetensors({**sign, "__metadata__": {f"{i}": "" for i in range(min(count, 200_000))}})
        case 4:
            levels = [random.choice((1, 2, 0.5))] * count
            key = random.choice(
                ("channel_mult", "attention_factors", "latents_mean", "decoder_channel_mult", "encoder_blocks")
            )
            described = {"version": 1, "network": random.choice(("kl", "tiny")), "autoencoder": {key: levels}}
            return safetensors({**sign, "__metadata__": {"vaeworks": json.dumps(described)}})
        case _:
            deep = '{"version": 1, "autoencoder": ' + "[" * count + "]" * count + "}"
            return safetensors({**sign, "__metadata__": {"vaeworks": deep}})


def pickle_bomb(random: random.Random, count: int) -> bytes:
    """A pickle of so many of something, in a container of PyTorch's."""
    device = name("torch", "device")
    big = items(*[number(1)] * 64)
    shapes = b"(" + storage() + b"K\0" + big + big + b"\x89}t"
    strided = tensor((2**12, 2**12), (0, 0), stored=storage(numel=4))
    program_of = {
        "globals": lambda: device * count,
        "classes": lambda: b"".join(name(f"torch.optim.a{i}", "A") for i in range(min(count, 50_000))),
        "a long name": lambda: name("torch.optim" + ".a" * count, "A"),
        "calls": lambda: device + b"q\1)q\2" + b"h\1h\2R" * count,
        "marks": lambda: b"(" * count,
        "lists": lambda: b"]" * count + b"a" * (count - 1),
        "dicts": lambda: b"}" * count,
        "tuples": lambda: b")" + b"\x85" * count,
        "a memo": lambda: (
            b")q\0" + b"".join(b"h" + bytes([n, 104, n]) + b"\x86q" + bytes([n + 1]) for n in range(min(count, 250)))
        ),
        "an integer": lambda: number(1 << min(8 * count, 2**26)),
        "a decimal integer": lambda: b"L" + b"9" * count + b"L\n",
        "text": lambda: text("a" * count),
        "names": lambda: table({f"n{i}": b"N" for i in range(min(count, 200_000))} | {"x": tensor()}),
        "a name": lambda: table({random.choice(("a", ".", "é", "\n")) * count: tensor()}),
        "tensors": lambda: (
            name("torch._utils", "_rebuild_tensor_v2") + b"q\1" + shapes + b"q\2" + b"h\1h\2R" * min(count, 300_000)
        ),
        "named tensors": lambda: (
            b"00".join([name("torch._utils", "_rebuild_tensor_v2") + b"q\1" + shapes + b"q\2", b"}("])
            + b"".join(text(f"{i}") + b"h\1h\2R" for i in range(min(count, 150_000)))
            + b"u"
        ),
        "expanded": lambda: table({SIGNS[0]: strided, **{f"e{i}": strided for i in range(min(count, 2000))}}),
    }
    pickle = program(program_of[random.choice(list(program_of))]())
    return torch_zip(pickle) if random.random() < 0.6 else torch_stream(pickle)


def bomb(random: random.Random, folder: Path) -> Path:
    """A small file that would take long or much memory to understand."""
    count, path = many(random, 10**6 if random.random() < 0.03 else 10**4), folder / "model"
    match random.randrange(8):
        case 0 | 1 | 2:
            path.write_bytes(header_bomb(random, count))
        case 3 | 4 | 5:
            path.write_bytes(pickle_bomb(random, count))
        case 6:
            path.write_bytes(
                zipped({"m/data.pkl": program(b"}"), **{f"m/{i}": b"" for i in range(min(count, 20_000))}})
            )
        case _:
            path = folder / WEIGHTS
            path.write_bytes(safetensors(json.loads(packed(2)[0]), packed(2)[1]))
            key = random.choice(("block_out_channels", "down_block_types", "latents_mean", "layers_per_block", "x"))
            value = random.choice(([64] * count, {"a": [1] * count}, "a" * count, [["a"]] * count))
            (folder / "config.json").write_text(json.dumps({**base(2)[2], key: value}))
            if random.random() < 0.3:
                (folder / "config.json").write_text('{"_class_name":' * min(count, 100_000))
    return path


def unguarded(use: Callable[[Any], object]) -> Callable[[Any], object]:
    """The same, but what only the last guard (`formats/understood.py`) made a sentence of is the error that it was."""

    def used(given: Any) -> object:
        try:
            return use(given)
        except FormatError as error:
            if error.__cause__ is not None and not isinstance(error.__cause__, MemoryError):
                raise error.__cause__ from None
            raise

    return used


def opened(path: Any) -> None:
    """All tensors of a file, read."""
    archive = open_archive(path)
    for n, entry in archive.entries.items():
        assert sum(map(len, archive.chunks(n))) == entry.nbytes


def ways(random: random.Random, folder: Path) -> Path:
    return random.choice((model, model, model, altered_file, altered_pickle, pieces))(random, folder)


TARGETS = (
    Target("locate", ways, unguarded(locate)),
    Target("load", ways, unguarded(vw.load)),
    Target("identify", ways, unguarded(identify)),
    Target("model bombs", bomb, unguarded(identify)),
    Target("archives", lambda random, folder: random.choice((altered_file, altered_pickle))(random, folder), opened),
)
