"""A template rendered to one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError
from ..files.atomic import write_text
from ..words import many


def write_page(path: Path, template: str, values: Mapping[str, Any], overwrite: bool = True) -> None:
    """Render a template of this folder into one file, whole or not at all; over what was there, or only where nothing
    is."""
    write_text(path, _environment().get_template(template).render(values), overwrite)


def check_templates() -> None:
    """Errors: MissingExtraError without jinja2."""
    _environment()


@cache
def _environment() -> Any:
    """Templates, each compiled once: a run writes its page at every look."""
    try:
        import jinja2
    except ImportError:
        raise MissingExtraError("jinja2", "report", "the page") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["many"] = many
    return environment
