"""Configurations that claim too much, or are of the wrong kind: one line at once, and no memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from configs import WIDE
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import vaeworks as vw
from vaeworks.formats.diffusers_config import config_from_diffusers, diffusers_config

HUGE: list[dict[str, Any]] = [
    {"layers_per_block": 10**9},
    {
        "block_out_channels": [32] * 30,
        "down_block_types": ["DownEncoderBlock2D"] * 30,
        "up_block_types": ["UpDecoderBlock2D"] * 30,
    },
    {"block_out_channels": [2**40 * 32, 2**41 * 32]},
    {"_class_name": "AutoencoderTiny", "num_encoder_blocks": [10**8] * 4},
    {"_class_name": "AutoencoderKLFlux2", "latent_channels": 10**12},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vw.save(vw.build(WIDE), tmp_path / "vae", "diffusers")
    return tmp_path / "vae"


def refused_cheaply(path: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(vw.FormatError, match=r"^[^\n]+$"):
            vw.load(path)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("change", HUGE)
def test_huge_claims_in_config_json(change: dict[str, Any], folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **change}))
    refused_cheaply(folder)


@pytest.mark.parametrize("value", [[-1, 1], "ab", ["a"], 5, [None], [True, 2], {"a": 1}, [-(2**70)]])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("AutoencoderKL", "block_out_channels"),
        ("AutoencoderKLFlux2", "decoder_block_out_channels"),
        ("AutoencoderKLFlux2", "patch_size"),
        ("AutoencoderTiny", "encoder_block_out_channels"),
        ("AutoencoderTiny", "num_decoder_blocks"),
    ],
)
def test_lists_that_are_none(kind: str, name: str, value: Any) -> None:
    """The rule and the value, and not what Python says of it."""
    with pytest.raises(vw.FormatError, match=rf"{name} \(=.*\) must be a list of whole numbers of at least [01]$"):
        config_from_diffusers({"_class_name": kind, name: value}, "config.json")


@pytest.mark.parametrize(
    "change",
    [
        {"autoencoder": {"num_res_blocks": 10**9}},
        {"network": "tiny", "autoencoder": {"encoder_blocks": [10**8] * 4}},
        {"version": 2},
        {"network": ["kl"]},
        {"autoencoder": []},
    ],
)
def test_huge_claims_in_metadata(change: dict[str, Any], folder: Path) -> None:
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    values = {"version": 1, "network": "kl", "autoencoder": {}, **change}
    save_file(tensors, folder.parent / "x.safetensors", metadata={"vaeworks": json.dumps(values)})
    refused_cheaply(folder.parent / "x.safetensors")


def test_a_newer_version_says_what_to_do(folder: Path) -> None:
    save_file(
        {"a": torch.zeros(1), "decoder.layers.0.weight": torch.zeros(1)},
        folder.parent / "x",
        metadata={"vaeworks": '{"version": 9}'},
    )
    with pytest.raises(vw.FormatError, match="update vaeworks"):
        vw.load(folder.parent / "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
BASES = [
    {"_class_name": "AutoencoderKL", **diffusers_config(WIDE)},
    {
        "_class_name": "AutoencoderKLFlux2",
        "block_out_channels": [32, 64],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
    },
    {"_class_name": "AutoencoderTiny"},
]


@settings(max_examples=300)
@given(st.sampled_from(BASES), st.data())
def test_any_value_anywhere_in_config_json(base: dict[str, Any], data: st.DataObject) -> None:
    """A configuration, or a FormatError in one line: nothing else, whatever stands at a key."""
    keys = data.draw(st.lists(st.sampled_from(sorted(base)), min_size=1, max_size=3))
    values = {**base, **{key: data.draw(JSON) for key in keys}}
    try:
        config_from_diffusers(values, "config.json")
    except vw.FormatError as error:
        assert "\n" not in str(error)  # noqa: PT017
