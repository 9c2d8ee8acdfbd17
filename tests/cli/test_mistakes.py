"""What the command line says about words that are no options, and how much its help shows."""

from __future__ import annotations

import re

import pytest

from vaeworks.cli import COMMANDS, main
from vaeworks.cli.mistakes import OTHER_NAMES, meant

TRAIN = "train small-f8c16 --data x --out y"

WRONG = {
    f"{TRAIN} --learning-rate 1": "--learning-rate is no option of vaeworks train; did you mean --optimizer.lr?",
    f"{TRAIN} --lr=1e-3": "--lr is no option of vaeworks train; did you mean --optimizer.lr?",
    f"{TRAIN} --batch-size 4": "--batch-size is no option of vaeworks train; did you mean --batch?",
    f"{TRAIN} --batch_size 4": "--batch_size is no option of vaeworks train; did you mean --batch?",
    f"{TRAIN} --epochs 4": "--images = epochs x images of the data",
    f"{TRAIN} --num-train-epochs 4": "--images = epochs x images of the data",
    f"{TRAIN} --steps 4": "--images = steps x --batch",
    f"{TRAIN} --max-steps 4": "--images = steps x --batch",
    f"{TRAIN} --resolution 64": "did you mean --data.size?",
    f"{TRAIN} --kl-weight 1": "did you mean --loss.beta?",
    f"{TRAIN} --weight-decay 1": "did you mean --optimizer.weight-decay?",
    f"{TRAIN} --latent-channels 8": "did you mean --model.latent-channels?",
    f"{TRAIN} --imags 4 --sed 3": "did you mean --images?; --sed is no option of vaeworks train; did you mean --seed?",
    f"{TRAIN} --batch three": "vaeworks: --batch 'three' must be a whole number; see vaeworks train --help",
    f"{TRAIN} --optimizer.lr big": "vaeworks: --optimizer.lr 'big' must be a number; see vaeworks train --help",
    f"{TRAIN} --precision fp8": "vaeworks: --precision 'fp8' must be one of auto, fp32, bf16; see",
    f"{TRAIN} --batch": "vaeworks: --batch needs a value; see vaeworks train --help",
    f"{TRAIN} -batch 4": "vaeworks: -batch is no option of vaeworks train; did you mean --batch?; see",
    "encode --fp16": "--fp16 is no option of vaeworks encode; did you mean --precision?; model needs a value; see",
    "eval --outt x": "vaeworks: --outt is no option of vaeworks eval; did you mean --out?; --data SRC is missing: ",
    "train small-f8c4 --data --help-al": "vaeworks: --help-al is no option of vaeworks train; did you mean --help-all?",
    "demo --minutes x": "vaeworks: --max-minutes 'x' must be a number; see vaeworks demo --help",
    "reconstruct a b --output c": "did you mean --out?",
    "eval a --dataset b": "did you mean --data?",
    "doctor a --data b --out c --num-images 3": "did you mean --images?",
    "encode a b --out c --fp16": "did you mean --precision?",
    "recipes foo": "vaeworks: 'foo' is more than vaeworks recipes takes; see vaeworks recipes --help",
    "convert": "DST is missing: file or folder to write; --layout {diffusers,ldm,native,taesd} is missing: layout",
    "repair a b --for fp8": "vaeworks: --for 'fp8' must be fp16; see vaeworks repair --help",
    "vary a b --out c --frobnicate": "vaeworks: --frobnicate is no option of vaeworks vary; see vaeworks vary --help",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_word_is_answered_by_the_right_one(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line: what is wrong, and the option that was meant."""
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert WRONG[words] in err and not re.search("[╭│╰]|Unrecognized|Argument helptext", err)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("word", "right"),
    [("--help-al", "--help-all"), ("--helpall", "--help-all"), ("--hepl", "--help"), ("-help", "--help")],
)
def test_misspelt_help_is_all_that_is_said(
    name: str, word: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With every command, whatever else is missing."""
    words = ["train", "small-f8c4"] if name == "train" else name.split()
    assert main([*words, word]) == 2
    said = f"vaeworks: {word} is no option of vaeworks {name}; did you mean {right}?; see vaeworks {name} --help\n"
    assert capsys.readouterr() == ("", said)


def test_help_all_may_have_an_underscore() -> None:
    """As every option may."""
    assert _help("eval", "--help_all") == _help("eval", "--help-all")


def test_other_programs_names_lead_to_options_of_ours() -> None:
    """Each of our names in the table is an option of some command, and each foreign one leads to it."""
    shown = {name: _help(name, "--help-all") for name in COMMANDS}
    options = {f"--{ours}" for names in OTHER_NAMES.values() for ours in names}
    assert options <= set().union(*(re.findall(r"--[a-z][\w.-]*", text) for text in shown.values()))
    for foreign, (best, *_) in OTHER_NAMES.items():
        assert meant(f"--{foreign}", [f"--{best}"]) == [f"--{best}"]


def _help(name: str, flag: str) -> str:
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        main([*name.split(), flag])
    return said.getvalue()


@pytest.mark.parametrize("name", ["train", "train small-f8c4"])
def test_help_fits_and_all_of_it_is_there(name: str) -> None:
    """The options that are used most, and how to see all; all are about five times as many."""
    brief, everything = _help(name, "--help"), _help(name, "--help-all")
    listed = [set(re.findall(r"^[│|\s]*(--[a-z][\w.-]*)", text, re.M)) for text in (brief, everything)]
    assert 20 <= len(listed[0]) <= 25 and listed[0] < listed[1] and len(listed[1]) > 100
    assert {"--data", "--out", "--images", "--batch", "--optimizer.lr", "--data.size"} <= listed[0]
    assert "vaeworks train --help-all" in brief and "--help-all" not in everything
    assert "Train a VAE by a recipe" in brief


@pytest.mark.parametrize("name", COMMANDS)
def test_defaults_are_named_or_not_mentioned(name: str) -> None:
    """No `(default: )` and no `(default: None)`; without settings of a recipe, all options are shown."""
    text = " ".join(_help(name, "--help-all").replace("│", " ").split())
    assert "(default: )" not in text and "(default: None)" not in text
    if name != "train":
        assert _help(name, "--help") == _help(name, "--help-all")


def test_one_name_for_minutes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--max-minutes` everywhere; the demo's earlier name is taken and not shown."""
    given = []
    monkeypatch.setattr("vaeworks.demo.run_demo", lambda out, minutes, *_, **__: given.append(minutes) or 1 / 0)
    for word in ("--minutes 2", "--minutes=2", "--max-minutes 2"):
        with pytest.raises(ZeroDivisionError):
            main(["demo", *word.split()])
    assert given == [2, 2, 2]
    assert "--max-minutes" in _help("demo", "--help") and "--minutes" not in _help("demo", "--help")
