"""The pages in docs/: the names, options and links in them exist; docs/python.md is complete and runs."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

import vaeworks as vw
from vaeworks.cli import COMMANDS, main
from vaeworks.data import photos

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != "log.md")
FOREIGN = {
    *("--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"),  # torchrun
    *("--multi_gpu", "--num_processes", "--cpu", "--mpirun_hostfile"),  # accelerate
    "--no-half-vae",  # AUTOMATIC1111
    "--minutes",  # benchmarks/
}
"""Options of other programs."""

PYTHON = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_exist(page: Path) -> None:
    """Every `vw.NAME`, and every import from the package in a block, is there. docs/log.md tells of old names."""
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"\bvw\.(\w+)", text)) <= set(dir(vw))
    for line in re.findall(r"^from vaeworks\b.* import .*$", "".join(blocks(text)), re.M):
        exec(line, {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links(page: Path) -> None:
    """Files that a page links to are there, and so are their headings."""
    text = page.read_text(encoding="utf-8")
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
        other = page.parent / target if target else page
        assert other.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.M)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], target


@pytest.fixture(scope="module")
def options() -> set[str]:
    """The options of all commands, as their help shows them, and of a recipe."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.setenv("COLUMNS", "200")
        for words in [*COMMANDS, "train small-f8c16"]:
            with pytest.raises(SystemExit):
                main([*words.split(), "--help-all"])
    return set(re.findall(r"--[a-z][\w.-]*", shown.getvalue())) | {"--json", "--help-all"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_exist(page: Path, options: set[str]) -> None:
    """Every option that a page names is one of ours, or of a program in `FOREIGN`."""
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", page.read_text(encoding="utf-8")))
    assert named - FOREIGN <= options


def test_python_page_is_complete() -> None:
    """Every public name has a place on the page, and every command has its row in the order of `vaeworks --help`."""
    assert set(vw.__all__) <= set(re.findall(r"\bvw\.(\w+)", PYTHON))
    rows = re.findall(r"^\| `([a-z]+(?:[- ][a-z]+)*)` \| `vw\.\w+` \|", PYTHON, re.M)
    assert rows == list(COMMANDS)


def test_python_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks run one after the other, on a small model and a photograph."""
    torch.manual_seed(0)
    small = vw.AutoencoderConfig(channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4, mid_attention=False)
    monkeypatch.chdir(tmp_path)
    vw.save(vw.build(small), "vae.safetensors")
    (tmp_path / "photos").mkdir()
    for name in ("photos/a.png", "dog.jpg"):
        vw.to_images(vw.open_image(photos()[0], size=64))[0].save(name)
    scope: dict[str, object] = {}
    for block in blocks(PYTHON):
        exec(compile(block, "docs/python.md", "exec"), scope)
    assert (tmp_path / "copy.png").exists()
