"""Modules whose old names documents and examples of 0.1 showed: importing one gives the module that it is now."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec

TYPE_CHECKING = False  # as typing's: importing typing takes longer than all of this, and Ctrl-C is not caught yet
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

MOVED = {
    "apps.density": "apps.generation.density",
    "apps.interpolate": "apps.generation.interpolate",
    "apps.latent_map": "apps.generation.latent_map",
    "apps.restoration.figures": "apps.restoration.scores",
    "apps.sampling": "apps.generation.sampling",
    "apps.sound": "apps.audio",
    "data.drawing": "data.synthetic.drawing",
    "data.place": "data.image_ref",
    "data.sound": "data.sources.sound",
    "data.synthesis": "data.synthetic.synthesis",
    "doctor.fog": "doctor.compatibility.match",
    "doctor.patient": "doctor.subject",
    "formats.files": "files.atomic",
    "formats.layouts": "formats.io",
    "formats.pipelines": "pipelines.stable_diffusion",
    "metrics.bootstrap": "intervals",
    "metrics.reading": "metrics.crop",
    "precompute": "latents",
}
"""New names by old ones, both below `vaeworks`."""


class _Finder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != __package__ or name not in MOVED:
            return None
        loader = _Loader(f"{package}.{MOVED[name]}")  # has a loader's two methods, without importing its base class
        return ModuleSpec(fullname, loader)  # type: ignore[arg-type]


class _Loader:
    def __init__(self, name: str):
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        import warnings

        warnings.warn(f"{spec.name} is now {self.name}", DeprecationWarning, stacklevel=2)
        module = import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # which the import of the old name has replaced


def install() -> None:
    """Let the old names be found, after everything that has them as its own."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
