"""Folders from elsewhere: what a record, a pipeline's index or a file of statistics names is neither imported, fetched
nor unpickled."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configs import TINY
from PIL import Image
from sound_runs import CONFIG, run_folder
from sound_runs import latents as write_latents

import vaeworks as vw
from vaeworks.cli.main import _bound, main
from vaeworks.config import FinetuneConfig, TrainConfig, asked_options, check_asked, dumps, recorded, to_dict
from vaeworks.data.trained_on import trained_on
from vaeworks.errors import ConfigError, FormatError
from vaeworks.features.backbones import load_backbone
from vaeworks.features.nets import FEATURE_NETS
from vaeworks.files.arrays import read_array
from vaeworks.formats.foreign_code import check_config, check_index
from vaeworks.latents import LatentSet
from vaeworks.latents.index import INDEX, STATISTICS, STATS, read_plan
from vaeworks.pipelines.stable_diffusion import load_pipeline
from vaeworks.training import read_run, train
from vaeworks.training.monitor.log_lines import read_log
from vaeworks.training.run.checkpoint import checkpoint_files, newest_checkpoint
from vaeworks.training.run.folder import read_data

SRC = Path(__file__).parents[2] / "src" / "vaeworks"

EVIL = "import pathlib\npathlib.Path('canary').touch()\ndef go():\n    return lambda x: x.mean(1, keepdim=True)\n"
"""A module that leaves a mark when it is imported."""


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of such a module in the current folder, which is where modules are looked for."""
    (tmp_path / "evil.py").write_text(EVIL)
    yield "evil:go"  # type: ignore[misc]
    sys.modules.pop("evil", None)
    (tmp_path / "canary").unlink(missing_ok=True)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def changed(**parts: Any) -> TrainConfig:
    """CONFIG with other values in parts of it; a value that is no dict is a setting itself."""
    return dataclasses.replace(
        CONFIG,
        **{k: dataclasses.replace(getattr(CONFIG, k), **v) if isinstance(v, dict) else v for k, v in parts.items()},
    )


def a_run(folder: Path, config: TrainConfig) -> Path:
    folder.mkdir()
    run_folder(folder)
    (folder / "run.json").write_text(
        dumps({"version": 1, "recipe": "small-f8c16", "source": "/x", "config": to_dict(config)})
    )
    return folder


ASKS: dict[str, tuple[TrainConfig, list[str]]] = {
    "alignment": (
        changed(regularizers={"alignment": 0.5, "alignment_network": "evil:go"}),
        ["--regularizers.alignment-network", "evil:go"],
    ),
    "alignment that is off": (
        changed(regularizers={"alignment_network": "evil:go"}),
        ["--regularizers.alignment-network", "evil:go"],
    ),
    "alignment of the hub": (
        changed(regularizers={"alignment": 0.5, "alignment_network": "hf:evil/net"}),
        ["--regularizers.alignment-network", "hf:evil/net"],
    ),
    "a folder of transformers": (
        changed(regularizers={"alignment": 0.5, "alignment_network": "/x/dino"}),
        ["--regularizers.alignment-network", "/x/dino"],
    ),
    "discriminator": (
        changed(adversarial={"discriminator": "projected", "network": "evil:go"}),
        ["--adversarial.network", "evil:go"],
    ),
    "start": (changed(finetune={"path": "hf:evil/vae"}), ["--from", "hf:evil/vae"]),
    "teacher": (changed(finetune={"teacher": "hf:evil/vae"}), ["--finetune.teacher", "hf:evil/vae"]),
    "validation": (changed(data={"val": "hf:evil/images"}), ["--data.val", "hf:evil/images"]),
    "validation stream": (changed(data={"val": "stream:hf:evil/images"}), ["--data.val", "stream:hf:evil/images"]),
    "tracker": (changed(trackers=("tensorboard", "wandb")), ["--trackers", "tensorboard", "wandb"]),
}
"""What a record may ask for, and the option that a user says it with."""


@pytest.mark.parametrize("name", ASKS)
def test_a_record_alone_runs_nothing(
    name: str, tmp_path: Path, images: Path, evil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names the setting, the value, and the option to give again; nothing is imported, asked for or
    changed."""
    config, option = ASKS[name]
    run = a_run(tmp_path / "run", config)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = ["train", "small-f8c16", "--data", str(images), "--out", str(run), "--resume"]
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert (
        said.startswith("vaeworks: the run's record asks for ")
        and "\n" not in said
        and f"give {' '.join(option)} again" in said
    )
    assert not (tmp_path / "canary").exists() and "evil" not in sys.modules
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    with pytest.raises(
        ConfigError, match="the run's record asks for"
    ):  # nor from Python, of a configuration that is the record's
        train(read_run(run).config, images, run, recipe="small-f8c16", resume=True, show=False)
    assert not (tmp_path / "canary").exists() and asked_options(config, FEATURE_NETS) == option


@pytest.mark.parametrize("name", ASKS)
def test_what_a_user_repeats_is_allowed(name: str, tmp_path: Path, images: Path) -> None:
    """The same value as an option of this call; and what a user never left to a file."""
    config, option = ASKS[name]
    run = a_run(tmp_path / "run", config)
    words = ["train", "small-f8c16", "--data", str(images), "--out", str(run), "--resume"]
    call: Any = _bound([*words, *option])
    given = call.keywords["config"]
    if call.keywords.get("start") is not None:  # --from
        given = dataclasses.replace(given, finetune=dataclasses.replace(given.finetune, path=call.keywords["start"]))
    check_asked(given, FEATURE_NETS)
    assert given == config == read_run(run).config
    check_asked(config, FEATURE_NETS)
    with pytest.raises(ConfigError):
        check_asked(_bound(words).keywords["config"], FEATURE_NETS)  # type: ignore[attr-defined]


def test_repeating_one_setting_allows_no_other(tmp_path: Path, images: Path) -> None:
    both = changed(
        regularizers={"alignment": 0.5, "alignment_network": "evil:go"},
        adversarial={"discriminator": "projected", "network": "evil:go"},
    )
    run = a_run(tmp_path / "run", both)
    words = [
        "train",
        "x",
        "--data",
        str(images),
        "--out",
        str(run),
        "--resume",
        "--regularizers.alignment-network",
        "evil:go",
    ]
    call: Any = _bound([words[0], "small-f8c16", *words[2:]])
    with pytest.raises(ConfigError, match=r"adversarial\.network evil:go"):
        check_asked(call.keywords["config"], FEATURE_NETS)


@pytest.mark.parametrize(
    "config",
    [
        changed(finetune={"path": "/elsewhere/vae.safetensors"}),
        changed(finetune={"teacher": "../vae"}),
        changed(loss={"perceptual": "lpips-vgg16", "perceptual_path": "/weights"}),
        changed(regularizers={"alignment": 0.5, "alignment_network": "vgg16", "alignment_path": "/weights"}),
        changed(data={"val": "/images"}),
        changed(trackers=("tensorboard",)),
    ],
)
def test_files_that_are_only_read_need_no_word(config: TrainConfig) -> None:
    """Models and weights on this machine are read as data, by our own reader."""
    check_asked(recorded(config), FEATURE_NETS)
    assert recorded(config) == config and asked_options(config, FEATURE_NETS) == []


def test_a_run_with_a_network_of_ones_own_goes_on_once_it_is_named(
    tmp_path: Path, images: Path, evil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Begun on the command line; refused without the option; with it, it ends. What it tells to type is what it
    takes."""
    words = ["train", "small-f4c4", "--data", str(images), "--out", "run"]
    size = [
        "--model.channels",
        "4",
        "--model.norm-groups",
        "2",
        "--model.channel-mult",
        "1",
        "1",
        "1",
        "--data.size",
        "16",
    ]
    short = [
        "--images",
        "8",
        "--batch",
        "4",
        "--data.workers",
        "0",
        "--trackers",
        "--stats-images",
        "4",
        "--loss.perceptual",
        "none",
    ]
    own = ["--regularizers.alignment", "0.1", "--regularizers.alignment-network", evil]
    assert main([*words, *size, *short, *own, "--adversarial.discriminator", "none"]) == 0, capsys.readouterr().err
    (tmp_path / "canary").unlink()
    sys.modules.pop("evil")
    capsys.readouterr()
    assert main([*words, "--resume", "--images", "12"]) == 2
    assert "give --regularizers.alignment-network evil:go again" in capsys.readouterr().err
    assert not (tmp_path / "canary").exists()
    assert main([*words, "--resume", "--images", "12", "--regularizers.alignment-network", evil]) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["images_seen"] == 12
    assert (tmp_path / "canary").exists()  # the witness can see
    (tmp_path / "canary").unlink()


def test_the_loader_of_networks_refuses_a_recorded_name(evil: str, tmp_path: Path) -> None:
    """Whichever way it comes there."""
    network = recorded(changed(regularizers={"alignment_network": evil})).regularizers.alignment_network
    assert network == evil
    with pytest.raises(ConfigError, match="named by a file alone"):
        load_backbone(network, None, 4)


# ---------------------------------------------------------------- what a record says besides


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("config",), []),
        (("config",), "x"),
        (("config",), None),
        (("recipe",), 1),
        (("source",), ["x"]),
        (("config", "batch"), 10**400),
        (("config", "data", "workers"), 10**9),
        (("config", "data", "size"), 10**12),
        (("config", "optimizer", "betas"), [0.9]),
        (("config", "loss", "beta"), 10**400),
        (("config", "adversarial", "num_layers"), 10**9),
        (("config", "trackers"), ["evil"]),
        (("recipe",), "\x1b]0;x\x07"),
        (("config", "license"), "\x1b[2J"),
        (("config", "finetune", "path"), "\x9b31m"),
        (("config", "model", "channels"), 0),
        (("config", "finetune", "path"), 3),
        (("config", "batch"), 10**18),
    ],
)
def test_records_that_say_what_none_says(place: tuple[str, ...], value: object, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", CONFIG)
    values = json.loads((run / "run.json").read_text())
    holder = values
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    (run / "run.json").write_text(json.dumps(values))
    with pytest.raises(FormatError, match=r"^[^\n]{1,400}$"):
        read_run(run)


def test_a_record_asks_for_a_network_without_end(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(tmp_path / "run", changed(model={"num_res_blocks": 10**9}))
    (run / "data.json").unlink()
    assert main(["train", "small-f8c16", "--data", str(images), "--out", str(run), "--resume"]) == 2
    assert "the model has more than 20,000 tensors" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run.json", "data.json", "log.jsonl"])
@pytest.mark.parametrize("kind", ["endless", "pipe", "deep", "digits"])
def test_files_that_would_never_end(name: str, kind: str, tmp_path: Path) -> None:
    """A link to an endless device, a pipe that nobody writes into, levels without number."""
    run = a_run(tmp_path / "run", CONFIG)
    (run / name).unlink()
    if kind == "endless":
        (run / name).symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(run / name)
    else:
        (run / name).write_text("[" * 200_000 if kind == "deep" else '{"x": ' + "9" * 10_000 + "}")
    read: Callable[[Path], object] = {"run.json": read_run, "data.json": read_data, "log.jsonl": read_log}[name]
    if name == "log.jsonl":
        assert read(run) == []
    else:
        with pytest.raises((FormatError, ConfigError), match=r"^[^\n]+$"):
            read(run)


def test_a_list_of_images_that_is_none(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", CONFIG)
    for values in (
        {"train": 1},
        {"train": [], "val": [{}]},
        {"train": [], "val": [], "streamed": {"val_fraction": "x"}},
        {"train": [3]},
    ):
        (run / "data.json").write_text(json.dumps(values))
        for read in (trained_on, read_data):
            with pytest.raises(FormatError, match="does not"):
                read(run)


def test_a_list_of_variants_deletes_only_what_it_can_have_made(tmp_path: Path) -> None:
    """Rows of another's provenance name files outside the folder, beyond a link, or of another kind."""
    from vaeworks.apps.augmentation.folder import ROWS, _clear

    out, other = tmp_path / "out", tmp_path / "other"
    for folder in (out, other):
        folder.mkdir()
    (out / "link").symlink_to(other)
    kept = [other / "a.png", tmp_path / "b.png", out / "c.txt"]
    for path in (*kept, out / "d.png"):
        path.write_text("x")
    names = ["link/a.png", "../b.png", str(tmp_path / "b.png"), "c.txt", "d.png", "gone.png", "link"]
    (out / ROWS).write_text("".join(json.dumps({"file": name}) + "\n" for name in names))
    _clear(out)
    assert all(path.exists() for path in kept) and not (out / "d.png").exists() and (out / "link").is_symlink()
    for text in ("1\n", "{\n", '{"file": 1}\n', "[" * 100_000):
        (out / ROWS).write_text(text)
        with pytest.raises(FormatError, match="no provenance of variants"):
            _clear(out)


def test_other_files_beside_checkpoints_are_let_be(tmp_path: Path) -> None:
    """A link from checkpoints/ to a folder of models would have had them read, and deleted."""
    for name in ("sdxl.safetensors", "2.safetensors", "\u00b2.safetensors", "0000000100.safetensors.bak"):
        (tmp_path / name).write_bytes(b"somebody's")
    assert checkpoint_files(tmp_path) == [] and newest_checkpoint(tmp_path) is None
    (tmp_path / "0000000100.safetensors").write_bytes(b"torn")
    assert [path.name for path in checkpoint_files(tmp_path)] == ["0000000100.safetensors"]


# ---------------------------------------------------------------- latents


class Mark:
    """What an unpickler would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("canary",)


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    folder = tmp_path / "latents"
    folder.mkdir()
    write_latents(folder)
    return folder


def test_statistics_are_never_unpickled(latents: Path, watched: list[str]) -> None:
    """They are safetensors; those of earlier versions, which are a pickle, are interpreted, and one that would run
    something refused."""
    mean, std = LatentSet(latents).statistics()
    assert mean.shape == std.shape == (1, 2, 1, 1) and float(std[0, 0]) == 1
    torch.save({"mean": torch.full((1, 2, 1, 1), 3.0), "std": torch.full((1, 2, 1, 1), 4.0)}, latents / STATS)
    assert float(LatentSet(latents).statistics()[0][0, 0]) == 0  # ours count
    (latents / STATISTICS).unlink()
    assert [float(t[0, 0]) for t in LatentSet(latents).statistics()] == [3.0, 4.0]
    torch.save({"mean": Mark(), "std": torch.zeros(1)}, latents / STATS)
    found = LatentSet(latents)
    watched.clear()
    with pytest.raises(FormatError, match="mkdir"):
        found.statistics()
    assert not watched
    (latents / STATS).unlink()
    with pytest.raises(FormatError, match="does not exist"):
        LatentSet(latents).statistics()


@pytest.mark.parametrize(
    "change",
    [
        {"plan": {"count": 10**18}},
        {"plan": {"count": -1}},
        {"plan": {"processes": 10**18}},
        {"plan": {"settings": {"shard_size": 0}}},
        {"shards": [{"rows": 10**18}]},
        {"shards": []},
        {"shards": None},
        {"facts": 1},
        {"plan": None},
        {"plan": {"count": 10**400}},
    ],
)
def test_an_index_that_claims_what_is_not_there(change: dict[str, Any], latents: Path) -> None:
    """Neither a list of 10^18 shards, nor rows that no file has."""
    values = json.loads((latents / INDEX).read_text())

    def merged(old: Any, new: Any) -> Any:
        return (
            {**old, **{k: merged(old.get(k), v) for k, v in new.items()}}
            if isinstance(new, dict) and isinstance(old, dict)
            else new
        )

    (latents / INDEX).write_text(json.dumps(merged(values, change)))
    with pytest.raises(FormatError, match=r"^[^\n]+$"):
        LatentSet(latents)


def test_rows_that_a_shard_has_not(latents: Path) -> None:
    values = json.loads((latents / INDEX).read_text())
    values["shards"][0]["rows"] = 7
    (latents / INDEX).write_text(json.dumps(values))
    found = LatentSet(latents)
    with pytest.raises(FormatError, match="for 7 images"):
        found[5]
    with pytest.raises(FormatError, match="lists 3 images"):
        found.image(5)
    assert read_plan(latents).count == 5


def test_arrays_are_numbers(tmp_path: Path, watched: list[str]) -> None:
    np.save(tmp_path / "a.npy", np.array([Mark()], dtype=object), allow_pickle=True)
    np.save(tmp_path / "b.npy", np.arange(6.0))
    np.savez(tmp_path / "c.npz", x=np.arange(3))
    (tmp_path / "c.npz").rename(tmp_path / "c.npy")
    watched.clear()
    assert read_array(tmp_path / "b.npy", mapped=True).tolist() == list(range(6))
    for name in "ac":
        with pytest.raises(FormatError):
            read_array(tmp_path / f"{name}.npy")
    assert not [event for event in watched if event.startswith(("os.", "pickle", "subprocess", "socket"))]


# ---------------------------------------------------------------- pipelines and networks of other libraries


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, vw.Autoencoder]:
    """A sound pipeline, and a VAE that fits."""
    config = TINY
    vae = vw.build(config)
    folder = tmp_path_factory.mktemp("pipeline") / "sd"
    load_pipeline("tiny", vae, "cpu", torch.float32).save_pretrained(folder)
    return folder, vae


def copied(source: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(source, to / "sd"))


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "entry",
    [
        ["evil", "Go"],
        ["os", "system"],
        ["transformers", "RagRetriever"],
        ["diffusers", "OnnxRuntimeModel"],
        ["evil", None],
        ["pipeline_utils", "importlib"],
        ["diffusers", "logging"],
        ["evil"],
        ["diffusers", "DDIMScheduler", "evil"],
        [["evil"], "Go"],
    ],
)
def test_an_index_imports_no_module(
    entry: list[Any], pipeline: tuple[Path, vw.Autoencoder], tmp_path: Path, evil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    folder, vae = copied(pipeline[0], tmp_path), pipeline[1]
    rewritten(folder / "model_index.json", lambda values: values.update(scheduler=entry))
    with pytest.raises(FormatError, match=r"as its part 'scheduler'.*nothing was loaded"):
        load_pipeline(str(folder), vae, "cpu", torch.float32)
    assert "evil" not in sys.modules


@pytest.mark.parametrize("name", ["evil.py", "None.py", "pipeline.py", "unet/diffusers.py", "scheduler/evil.py"])
def test_code_in_a_pipeline_is_refused(name: str, pipeline: tuple[Path, vw.Autoencoder], tmp_path: Path) -> None:
    folder, vae = copied(pipeline[0], tmp_path), pipeline[1]
    (folder / name).write_text(EVIL)
    with pytest.raises(FormatError, match="is code"):
        load_pipeline(str(folder), vae, "cpu", torch.float32)


@pytest.mark.parametrize("kind", [["evil", "Go"], "logging", "__builtins__", "AutoencoderKL", "os.system", 3, None])
def test_the_class_of_a_pipeline_is_a_pipeline(
    kind: object, pipeline: tuple[Path, vw.Autoencoder], tmp_path: Path
) -> None:
    folder, vae = copied(pipeline[0], tmp_path), pipeline[1]
    rewritten(folder / "model_index.json", lambda values: values.update(_class_name=kind))
    (folder / "evil.txt").write_text("")
    with pytest.raises(FormatError, match="holds a pipeline of class"):
        load_pipeline(str(folder), vae, "cpu", torch.float32)


def test_a_sound_pipeline_loads_and_its_pickles_do_not(pipeline: tuple[Path, vw.Autoencoder], tmp_path: Path) -> None:
    folder, vae = copied(pipeline[0], tmp_path), pipeline[1]
    assert load_pipeline(str(folder), vae, "cpu", torch.float32).unet is not None
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    from safetensors.torch import load_file

    torch.save({**load_file(weights), "x": Mark()}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(FormatError, match="no pipeline could be loaded"):
        load_pipeline(str(folder), vae, "cpu", torch.float32)


@pytest.mark.parametrize(
    "values",
    [
        {"auto_map": {"AutoModel": "evil--x.Model"}},
        {"vision_config": {"auto_map": {"AutoModel": "evil.Model"}}},
        {"quantization_config": {"quant_method": "evil"}},
        {"_attn_implementation": "evil/kernels"},
        {"attn_implementation": "evil/kernels"},
        {"text_config": {"a": [{"_attn_implementation": "evil/kernels:x"}]}},
    ],
)
def test_configurations_that_ask_for_code(
    values: dict[str, Any], pipeline: tuple[Path, vw.Autoencoder], tmp_path: Path
) -> None:
    """Of a pipeline's part and of a network whose features are wanted."""
    with pytest.raises(FormatError, match=r"config\.json (has|asks)"):
        check_config(values, "config.json")
    folder, vae = copied(pipeline[0], tmp_path), pipeline[1]
    rewritten(folder / "text_encoder" / "config.json", lambda old: old.update(values))
    with pytest.raises(FormatError, match=r"config\.json (has|asks)"):
        load_pipeline(str(folder), vae, "cpu", torch.float32)
    network = tmp_path / "dino"
    network.mkdir()
    (network / "config.json").write_text(json.dumps({"model_type": "dinov2", **values}))
    with pytest.raises(FormatError, match=r"config\.json (has|asks)"):
        load_backbone(str(network), None, 4)


def test_adapters_fetch_no_other_network(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/network", "peft_type": "LORA"}')
    with pytest.raises(FormatError, match="another network"):
        load_backbone(str(tmp_path), None, 4)


def test_usual_pipelines_have_parts_that_are_known() -> None:
    """Those of published text-to-image pipelines."""
    known = {
        "diffusers": "UNet2DConditionModel SD3Transformer2DModel FluxTransformer2DModel Flux2Transformer2DModel "
        "PNDMScheduler AutoencoderKL FlowMatchEulerDiscreteScheduler AutoencoderKLFlux2",
        "transformers": "CLIPTextModel CLIPTextModelWithProjection T5EncoderModel T5TokenizerFast CLIPTokenizer "
        "CLIPImageProcessor CLIPFeatureExtractor Mistral3ForConditionalGeneration Qwen3ForCausalLM PixtralProcessor "
        "CLIPVisionModelWithProjection",
        "stable_diffusion": "StableDiffusionSafetyChecker",
    }
    parts: dict[str, Any] = {kind: [library, kind] for library, kinds in known.items() for kind in kinds.split()}
    parts |= {
        "absent": [None, None],
        "requires_safety_checker": False,
        "text_encoder_out_layers": [9, 18, 27],
        "_ignore_files": ["x.py"],
    }
    check_index(parts, "x")


# ---------------------------------------------------------------- held in the source

LOADERS_WITHOUT_WEIGHTS: set[str] = set()
"""Calls of from_pretrained that load no weights: none so far."""


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """(dotted name, call) of every call in a file."""
    return [
        (ast.unparse(node.func), node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]


def keyword(call: ast.Call, name: str) -> object:
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_the_source_unpickles_nothing(path: Path) -> None:
    """No torch.load, no pickle, no eval; arrays without pickles; other libraries' weights as safetensors, without code
    of repositories."""
    for name, call in calls(path):
        last = name.rsplit(".", 1)[-1]
        where = f"{path.relative_to(SRC)}:{call.lineno} calls {name}"
        assert name not in (
            "torch.load",
            "torch.jit.load",
            "torch.hub.load",
            "eval",
            "exec",
            "__import__",
            "compile",
        ), where
        assert not name.startswith(("pickle.", "marshal.", "shelve.", "joblib.", "dill.", "runpy.", "yaml.")), where
        if name in ("np.load", "numpy.load"):
            assert keyword(call, "allow_pickle") is False, where
        if last in ("from_pretrained", "from_single_file") and where not in LOADERS_WITHOUT_WEIGHTS:
            assert keyword(call, "use_safetensors") is True, where
        if last in ("from_pretrained", "from_single_file") and "local_files_only" not in {k.arg for k in call.keywords}:
            assert keyword(call, "trust_remote_code") is False, where
        if last == "import_module":
            assert path.relative_to(SRC).as_posix() in IMPORTERS, where
        if name.startswith("subprocess."):
            assert path.relative_to(SRC).as_posix() in ("apps/generation/animation.py",), where


IMPORTERS = {
    "__init__.py": "the lazy index of public names",
    "formats/__init__.py": "the same",
    "doctor/panels/__init__.py": "panels by the names of a list of ours",
    "files/hub_network.py": "two libraries of hub downloads, by names of ours",
    "moved.py": "modules by the names of a list of ours",
    "features/backbones.py": "MODULE:FUNCTION of a user, and of no file",
}


def test_recorded_values_are_the_same_values() -> None:
    """Equal, the same JSON, and kept through copies."""
    config = changed(finetune={"path": "hf:a/b"}, regularizers={"alignment_network": "evil:go"}, trackers=("wandb",))
    file = recorded(config)
    assert file == config and to_dict(file) == to_dict(config) and dumps(to_dict(file)) == dumps(to_dict(config))
    import copy
    import pickle

    for same in (copy.deepcopy(file), pickle.loads(pickle.dumps(file)), dataclasses.replace(file, images=32)):
        with pytest.raises(ConfigError):
            check_asked(same, FEATURE_NETS)
    assert dataclasses.replace(file, finetune=FinetuneConfig()) != config
