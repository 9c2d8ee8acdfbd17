"""Names and values from files reach no terminal as commands, and no message is endless; JSON stays exact."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from safetensors.torch import save_file

import vaeworks as vw
from vaeworks.cli import console as cli_console
from vaeworks.cli import main
from vaeworks.config import TinyConfig, dumps, to_dict
from vaeworks.errors import ConfigError, FormatError, MissingExtraError, VaeworksError
from vaeworks.formats.apps.install import _file_name, _usable
from vaeworks.models import Autoencoder
from vaeworks.terminal import Terminal
from vaeworks.words import MOST, cut, one_line, printable

EVIL = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\u2066\r\nvaeworks: all is well\u2028\x00\x7f[bold "
    "red]:smile:[link=file:///etc]"
)
"""A title, a cleared screen, an 8-bit sequence, text from right to left, a line of its own, markup."""

NAME = EVIL.replace("\x00", "").replace("/", "_")
"""The same as a file's name."""


ONE_LINE = EVIL.replace("\n", "")
"""The same without line ends, which a `Text` may have."""


def check(told: str | bytes, most: int = 40_000) -> None:
    """Nothing that a terminal acts upon, and not much of it."""
    text = told.decode(errors="surrogateescape") if isinstance(told, bytes) else told
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert len(text) < most
    assert not any(line.startswith("vaeworks: all is well") for line in text.splitlines())


@given(st.text(max_size=100))
def test_words_are_made_printable_once(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() and printable(shown) == shown
    assert (shown == text) == text.isprintable()
    line = one_line(text)
    assert line.isprintable() and one_line(line) == line


def test_long_words_keep_their_ends() -> None:
    text = "rule " + "x" * 5_000_000 + " remedy"
    assert cut("short") == "short"
    for told in (cut(text), one_line(text), one_line(text.replace("x", "\x1b"))):
        assert (
            len(told) < MOST + 100
            and told.startswith("rule ")
            and told.endswith(" remedy")
            and "characters left out" in told
        )


@pytest.mark.parametrize("kind", [VaeworksError, ConfigError, FormatError])
def test_errors_are_printable_lines(kind: type[VaeworksError]) -> None:
    error = kind(f"{EVIL} is bad;\n   take another  one")
    check(str(error))
    assert "\n" not in str(error) and str(error).endswith("is bad; take another  one")
    assert error.args == (str(error),)
    assert len(str(kind("x" * 5_000_000))) < MOST + 100
    check(str(MissingExtraError(EVIL, "extra", "it")))


def terminal() -> tuple[Terminal, io.StringIO]:
    out = Terminal(width=200, force_terminal=False)
    out.file = io.StringIO()
    return out, out.file


def test_the_console_shows_and_does_not_act() -> None:
    """Strings, cells, titles and texts of every kind; what our own code means is still there."""
    out, told = terminal()
    table = Table("name", EVIL, title=EVIL)
    table.add_row(EVIL, Text(ONE_LINE))
    with Progress("{task.description}", console=out) as progress:
        progress.add_task("x")
        for thing in (EVIL, Text(ONE_LINE), table, Panel(EVIL, title=Text(ONE_LINE))):
            out.print(thing, style="yellow")
    check(told.getvalue())
    assert "[bold red]:smile:[link=file:///etc]" in told.getvalue().replace("\n", "")


def test_colours_of_ours_are_kept() -> None:
    out = Terminal(force_terminal=True, color_system="standard", width=80, _environ={})
    out.file = io.StringIO()
    out.print("a \x1b[31m", style="yellow")
    assert out.file.getvalue() == "\x1b[33ma \\x1b[31m\x1b[0m\n"


def test_a_progress_bar_is_named_after_a_file(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing without a terminal; on one, only the bar's own sequences, which rich makes."""
    assert list(cli_console.TERMINAL.track([1, 2], EVIL)) == [1, 2]
    assert capsys.readouterr().err == ""
    out = Terminal(force_terminal=True, color_system=None, width=200, _environ={})
    out.file = io.StringIO()
    monkeypatch.setattr(cli_console, "console", lambda: out)
    assert list(cli_console.TERMINAL.track([1, 2], EVIL)) == [1, 2]
    with cli_console.TERMINAL.bytes(EVIL) as progress:
        progress(1, 2)
    check(re.sub(r"\x1b\[(\?25[hl]|2K|1A)|\r", "", out.file.getvalue()))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files whose tensors' names, metadata and own names are hostile."""
    folder = tmp_path_factory.mktemp("files")
    model = Autoencoder(TinyConfig()).eval()
    vw.save(model, folder / f"{NAME}.safetensors")
    tensors = {f"encoder.{EVIL}.{n}.weight": torch.zeros(2, 2) for n in range(3)}
    save_file(tensors, folder / "names.safetensors", metadata={"format": "pt"})
    save_file({"x" * 3_000_000: torch.zeros(1)}, folder / "long.safetensors")
    diffusion = {
        f"model.diffusion_model.{EVIL}": torch.zeros(1),
        f"first_stage_model.decoder.{EVIL}.weight": torch.zeros(2, 2),
    }
    save_file(diffusion, folder / "checkpoint.safetensors", metadata={EVIL: EVIL})
    config = json.dumps({"_class_name": EVIL, "block_out_channels": [EVIL], EVIL: EVIL})
    (folder / f"folder{NAME}").mkdir()
    (folder / f"folder{NAME}" / "config.json").write_text(config)
    save_file(tensors, folder / f"folder{NAME}" / "diffusion_pytorch_model.safetensors")
    Image.new("RGB", (32, 32)).save(folder / f"{NAME}.png")
    (folder / f"broken{NAME}.png").write_bytes(b"no image")
    return {
        p.stem
        if p.suffix == ".safetensors" and p.stem != NAME
        else ("model" if p.suffix == ".safetensors" else p.name): p
        for p in folder.iterdir()
    }


def commands(files: dict[str, Path], out: Path) -> list[list[Any]]:
    model, names, long = files["model"], files["names"], files["long"]
    folder, picture, broken = files[f"folder{NAME}"], files[f"{NAME}.png"], files[f"broken{NAME}.png"]
    return [
        *(["inspect", one] for one in (model, names, long, files["checkpoint"], folder, picture, out / NAME)),
        *(
            ["convert", one, out / f"{n}{NAME}.safetensors", "--layout", "native"]
            for n, one in enumerate((model, names, long, folder))
        ),
        ["convert", model, out / NAME, "--layout", "diffusers"],
        ["extract", files["checkpoint"], out / "v.safetensors"],
        ["bake", model, names, out / f"b{NAME}.safetensors"],
        ["match", files["checkpoint"], model],
        ["reconstruct", model, picture, broken, "--out", out / "r"],
        ["encode", model, picture, broken, "--out", out / "e", "--into", "files"],
        [
            "encode",
            model,
            picture.parent,
            "--out",
            out / f"s{NAME}",
            "--into",
            "shards",
            "--size",
            "16",
            "--workers",
            "0",
        ],
        ["vary", model, picture, "--out", out / "v", "--count", "2"],
        ["install", model, "--into", "comfyui", out],
        ["eval", model, "--data", broken],
        ["train", "digits-vae", "--data", broken, "--out", out / f"t{NAME}"],
        ["decode", model, names, "--out", out / "d"],
        [EVIL],
        ["inspect", f"--{EVIL}"],
        ["train", EVIL],
    ]


@pytest.mark.parametrize("text", [EVIL, "\u202egnp.\u2066 owned"], ids=["controls", "directions"])
def test_a_runs_settings_in_the_help(text: str, tmp_path: Path, capfd) -> None:
    """The parser prints what is set in a run's record: controls are refused, and changes of direction are seen."""
    config = dataclasses.replace(vw.recipe("digits-vae"), license=text)
    (tmp_path / "run.json").write_text(dumps({"recipe": "digits-vae", "source": "x", "config": to_dict(config)}))
    words = ["train", "digits-vae", "--out", str(tmp_path), "--resume", "--help-all"]
    if text == EVIL:
        assert main(words) == 2
    else:
        with pytest.raises(SystemExit):
            main(words)
    told = capfd.readouterr()
    assert "owned" in (told.err if text == EVIL else told.out)
    check(told.err)
    check(told.out, 10**6)


@pytest.mark.parametrize("number", range(26))
def test_nothing_from_a_file_is_acted_upon(number: int, files: dict[str, Path], tmp_path: Path, capfd) -> None:
    words = [str(word) for word in commands(files, tmp_path)[number]]
    code = main(words)
    told = capfd.readouterr()
    assert code in (0, 2), told.err
    assert told.out if code == 0 else told.err
    check(told.out)
    check(told.err)
    check(told.out)


def test_json_is_exact(files: dict[str, Path], capfd) -> None:
    assert main(["inspect", str(files["model"]), "--json"]) == 0
    told = capfd.readouterr()
    check(told.out)
    assert json.loads(told.out)["path"] == str(files["model"])


def test_warnings_logs_and_system_errors_are_lines(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """What libraries say, too."""

    def says(*_: Any, **__: Any) -> None:
        warnings.warn(EVIL, stacklevel=1)
        handler = logging.StreamHandler()
        log = logging.getLogger("library")
        log.addHandler(handler)
        try:
            log.warning("%s is odd", EVIL)
        finally:
            log.removeHandler(handler)
        raise FileNotFoundError(2, EVIL, EVIL)

    monkeypatch.setattr("vaeworks.formats.identify.identify", says)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["inspect", "x"]) == 2
    told = capsys.readouterr().err
    check(told)
    assert told.count("\n") == 3
    assert logging.getLogRecordFactory() is logging.LogRecord


# Names that are written


@pytest.mark.parametrize(
    "name",
    [
        "a:b",
        "a\nb",
        "a\u202eb",
        "con",
        "NUL",
        "com1.vae",
        "a.",
        "a ",
        ".a",
        "",
        "a/b",
        "a\\b",
        "a?",
        "a*",
        'a"',
        "a|b",
        "<a>",
    ],
)
def test_names_that_not_every_system_has(name: str) -> None:
    with pytest.raises(ConfigError, match="must be a file name on every system"):
        _usable(name, "choose another")


@pytest.mark.parametrize("name", ["vae-ft-mse", "my vae (1)", "ä", "日本", "console", "a.b"])
def test_names_that_every_system_has(name: str) -> None:
    assert _usable(name, "") == name


def test_a_vae_is_installed_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.` has a name as well."""
    (tmp_path / "my-model" / "vae").mkdir(parents=True)
    for folder, source, name in (
        ("my-model", ".", "my-model"),
        ("my-model/vae", "..", "my-model"),
        ("my-model/vae", ".", "my-model-vae"),
        ("my-model", "./vae/", "my-model-vae"),
        (".", "a/b.vae.safetensors", "b"),
        (".", "hf:owner/name", "name"),
    ):
        monkeypatch.chdir(tmp_path / folder)
        assert _file_name(SimpleNamespace(name=None, source=source)) == name  # type: ignore[arg-type]
    monkeypatch.chdir("/")
    with pytest.raises(ConfigError, match=r"must be a file name .* pass --name"):
        _file_name(SimpleNamespace(name=None, source="."))  # type: ignore[arg-type]


# Ctrl-C


@pytest.mark.parametrize("words", [["recipes"], ["inspect", "missing.safetensors"], ["train", "digits-vae", "--help"]])
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_at_any_time_is_one_line(words: list[str], times: int, tmp_path: Path) -> None:
    """While Python imports, while words are parsed, and while Python ends."""
    for delay in (0.06, 0.15, 0.3):
        code = "import sys; print('begun', flush=True); from vaeworks.__main__ import run; run()"
        with subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        ) as process:
            assert process.stdout and process.stdout.readline() == "begun\n"
            for _ in range(times):
                time.sleep(delay)
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 2, 130)
        assert "Traceback" not in err and "Exception" not in err
        if process.returncode == 130:
            assert err.count("interrupted") == 1


def test_ctrl_c_while_a_text_is_executed(tmp_path: Path) -> None:
    """Python remembers that, and would end by the signal instead of the exit code."""
    (tmp_path / "interrupted.py").write_text(
        "import atexit, vaeworks.__main__ as m, vaeworks.cli\n"
        "def main():\n"
        "    atexit.register(print, 'cleared')\n"
        "    try: exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt: return 130\n"
        "vaeworks.cli.main = main\n"
        "m.run()\n"
    )
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleared\n", "")
