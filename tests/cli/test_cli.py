"""The command line as a user meets it: exit codes, one-line errors, JSON, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import TRAIN
from PIL import Image

import vaeworks as vw
from vaeworks.cli import COMMANDS, main
from vaeworks.images import open_image, to_uint8
from vaeworks.metrics import psnr
from vaeworks.recipes import RECIPES
from vaeworks.recipes.painting import PAINTING

MODEL = vw.AutoencoderConfig(
    channels=8, channel_mult=(1, 2, 2), num_res_blocks=1, norm_groups=4, latent_channels=4, scaling_factor=0.5
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, a model file, a diffusers folder."""
    root = tmp_path_factory.mktemp("place")
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (24, 28, 3), dtype=np.uint8)).resize((70, 50), 3).save(
            root / "photos" / f"p{i}.png"
        )
    torch.manual_seed(0)
    vae = vw.build(MODEL)
    vw.save(vae, root / "vae.safetensors")
    vw.save(vae, root / "folder", layout="diffusers")
    return root


def error(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command ends with, exit code 2."""
    assert main([str(w) for w in words]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("vaeworks: ")
    return said


@pytest.mark.parametrize(
    "words", [["--help"], *([name, "--help"] for name in COMMANDS), ["train", "sd1", "--help"], ["--version"]]
)
def test_help_imports_no_torch(words: list[str]) -> None:
    """Every help text is there, exits with 0, and needs neither torch nor numpy."""
    code = f"import sys; sys.argv = ['vaeworks', *{words!r}]\nfrom vaeworks.cli import main\n"
    code += "try: code = main()\nexcept SystemExit as e: code = e.code\n"
    code += "assert not code, code; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules), 'imported'"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "vaeworks" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ({}, ("1000", None)),
        ({"GOMP_SPINCOUNT": "7"}, ("7", None)),
        ({"OMP_WAIT_POLICY": "active"}, (None, "active")),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "start",
    [
        "from vaeworks.cli import main; sys.exit(main())",
        "import runpy; runpy.run_module('vaeworks', run_name='__main__')",
    ],
)
def test_threads_wait_as_the_user_wants_before_torch_is_there(
    start: str, theirs: dict, expected: tuple, tmp_path: Path
) -> None:
    """The console script and `python -m`: what OpenMP reads is set when torch begins to be imported, and in a process
    of its own."""
    code = f"""
import os, subprocess, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            told = "import os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
            sys.stdout.write(subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout)
            sys.exit(5)
sys.meta_path.insert(0, Watch())
sys.argv = ["vaeworks", "reconstruct", {str(tmp_path / "none")!r}, "a.png", "--out", {str(tmp_path / "out")!r}]
{start}
"""
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], env=clean | theirs, capture_output=True, text=True, check=False)
    assert done.returncode == 5 and done.stdout.split() == [str(value) for value in expected], done.stderr


def test_importing_the_package_imports_no_torch() -> None:
    """Names are resolved when first used, all of them exist, and a wrong one is an AttributeError."""
    code = (
        "import sys, vaeworks as vw; assert 'torch' not in sys.modules; [getattr(vw, n) for n in vw.__all__]; assert "
        "'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vw.nonsense


def test_unknown_words_get_the_nearest_known(capsys) -> None:
    """Command, recipe and option."""
    assert "did you mean 'train'?" in error(capsys, "trian")
    assert "did you mean 'sd1'?" in error(capsys, "train", "sd11", "--data", "x", "--out", "y")
    assert "--imags" in error(capsys, "train", "sd1", "--data", "x", "--out", "y", "--imags", 3)
    assert "--data" in error(capsys, "train", "sd1", "--out", "y")


def test_recipes_lists_all(capsys) -> None:
    """As JSON on stdout, nothing else there."""
    assert main(["recipes", "--json"]) == 0
    assert [row["recipe"] for row in json.loads(capsys.readouterr().out)] == [*RECIPES, *PAINTING]


def test_train_eval_resume(place: Path, tmp_path: Path, capsys) -> None:
    """The newcomer's path: train, evaluate what was held out, make the run longer; JSON throughout."""
    run = tmp_path / "run"
    assert main(["train", "small-f4c4", "--data", str(place / "photos"), "--out", str(run), *TRAIN, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["images_seen"] == 32
    assert main(["eval", str(run), "--data", str(place / "photos"), "--out", str(tmp_path / "eval"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    held_out = {f["path"] for f in json.loads((run / "data.json").read_text())["val"]}
    assert {score["path"] for score in result["scores"]} == held_out
    assert json.loads((tmp_path / "eval" / "eval.json").read_text()) == result
    assert all((tmp_path / "eval" / name).exists() for name in ("gallery.png", "report.html"))
    assert (
        main(["eval", str(run), "--data", str(place / "photos"), "--include-training", "--no-legibility", "--json"])
        == 0
    )
    assert len(json.loads(capsys.readouterr().out)["scores"]) == 10
    # --resume takes the run's own settings, and the option that lengthens it
    assert (
        main(
            [
                "train",
                "small-f4c4",
                "--data",
                str(place / "photos"),
                "--out",
                str(run),
                "--resume",
                "--images",
                "48",
                "--json",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["images_seen"] == 48


def test_bad_training_input(place: Path, tmp_path: Path, capsys) -> None:
    """One line each, exit code 2, and no folder made."""
    out = tmp_path / "run"
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.jpg").write_text("no picture")
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    Image.new("RGB", (8, 8)).save(tiny / "a.png")
    cases = [
        (tmp_path / "nowhere", [], "does not exist"),
        (empty, [], "no image file in"),
        (broken, [], "a.jpg: not an image"),
        (tiny, [], "8x8 pixels, smaller than 16"),
        (place / "photos", ["--data.size", "17"], "data.size (=17) must be divisible"),
        (place / "photos", ["--data.val-fraction", "0.9999"], "all 10 images"),
        (place / "photos", ["--optimizer.lr", "-1"], "lr (=-1.0) must be positive"),
        (place / "photos", ["--model.norm-groups", "3"], "must be divisible by norm_groups (=3)"),
    ]
    for data, options, message in cases:
        assert message in error(capsys, "train", "small-f4c4", "--data", data, "--out", out, *TRAIN, *options)
        assert not out.exists(), message


def test_reconstruct_encode_decode_agree(place: Path, tmp_path: Path, capsys) -> None:
    """decode(encode(x)) is reconstruct(x), at a size that is no multiple of f."""
    photo = place / "photos" / "p0.png"
    model = str(place / "vae.safetensors")
    assert main(["reconstruct", model, str(photo), "--out", str(tmp_path / "a"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["encode", model, str(photo), "--out", str(tmp_path / "b")]) == 0
    assert main(["decode", model, str(tmp_path / "b"), "--out", str(tmp_path / "c")]) == 0
    one, other = (to_uint8(open_image(tmp_path / name / "p0.png")) for name in "ac")
    assert one.shape == (3, 50, 70)
    assert torch.equal(one, other)
    assert told[str(tmp_path / "a" / "p0.png")]["psnr"] == pytest.approx(psnr(to_uint8(open_image(photo)), one))
    # posterior samples differ by seed, the mode does not
    for name, seed in (("s0", 0), ("s1", 1), ("t0", 0)):
        main(["encode", model, str(photo), "--out", str(tmp_path / name), "--posterior", "sample", "--seed", str(seed)])
    files = [(tmp_path / name / "p0.safetensors").read_bytes() for name in ("s0", "s1", "t0")]
    assert files[0] == files[2] != files[1]


def test_decode_within_memory_with_a_certificate_and_of_shards(place: Path, tmp_path: Path, capsys) -> None:
    """The plan and the certificate are told, a budget that is too small says the least that works, the images of
    shards keep their names."""
    model, photos = str(place / "vae.safetensors"), place / "photos"
    main(["encode", model, str(photos / "p0.png"), "--out", str(tmp_path / "one")])
    words = ["decode", model, str(tmp_path / "one"), "--out", str(tmp_path / "p")]
    capsys.readouterr()
    assert main([*words, "--memory", "300MiB", "--verify", "--json"]) == 0
    told = capsys.readouterr()
    assert (
        "about " in told.err
        and " at most" in told.err
        and "against the whole picture in float32" in " ".join(told.err.split())
    )
    assert json.loads(told.out)[str(tmp_path / "p" / "p0.png")]["certificate"]["max_error"] < 1e-5
    assert "takes at least" in error(capsys, *words, "--memory", "1KiB", "--overwrite")
    assert "must be a size" in error(capsys, *words, "--memory", "lots", "--overwrite")
    assert main([*words, "--precision", "bf16", "--verify", "--overwrite"]) == 0
    assert "in bfloat16" in " ".join(capsys.readouterr().out.split())

    assert main(["encode", model, str(photos), "--size", "64", "--labels", "none", "--out", str(tmp_path / "set")]) == 0
    assert main(["decode", model, str(tmp_path / "set"), "--out", str(tmp_path / "pictures")]) == 0
    folder = tmp_path / "pictures" / "latents_rank00_shard000"
    assert {path.name for path in folder.iterdir()} == {f"{path.stem}.png" for path in photos.iterdir()}
    assert open_image(folder / "p0.png").size == (64, 64)
    assert "p0.png exists" in error(capsys, "decode", model, tmp_path / "set", "--out", tmp_path / "pictures")


def test_nothing_is_overwritten_unasked(place: Path, tmp_path: Path, capsys) -> None:
    """A target that exists is named and kept; no other target is written either."""
    (tmp_path / "p3.png").write_text("precious")
    words = ["reconstruct", place / "vae.safetensors", place / "photos", "--out", tmp_path]
    assert "p3.png exists" in error(capsys, *words)
    assert [p.name for p in tmp_path.iterdir()] == ["p3.png"]
    assert main([str(w) for w in [*words, "--overwrite"]]) == 0
    assert len(list(tmp_path.iterdir())) == 10


def test_bad_models_and_inputs(place: Path, tmp_path: Path, capsys) -> None:
    """Each in one line: missing model, no model, torn model, no image, latents of another model."""
    photos = place / "photos"
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((place / "vae.safetensors").read_bytes()[:3000])
    assert "does not exist" in error(capsys, "eval", tmp_path / "none", "--data", photos)
    assert "neither a run's" in error(capsys, "eval", photos, "--data", photos)
    assert "ends within its header" in error(capsys, "eval", torn, "--data", photos)
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png: not an image" in error(
        capsys, "reconstruct", place / "folder", tmp_path / "text.png", "--out", tmp_path / "o"
    )
    main(["encode", str(place / "folder"), str(photos / "p0.png"), "--out", str(tmp_path / "latents")])
    vw.save(vw.build(MODEL, latent_channels=8), tmp_path / "c8.safetensors")
    assert "f4c4, this one is f4c8" in error(
        capsys, "decode", tmp_path / "c8.safetensors", tmp_path / "latents", "--out", tmp_path / "o"
    )


def test_generate(place: Path, tmp_path: Path, capsys) -> None:
    """A picture from noise and one from an image; what cannot be is one line."""
    words = ["generate", "tiny", "a photo of a dog", "--vae", place / "vae.safetensors", "--steps", 2, "--size", 32]
    assert main([str(w) for w in [*words, "--out", tmp_path / "a.png", "--json"]]) == 0
    assert json.loads(capsys.readouterr().out)["pipeline"] == "StableDiffusionPipeline"
    assert main([str(w) for w in [*words, "--out", tmp_path / "b.jpg", "--image", place / "photos" / "p0.png"]]) == 0
    assert {open_image(tmp_path / n).size for n in ("a.png", "b.jpg")} == {(32, 32)}
    assert "a.png exists" in error(capsys, *words, "--out", tmp_path / "a.png")
    assert "must be divisible by" in error(capsys, *words[:-1], 30, "--out", tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize(
    "words", [["reconstruct"], ["decode"], ["edit", "--contrast", "2"], ["restore", "--noise", "5"], ["vary"]]
)
def test_no_input(place: Path, tmp_path: Path, capsys, words: list[str]) -> None:
    """Without IN there is one line, and no folder."""
    assert "no IN is given" in error(capsys, words[0], place / "vae.safetensors", *words[1:], "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


WRONG = {
    "eval MODEL --data IN --val-fraction 2": "val_fraction (=2.0) must be in [0, 1)",
    "eval MODEL --data IN --multiple 0": "multiple (=0) must be a multiple of 4",
    "eval MODEL --data IN --sample -1": "seed (=-1) must not be negative",
    "eval MODEL --data IN --limi 3": "--limi is no option of vaeworks eval; did you mean --limit?",
    "eval MODEL": "vaeworks: --data SRC is missing: folder of images",
    "doctor MODEL --data IN --out OUT --seed -1": "seed (=-1) must not be negative",
    "sample MODEL --out OUT --size 0": "size (=0) must be at least 1",
    "augment MODEL --data IN --out OUT --size 0": "size (=0) must be at least 1",
    "anomaly MODEL --normal IN --out OUT --size 0": "size (=0) must be at least 1",
    "edit MODEL IN --out OUT --contrast nan": "contrast (=nan) must be finite",
    "edit MODEL IN --out OUT --direction a:b --strength": "strength (=()) must be one or more finite numbers",
    "edit MODEL IN --out OUT --direction a:b --strength nan": "strength (=(nan,)) must be one or more finite numbers",
    "restore MODEL IN --out OUT --noise foo": "noise 'foo' must be a standard deviation in gray levels",
    "match IN": "is a folder without vae/; give the file of a full checkpoint",
    "convert MODEL OUT --layout foo": "--layout 'foo' must be one of diffusers, ldm, native, taesd",
}
"""Commands with one wrong value, and what is said about it."""


@pytest.mark.parametrize("words", WRONG)
def test_wrong_values(place: Path, tmp_path: Path, capsys, words: str) -> None:
    """One line, without the parser's frame, before any work: nothing is written."""
    places = {"MODEL": place / "vae.safetensors", "IN": place / "photos", "OUT": tmp_path / "out"}
    said = error(capsys, *(places.get(word, word) for word in words.split()))
    assert WRONG[words] in said
    assert not any(frame in said for frame in ("──", "----", "│"))
    assert not (tmp_path / "out").exists()


def test_folders_files_and_names_that_do_not_fit(place: Path, tmp_path: Path, capsys) -> None:
    """A folder is never replaced by a picture, a file never by a folder; unknown kinds and devices are told before the
    work."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a.txt").write_text("x")
    generate = ["generate", "tiny", "a dog", "--vae", place / "vae.safetensors"]
    assert "precious is a folder" in error(capsys, *generate, "--out", tmp_path / "precious", "--overwrite")
    assert (tmp_path / "precious" / "a.txt").exists()
    assert "kind of picture" in error(capsys, *generate, "--out", tmp_path / "a.xyz")
    assert "device 'nonsense'" in error(capsys, *generate, "--out", tmp_path / "a.png", "--device", "nonsense")
    taken = tmp_path / "precious" / "a.txt"
    assert "a.txt is a file" in error(
        capsys, "reconstruct", place / "vae.safetensors", place / "photos", "--out", taken
    )
    assert "limit (=-5)" in error(capsys, "eval", place / "vae.safetensors", "--data", place / "photos", "--limit", -5)
    assert "recipe comes first" in error(
        capsys, "train", "--data", place / "photos", "--out", tmp_path / "r", "small-f4c4"
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    words = ["train", "small-f4c4", "--data", place / "photos", "--out", tmp_path / "run", "--resume"]
    assert "run.json is not a run's record" in error(capsys, *words)


def test_folders_keep_their_shape_and_broken_files_are_passed_over(place: Path, tmp_path: Path, capsys) -> None:
    """A class tree is mirrored; a file that cannot be read is named, brackets and all, and the rest is done."""
    for name in ("a/001.png", "b/001.png", "b/x[/b].png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes((place / "photos" / "p0.png").read_bytes() if "001" in name else b"broken")
    out = tmp_path / "out"
    assert main(["reconstruct", str(place / "vae.safetensors"), str(tmp_path / "in"), "--out", str(out)]) == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == ["a/001.png", "b/001.png"]
    assert "x[/b].png: not an image" in capsys.readouterr().err
    assert main(["eval", str(place / "vae.safetensors"), "--data", str(tmp_path / "in"), "--no-legibility"]) == 0
    assert "x[/b].png: not an image" in capsys.readouterr().err.replace("\n", "")


def test_full_disk_anywhere_is_one_line(place: Path, tmp_path: Path) -> None:
    """A limit on file size that the first sample grid meets: one line, exit code 2, no traceback."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from vaeworks.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", "small-f4c4", "--data", str(place / "photos"), "--out", str(tmp_path / "run"), *TRAIN]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("vaeworks: ")
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    """--debug lets the error through."""
    with pytest.raises(vw.FormatError):
        main(["eval", str(tmp_path / "none"), "--data", "photos", "--debug"])


def test_interrupted_training_says_how_to_go_on(place: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """Ctrl-C: exit code 130, a checkpoint, and the very command that continues."""
    import os
    import signal

    from vaeworks.training import loop

    step = loop.training_step
    monkeypatch.setattr(loop, "training_step", lambda *a, **k: (os.kill(os.getpid(), signal.SIGINT), step(*a, **k))[1])
    words = ["train", "small-f4c4", "--data", str(place / "photos"), "--out", str(tmp_path / "run")]
    assert main([*words, *TRAIN]) == 130
    assert f"vaeworks {' '.join(words)} --resume" in capsys.readouterr().err
    assert list((tmp_path / "run" / "checkpoints").iterdir())
