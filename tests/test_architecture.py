"""The house plan: imports point downward, and heavy or optional libraries stay behind their fences."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "vaeworks"

LAYERS = [
    "moved",
    "words",
    "errors",
    "arguments",
    "launcher",
    "terminal",
    "reporting",
    "config",
    "recipes",
    "devices",
    "files",
    "images",
    "random_streams",
    "intervals",
    "distributed",
    "nn",
    "models",
    "losses",
    "data",
    "formats",
    "features",
    "runtime",
    "exports",
    "pipelines",
    "pages",
    "metrics",
    "latents",
    "apps",
    "training",
    "painting",
    "doctor",
    "arena",
    "demo",
    "cli",
    "__main__",
]
"""Every module and package, from the ground up: each imports what stands before it, and nothing beside or above."""
LEVEL = {name: level for level, name in enumerate(LAYERS)}

FENCES = {
    "diffusers": {
        "formats/diffusers.py",
        "formats/diffusers_adapter.py",
        "formats/shared_weights.py",
        "pipelines/stable_diffusion.py",
        "pipelines/tiny.py",
        "pipelines/acceleration.py",
        "pipelines/blank.py",
    },
    "transformers": {
        "pipelines/tiny.py",
        "pipelines/blank.py",
        "pipelines/stable_diffusion.py",
        "features/backbones.py",
    },
    "peft": {"painting/lora.py"},
    "tyro": {"cli"},
    "jinja2": {"pages/page.py"},
    "huggingface_hub": {"formats/hub.py"},
    "datasets": {"data/sources/hub.py"},
    "pyarrow": set(),
    "soundfile": {"data/sources/sound.py"},
    "torchmetrics": {"metrics/kernel.py"},
    "wandb": {"training/monitor/trackers.py"},
    "trackio": {"training/monitor/trackers.py"},
    "onnx": set(),
    "onnx_ir": {"exports/onnx_graphs.py"},
    "onnxruntime": {"exports/onnx_check.py"},
    "onnxscript": set(),
    "torchvision": set(),
    "pickle": set(),
    "gradio": set(),
    "triton": {"runtime/kernels/triton_normalization.py", "runtime/kernels/triton_doubling.py"},
}
"""Where a library may be imported: files, or a whole package."""

FILES = sorted(SRC.rglob("*.py"))


def imports(path: Path) -> list[tuple[int, str]]:
    """(relative level, module) of every import in a file, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or node.names[0].name))
    return found


def part(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_point_downward(path: Path) -> None:
    """A part imports from itself and from the parts below, also inside functions and for type checkers."""
    if part(path) == "__init__":
        return  # the lazy index of public names
    here = path.relative_to(SRC).parent.parts
    for level, module in imports(path):
        assert module.split(".")[0] != "vaeworks", (
            f"{path.name} imports {module}; imports within the package are relative"
        )
        if level and module != "__version__":
            target = [*here[: len(here) - (level - 1)], *module.split(".")][0]
            assert target == part(path) or LEVEL[target] < LEVEL[part(path)], (
                f"{path.relative_to(SRC)} imports {target}, which does not stand below {part(path)}"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_fences(path: Path) -> None:
    """Named libraries are imported in their places only."""
    for level, module in imports(path):
        library = module.split(".")[0]
        if not level and library in FENCES:
            assert {path.relative_to(SRC).as_posix(), part(path)} & FENCES[library], f"{path} imports {library}"


def test_losses_import_no_network() -> None:
    """Losses are given networks' outputs."""
    for path in (SRC / "losses").glob("*.py"):
        assert all("models" not in module and module != "nn" for level, module in imports(path) if level)


def test_every_part_has_a_layer() -> None:
    """A new folder or module takes a place in LAYERS."""
    assert {part(p) for p in FILES} - {"__init__"} <= LEVEL.keys()


def test_the_layout_in_the_document_is_the_layers() -> None:
    """docs/architecture.md lists every part, from the top down, as LAYERS does from the ground up."""
    layout = (SRC.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    lines = [re.findall(r"^(?:[\w.]+(?:/|\.py) ?)+", line)[0].split() for line in layout.strip().splitlines()]
    parts = [[name.strip("/").removesuffix(".py") for name in line] for line in lines]
    levels = [max(LEVEL[name] for name in line) for line in parts]
    assert levels == sorted(levels, reverse=True)
    assert {name for line in parts for name in line} == LEVEL.keys() - {"__main__"}
